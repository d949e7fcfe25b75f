"""One pass over one piece of work: its memory or its time, as a row, also where the device has no room for it."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from headtohead import params
from headtohead.profiling.memory import peak_memory
from headtohead.profiling.timing import Timing, measure
from headtohead.stage import NO_MEMORY

Row = dict[str, Any]

WARMUP = 3  # untimed runs of each work: kernels get compiled and chosen, graphs captured, caches filled


@dataclass(frozen=True)
class Work:
    """Something to run again and again.

    Args:
        length: tokens that go in.
        new_tokens: how many are generated; 0 where none are.
        backend: of its attention, where one is known to be all of it.
        times: how often one run does it; what is measured is divided by that.
    """

    name: str
    batch: int
    length: int
    new_tokens: int
    run: Callable[[], object]
    backend: str | None = None
    times: int = 1

    @property
    def size(self) -> Row:
        """What a row of it begins with."""
        return {"work": self.name, "batch": self.batch, "length": self.length}

    @property
    def ran(self) -> Row:
        """What a row of it ends with."""
        return {} if self.backend is None else {"backend": self.backend}


@dataclass
class Passes:
    """Takes memory and time in passes of their own, and keeps a row of each."""

    settings: params.Profile
    device: torch.device
    on_progress: Callable[[str], object]
    timings: list[Row] = field(default_factory=list)
    memory: list[Row] = field(default_factory=list)

    def read_memory(self, work: Work) -> float:
        """One row of `memory`; its peak in MB."""
        self._announce("memory", work)
        peak = peak_memory(work.run, self.device)
        self.memory.append(work.size | {"peak_mb": round(peak.mb, 2), "reset": peak.reset} | work.ran)
        return peak.mb

    def time(self, work: Work) -> float:
        """One row of `timings`; its median in ms."""
        self._announce("time", work)
        samples = [sample / work.times for sample in self.samples(work.run)]
        timing = Timing(**work.size, new_tokens=work.new_tokens, dtype=self.settings.precision, samples=samples)
        self.timings.append(timing.row() | work.ran)
        return timing.median

    def try_memory(self, work: Work) -> float | None:
        """As `read_memory`, but where there is no room for it the row says `out_of_memory`, and this is None."""
        return self._try(self.read_memory, work, self.memory)

    def try_time(self, work: Work) -> float | None:
        """As `time`, but where there is no room for it the row says `out_of_memory`, and this is None."""
        return self._try(self.time, work, self.timings)

    def samples(self, run: Callable[[], object]) -> list[float]:
        """Milliseconds of each repeat."""
        return measure(run, self.device, min_repeats=self.settings.min_repeats,
                       min_seconds=self.settings.min_seconds, warmup=WARMUP)

    def release(self) -> None:
        """Give back what nothing refers to any more, so that the next pass has room and starts alike.

        Not while an error for want of memory is handled: its frames hold tensors.
        """
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _try(self, take: Callable[[Work], float], work: Work, rows: list[Row]) -> float | None:
        try:
            return take(work)
        except Exception as error:
            if not no_room(error):
                raise
            rows.append(work.size | {"out_of_memory": True})
            return None

    def _announce(self, what: str, work: Work) -> None:
        self.on_progress(f"{what}, {work.name}, batch {work.batch}, {work.length} tokens")


def no_room(error: BaseException | None) -> bool:
    """Whether memory did not suffice. Python, PyTorch on the CPU, graph capture and cuBLAS say it each in its own way.

    A capture that it ends raises an error of its own on top.
    """
    return error is not None and (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or (isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error)))) or no_room(error.__context__))


@contextmanager
def what_is_there_set_aside() -> Iterator[None]:
    """Garbage is collected before every pass, and would take longer than most, going through all of transformers."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
