"""Head-to-Head: which attention should a GPT-2 summarizer use?

`headtohead.load(path)` gives the model and tokenizer of a `models/V/S` folder, `headtohead.summarize(texts, path)` the
summaries that it writes, and `headtohead.results()` the last run as a table. After `import headtohead`, transformers'
`AutoConfig` and `AutoModelForCausalLM` load such a folder too, whichever of the two libraries was imported first.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headtohead.models.checkpoints import load
    from headtohead.reporting.tidy import results
    from headtohead.summaries.run import summarize

__all__ = ["load", "results", "summarize"]

AUTO = "transformers.models.auto.configuration_auto"


def __getattr__(name: str) -> Any:
    if name == "load":  # torch and transformers are imported only when a model is
        from headtohead.models.checkpoints import load
        return load
    if name == "results":  # and pandas only with this
        from headtohead.reporting.tidy import results
        return results
    if name == "summarize":
        from headtohead.summaries.run import summarize
        return summarize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class OnDemand:
    """Stands for `headtohead.models.gpt2.Config` in transformers' registry until the first model is loaded."""

    @classmethod
    def from_dict(cls, *settings: Any, **more: Any) -> Any:
        return import_module("headtohead.models.gpt2").Config.from_dict(*settings, **more)


def _register(auto: ModuleType) -> None:
    auto.AutoConfig.register("headtohead_gpt2", OnDemand)


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _register(module)


class _Finder(PathFinder):
    """Registers once transformers has its registry: to import transformers here would take seconds."""

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        spec = super().find_spec(fullname, path, target) if fullname == AUTO else None
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


if AUTO in sys.modules:
    _register(sys.modules[AUTO])
else:
    sys.meta_path.insert(0, _Finder)
