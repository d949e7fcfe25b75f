"""How long a piece of work takes: warm-up first, the device waited for, many repeats, percentiles."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """One piece of work, timed.

    Attributes:
        work: its name.
        batch, length: the size of its input; length counts the tokens that go in.
        new_tokens: how many it generates, 0 where it generates none.
        dtype: that it computes in.
        samples: milliseconds of each repeat, in the order they were taken; two at least.
    """

    work: str
    batch: int
    length: int
    new_tokens: int
    dtype: str
    samples: list[float]

    @property
    def median(self) -> float:
        """Milliseconds."""
        return median(self.samples)

    def row(self) -> dict[str, Any]:
        """A row of data/details/V/efficiency.json. p10 and p90 interpolate linearly, as numpy.percentile does."""
        deciles = quantiles(self.samples, n=10, method="inclusive")
        return {"work": self.work, "batch": self.batch, "length": self.length, "new_tokens": self.new_tokens,
                "dtype": self.dtype, "median": round(self.median, 4), "p10": round(deciles[0], 4),
                "p90": round(deciles[-1], 4), "unit": "ms", "repeats": len(self.samples),
                "samples": [round(sample, 4) for sample in self.samples]}


def measure(work: Callable[[], object], device: torch.device, *, min_repeats: int, min_seconds: float,
            warmup: int) -> list[float]:
    """Time `work` at least `min_repeats` times and for at least `min_seconds`, after `warmup` untimed runs.

    Returns:
        Milliseconds of each repeat. On CUDA between two events on the device's stream, with nothing queued before
        the first and the last one waited for: gaps in which the GPU waits for its next launch count, as they
        would for a user. On CPU wall-clock time.
    """
    once = _milliseconds_on_cuda if device.type == "cuda" else _milliseconds
    for _ in range(warmup):
        work()
    samples: list[float] = []
    with _garbage_collector_paused():
        started = perf_counter()
        while len(samples) < min_repeats or perf_counter() - started < min_seconds:
            samples.append(once(work, device))
    return samples


def _milliseconds(work: Callable[[], object], _: torch.device) -> float:
    started = perf_counter()
    work()
    return (perf_counter() - started) * 1000


def _milliseconds_on_cuda(work: Callable[[], object], device: torch.device) -> float:
    stream = torch.cuda.current_stream(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    start.record(stream)
    work()
    end.record(stream)
    end.synchronize()
    return float(start.elapsed_time(end))


@contextmanager
def _garbage_collector_paused() -> Iterator[None]:
    """A collection in the middle of a repeat would be counted as the work's."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
