"""Which checkpoint summarizes which article."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from headtohead.params import read_params
from headtohead.paths import Run
from headtohead.records import DataError

AUTO = "auto"
Rule = Callable[[int], str | Path]  # from an article's length in tokens to the checkpoint that summarizes it


def rule_for(model: str | Path | Rule, latency: float | None = None) -> Rule:
    """A rule as it is, the last run's if `model` is "auto", or one that names the same checkpoint for every length.

    Args:
        latency: see `rule_of_the_last_run`.
    """
    if callable(model):
        return model
    if str(model) == AUTO:
        return rule_of_the_last_run(latency)
    return lambda tokens: model


def rule_of_the_last_run(latency: float | None = None) -> Rule:
    """The checkpoint that `h2h choose` takes for an article by itself, in the memory that is free now.

    Of the variant's trainings that is the one with the first seed. An article that is shorter than all that was
    measured is taken for the shortest measured one, which costs no less.

    Args:
        latency: the most time that an article may take, in ms; None is no limit.

    Raises:
        DataError: there is no run, or its files are incomplete. The rule raises it for a length for which no variant is
            known to pass.
    """
    from headtohead.reporting import choice  # imports what draws and counts

    params = read_params()
    found, free = choice.of_last_run(params), _free_memory()
    most, for_summary = params.chosen.tokenizer.max_length, params.chosen.generate.max_new_tokens
    least = min(length for option in choice.options(found, "generate") for batch, length in option.time.points
                if batch == 1)

    @cache
    def take(length: int) -> Path:
        ranked = choice.answer(found, choice.Question(length=length, memory=free, latency=latency)).choice.ranked
        if not ranked:
            limit = f" --latency {latency:g}ms" if latency else ""
            raise DataError(f"--model auto: no variant is known to pass for {length:,} tokens; `h2h choose --length "
                            f"{length} --memory {free:.0f}MB{limit}` says why; to use one all the same, name it: "
                            f"--model {Run(params.attention, params.seeds[0]).model}")
        return Run(ranked[0].option.name, params.seeds[0]).model

    return lambda tokens: take(max(least, min(most, tokens + for_summary)))


def _free_memory() -> float:
    """In MB (2**20 bytes), of the device that the models run on."""
    import torch

    from headtohead.profiling import machine

    return (torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else machine.memory()[0]) / 2**20
