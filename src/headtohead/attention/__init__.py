"""Attention variants: who sees whom, position biases, and the backends that compute them.

This package knows nothing of files, DVC or GPT-2. `AttentionSpec` imports without torch;
everything that needs torch is loaded on first use.
"""

from typing import TYPE_CHECKING, Any

from headtohead.attention.spec import AttentionSpec

if TYPE_CHECKING:
    from headtohead.attention.alibi import alibi_slopes
    from headtohead.attention.dispatch import attend
    from headtohead.attention.masks import visible

__all__ = ["AttentionSpec", "alibi_slopes", "attend", "visible"]


def __getattr__(name: str) -> Any:
    match name:
        case "alibi_slopes":
            from headtohead.attention.alibi import alibi_slopes as public
        case "attend":
            from headtohead.attention.dispatch import attend as public
        case "visible":
            from headtohead.attention.masks import visible as public
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return public
