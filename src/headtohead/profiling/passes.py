"""One pass over one piece of work: its memory or its time, also if the device has no room for it."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from statistics import median
from typing import TypeVar

import torch

from headtohead import params
from headtohead.profiling.measurement import Measurement, Unit
from headtohead.profiling.memory import peak_memory
from headtohead.profiling.timing import measure
from headtohead.stage import NO_MEMORY

WHAT: dict[Unit, str] = {"ms": "time", "MB": "memory"}
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

    def memory(self, *works: Work, make_room: Callable[[], object] = lambda: None) -> None:
        """Measure the peak of each one's memory.

        Args:
            make_room: called when memory did not suffice for one of them, before the next.
        """
        self._take("MB", works, 1, lambda work, first: [peak_memory(work.run, self.device)], make_room)

    def time(self, *works: Work, make_room: Callable[[], object] = lambda: None) -> None:
        """Measure each one's time; `make_room` as in `memory`.

        All of them in each turn, so that what the machine does for a second disturbs few turns of each.
        """
        def take(work: Work, first: bool) -> list[float]:
            self.turn()
            samples = self._repeats(work, WARMUP if first else 1)
            return [median(samples)] if self.turns else samples

        self._take("ms", works, max(1, self.turns), take, make_room)

    def _repeats(self, work: Work, warmup: int) -> list[float]:
        repeats, seconds = self.share(max(1, self.turns))
        samples = measure(work.run, self.device, min_repeats=repeats, min_seconds=seconds, warmup=warmup)
        return [sample / work.times for sample in samples]

    def release(self) -> None:
        """Give back what nothing refers to any more, so that the next pass has room and the same start.

        Not while an error for want of memory is handled: its frames hold tensors.
        """
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _take(self, unit: Unit, works: tuple[Work, ...], turns: int, take: Callable[[Work, bool], list[float]],
              make_room: Callable[[], object]) -> None:
        samples: dict[Work, list[float]] = {work: [] for work in works}
        failed: set[Work] = set()
        for number in range(turns):
            for work in (one for one in works if one not in failed):
                self.announce(f"{WHAT[unit]}, {work.name}, batch {work.batch}, {work.length} tokens")
                taken = if_room(partial(take, work, number == 0))
                samples[work] += taken or []
                if taken is None:
                    failed.add(work)
                    make_room()
                    self.release()
        self.taken += [Measurement(work.name, work.batch, work.length, work.new_tokens, self.settings.precision, unit,
                                   () if work in failed else tuple(samples[work]), work.backend) for work in works]


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
