"""One pass over one piece of work: its memory or its time, also if the device has no room for it."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import TypeVar

import torch

from headtohead import params
from headtohead.profiling.measurement import Measurement, Unit
from headtohead.profiling.memory import peak_memory
from headtohead.profiling.timing import measure
from headtohead.stage import NO_MEMORY

WARMUP = 3  # untimed runs of each work: kernels get compiled and chosen, graphs captured, caches filled

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """Something to run again and again, and what `Measurement` says of it.

    Args:
        times: how often one run does it; what is measured is divided by that.
    """

    name: str
    batch: int
    length: int
    new_tokens: int
    run: Callable[[], object]
    backend: str | None = None
    times: int = 1


@dataclass
class Passes:
    """Takes memory and time in passes of their own, and keeps each measurement.

    Time may be taken in turns with another process, which then sees the same of what else the machine does. A sample
    is then a turn's median, and else a repeat.

    Args:
        announce: told what comes next.
        turns: in how many each time is taken; 0 keeps every repeat.
        turn: lets the other process go on, and comes back when it has had its turn.
    """

    settings: params.Profile
    device: torch.device
    announce: Callable[[str], object]
    turns: int = 0
    turn: Callable[[], object] = lambda: None
    taken: list[Measurement] = field(default_factory=list)

    def share(self, turns: int) -> tuple[int, float]:
        """Of the settings' min_repeats and min_seconds a process's share in each of `turns`; two repeats in all."""
        repeats = max(2, self.settings.min_repeats / self.settings.pairs)
        return ceil(repeats / turns), self.settings.min_seconds / self.settings.pairs / turns

    def memory(self, work: Work) -> None:
        """Measure the peak of its memory."""
        self._take(work, "MB", lambda: [peak_memory(work.run, self.device)])

    def time(self, work: Work) -> None:
        """Measure its time."""
        def take() -> list[float]:
            if not self.turns:
                return self._repeats(work, 1, WARMUP)
            samples = []
            for number in range(self.turns):
                self.turn()
                samples.append(median(self._repeats(work, self.turns, WARMUP if number == 0 else 1)))
            return samples

        self._take(work, "ms", take)

    def _repeats(self, work: Work, turns: int, warmup: int) -> list[float]:
        repeats, seconds = self.share(turns)
        samples = measure(work.run, self.device, min_repeats=repeats, min_seconds=seconds, warmup=warmup)
        return [sample / work.times for sample in samples]

    def release(self) -> None:
        """Give back what nothing refers to any more, so that the next pass has room and starts alike.

        Not while an error for want of memory is handled: its frames hold tensors.
        """
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _take(self, work: Work, unit: Unit, take: Callable[[], list[float]]) -> None:
        what = {"ms": "time", "MB": "memory"}[unit]
        self.announce(f"{what}, {work.name}, batch {work.batch}, {work.length} tokens")
        samples = if_room(take)
        self.taken.append(Measurement(work.name, work.batch, work.length, work.new_tokens, self.settings.precision,
                                      unit, tuple(samples or ()), work.backend))


def if_room(take: Callable[[], T]) -> T | None:
    """What `take` gives; None if memory did not suffice."""
    try:
        return take()
    except Exception as error:
        if not no_room(error):
            raise
        return None


def no_room(error: BaseException | None) -> bool:
    """Whether memory did not suffice. Python, PyTorch on the CPU, graph capture and cuBLAS say it each in its own way.

    A capture that it ends raises an error of its own on top.
    """
    return error is not None and (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or (isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error)))) or no_room(error.__context__))
