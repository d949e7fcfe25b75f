"""Head-to-Head: which attention should a GPT-2 summarizer use?

`headtohead.load(path)` gives the model and tokenizer of a `models/V` folder.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headtohead.checkpoints import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # torch and transformers are imported only when a model is
        from headtohead.checkpoints import load
        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
