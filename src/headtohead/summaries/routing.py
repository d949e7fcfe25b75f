"""Which checkpoint summarizes which article."""

from collections.abc import Callable
from pathlib import Path

from headtohead.records import DataError

AUTO = "auto"
Rule = Callable[[int], str | Path]  # from an article's length in tokens to the checkpoint that summarizes it


def rule_for(model: str | Path | Rule) -> Rule:
    """A rule as it is, the last run's if `model` is "auto", or one that names the same checkpoint for every length."""
    if callable(model):
        return model
    if str(model) == AUTO:
        return rule_of_the_last_run()
    return lambda tokens: model


def rule_of_the_last_run() -> Rule:
    """Which of the last run's checkpoints to take for which length.

    Raises:
        DataError: nothing was chosen.
    """
    raise DataError("--model auto: there is no rule of which checkpoint to take; name one: --model models/VARIANT/SEED")
