"""Attention variants: who sees whom, what tells positions apart, and the backends that compute them.

This package knows nothing of files, DVC or GPT-2. `AttentionSpec` imports without torch;
everything that needs torch is loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headtohead.attention.spec import AttentionSpec

if TYPE_CHECKING:
    from headtohead.attention.masks import visible
    from headtohead.attention.plan import attend
    from headtohead.attention.positions import alibi_slopes

__all__ = ["AttentionSpec", "alibi_slopes", "attend", "visible"]


def __getattr__(name: str) -> Any:
    homes = {"alibi_slopes": "positions", "attend": "plan", "visible": "masks"}
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{homes[name]}"), name)
