"""Which models are trained two at a time: those that do not fill the cores."""

import os

import torch

from headtohead.beside import ALONE
from headtohead.params import Model, Params
from headtohead.paths import Run

SMALL = 10_000_000  # weights of the blocks, up to which a model leaves room for another


def is_small(model: Model) -> bool:
    """Whether a CPU trains such a model beside another one."""
    return model.pretrained is None and 12 * (model.layers or 0) * (model.width or 0) ** 2 <= SMALL


def share_cores(params: Params, device: torch.device) -> bool:
    """Whether two models of a preset run on this machine at once; if so, each always uses half of the cores.

    This way the result is the same to the byte whether another one runs beside it or not.
    """
    cores = torch.get_num_threads()
    if not is_small(params.chosen.model) or device.type != "cpu" or cores < 2:
        return False
    torch.set_num_threads(cores // 2)
    return True


def next_missing(params: Params, ours: Run) -> Run | None:
    """The next training of the pipeline that has no model yet and that this process may begin."""
    if ALONE in os.environ:
        return None
    runs = [Run(variant, seed) for variant in params.compared for seed in params.seeds]
    later = runs[runs.index(ours) + 1:] if ours in runs else []
    return next((run for run in later if not run.model.exists()), None)
