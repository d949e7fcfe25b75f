"""Measure a piece of work in separate passes for memory and time; running out of memory is a result, too."""

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
WARMUP = 3  # untimed runs of each work: to compile and choose kernels, capture graphs and fill caches

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """Something to run repeatedly, and what `Measurement` says about it.

    Args:
        times: how often one run does it; measured times are divided by that.
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
    """Measures memory and time in separate passes, and collects the measurements.

    Time may be measured in turns with another process, so that other work on the machine affects both. A sample is
    then the median of a turn, and otherwise one repeat.

    Args:
        announce: called with what comes next.
        turns: how many turns each time is measured in; 0 keeps every repeat.
        turn: lets the other process continue, and returns after its turn.
    """

    settings: params.Profile
    device: torch.device
    announce: Callable[[str], object]
    turns: int = 0
    turn: Callable[[], object] = lambda: None
    taken: list[Measurement] = field(default_factory=list)

    def share(self, turns: int) -> tuple[int, float]:
        """One process's share of min_repeats and min_seconds, in each of `turns`; at least two repeats in all."""
        repeats = max(2, self.settings.min_repeats / self.settings.pairs)
        return ceil(repeats / turns), self.settings.min_seconds / self.settings.pairs / turns

    def memory(self, *works: Work, make_room: Callable[[], object] = lambda: None) -> None:
        """Measure the peak memory of each of `works`.

        Args:
            make_room: called after one of them ran out of memory, before the next.
        """
        self._take("MB", works, 1, lambda work, first: [peak_memory(work.run, self.device)], make_room)

    def time(self, *works: Work, make_room: Callable[[], object] = lambda: None) -> None:
        """Measure the time of each of `works`; `make_room` as in `memory`.

        Each turn covers all of them, so that a second of other work on the machine disturbs few turns of each.
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
        """Free unreferenced memory, so that the next pass has room and the same start.

        Do not call this inside an out-of-memory handler: the traceback keeps tensors alive.
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
    """The result of `take`; None if it ran out of memory."""
    try:
        return take()
    except Exception as error:
        if not no_room(error):
            raise
        return None


def no_room(error: BaseException | None) -> bool:
    """Whether memory ran out. Python, PyTorch on the CPU, graph capture and cuBLAS each report it differently.

    A capture that fails for that reason raises another error on top.
    """
    return error is not None and (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or (isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error)))) or no_room(error.__context__))
