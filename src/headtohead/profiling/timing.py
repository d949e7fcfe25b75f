"""How long a piece of work takes: after a warm-up, waiting for the device, with many repeats."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch


def measure(work: Callable[[], object], device: torch.device, *, min_repeats: int, min_seconds: float,
            warmup: int) -> list[float]:
    """Time `work` at least `min_repeats` times and for at least `min_seconds`, after `warmup` untimed runs.

    Returns:
        Milliseconds of each repeat. On CUDA, between two events on the device's stream; nothing is queued before the
        first, and the last is waited for, so gaps in which the GPU waits for its next launch count, as they would for
        a user. On CPU, wall-clock time.
    """
    for _ in range(warmup):
        work()
    samples: list[float] = []
    with garbage_collector_paused():
        started = perf_counter()
        while len(samples) < min_repeats or perf_counter() - started < min_seconds:
            samples.append(_milliseconds(work, device))
    return samples


def _milliseconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = mark(device)
    work()
    return between(start, mark(device))


def mark(device: torch.device) -> Any:
    """This moment; on CUDA, the moment when the device has done all that was launched so far. Does not wait for it."""
    if device.type != "cuda":
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def between(start: Any, end: Any) -> float:
    """Milliseconds from one mark to another; on CUDA the second is waited for."""
    if isinstance(start, float):
        return (end - start) * 1000
    end.synchronize()
    return float(start.elapsed_time(end))


@contextmanager
def garbage_collector_paused() -> Iterator[None]:
    """A collection in the middle of a repeat would count as part of the work."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def garbage_frozen() -> Iterator[None]:
    """Garbage is collected before every pass; going through all of transformers would take longer than most passes."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
