"""Two trainings at once where one does not fill the cores: the one that is asked for, and the next that will be."""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress

import torch

from headtohead.params import Params
from headtohead.paths import Run

SMALL = 10_000_000  # weights of the blocks, up to which a training leaves room for another
PR_SET_PDEATHSIG = 1


def share_cores(params: Params, device: torch.device) -> bool:
    """Whether two trainings of a preset share this machine; then each takes half of the cores, alone or not.

    So a training gives the same bytes whether another one runs beside it or not.
    """
    model, cores = params.chosen.model, torch.get_num_threads()
    small = model.pretrained is None and 12 * (model.layers or 0) * (model.width or 0) ** 2 <= SMALL
    if not small or device.type != "cpu" or cores < 2:
        return False
    torch.set_num_threads(cores // 2)
    return True


def next_missing(params: Params, ours: Run) -> Run | None:
    """The next training of the pipeline that has no model yet."""
    runs = [Run(variant, seed) for variant in params.compared for seed in params.seeds]
    later = runs[runs.index(ours) + 1:] if ours in runs else []
    return next((run for run in later if not run.model.exists()), None)


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` in a fork of this process meanwhile, and wait for its end; not if the body fails.

    Nothing is heard of it: what goes wrong there is told when its own turn comes. To be called before PyTorch has
    computed anything: a fork has no OpenMP threads.
    """
    process = multiprocessing.get_context("fork").Process(target=_silently, args=(work,), daemon=True)
    process.start()
    try:
        yield
        process.join()
    finally:
        process.kill()
        process.join()


def _silently(work: Callable[[], object]) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # two must never write the same checkpoints
    with open(os.devnull, "r+") as null, redirect_stdout(null), redirect_stderr(null), suppress(Exception):
        for stream in range(3):
            os.dup2(null.fileno(), stream)
        work()
