"""Which trainings were cut off: while losses are still falling, a comparison measures speeds of learning."""

from collections.abc import Sequence

import numpy as np

from headtohead.reporting.results import Training

FIRST_PART = 1 / 4  # of the steps: what a model learns before is easy, and says nothing about the end
LAST_PART = 3 / 4  # of the steps: by then the fall should be over, except for the falling learning rate's effect
SHARE = 0.06  # of the fall from then on; tests/test_claims.py has curves of both kinds
LEAST = 0.04  # nats per token: on `news` worth half of the margin in ROUGE-1, see docs/study.md
RULE = ("A training counts as cut off if in the last quarter of its steps its validation loss fell by more than 6 % "
        "of its fall since the first quarter, and by more than 0.04 nats.")


def still_falling(trainings: Sequence[Training]) -> list[Training]:
    """The trainings that were cut off before their end, by `RULE`.

    A training that ends far above another of its function does not count for that reason alone: that is luck
    (docs/measuring.md).
    """
    return list(filter(_cut_off, trainings))


def _cut_off(training: Training) -> bool:
    if len(training.validation) < 2:
        return True  # nothing shows otherwise
    steps, losses = np.array(training.validation).T
    first, last = FIRST_PART * steps[-1], LAST_PART * steps[-1]
    early, late = np.interp([first, last], steps, losses)
    fell = late - losses[steps >= last].min()  # not below an earlier minimum: a loss that rises again is at its end
    return bool(fell > max(LEAST, SHARE * (early - losses.min())))
