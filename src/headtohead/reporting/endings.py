"""Which trainings were cut off: a comparison of trainings that are still falling compares speeds of learning."""

from collections.abc import Sequence

import numpy as np

from headtohead.reporting.results import Training

LAST_PART = 3 / 4  # of the steps: by then the fall should be over, but for what the falling learning rate adds
SHARE = 1 / 20  # of the whole fall: 1,200 steps of `news`, cut off, had 0.056 to 0.13 to go, the laptop's 0.01 to 0.047
BEHIND = 1 / 10  # of the whole fall: six trainings of 1,200 steps of `news` ended up to 0.17 apart
LEAST = 0.02  # nats per token: on `news` worth 0.002 of ROUGE-1, see docs/study.md
RULE = ("A training counts as cut off if in the last quarter of its steps its validation loss fell by more than a "
        "twentieth of its whole fall (and 0.02 nats), or if it ended by more than a tenth of it above another of its "
        "function.")


def still_falling(trainings: Sequence[Training]) -> list[Training]:
    """Those trainings of one function that were cut off before their end, by `RULE`.

    One that ends far above another of its function is among them: with a learning rate that falls to zero a curve
    flattens wherever it happens to be.
    """
    best = min((loss for training in trainings for _, loss in training.validation), default=0.0)
    return [training for training in trainings if _cut_off(training, best)]


def _cut_off(training: Training, best: float) -> bool:
    if len(training.validation) < 2:
        return True  # for all we know
    steps, losses = np.array(training.validation).T
    late, lowest = float(np.interp(LAST_PART * steps[-1], steps, losses)), float(losses.min())
    fall = float(losses[0]) - best
    return late - lowest > max(LEAST, SHARE * fall) or lowest - best > max(LEAST, BEHIND * fall)
