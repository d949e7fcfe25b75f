"""Peak memory of a piece of work. MB is 2**20 bytes everywhere."""

import ctypes
import gc
import re
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Peak:
    """`mb`, and whether the peak was `reset` just before the work: if not, an earlier, higher one may show."""

    mb: float
    reset: bool


def peak_memory(work: Callable[[], object], device: torch.device, *, warmup: int = 1) -> Peak:
    """The highest use of memory while `work` runs once, after `warmup` runs that do not count.

    On CUDA what PyTorch's allocator had handed out on `device`: weights and all tensors alive, without the CUDA
    context and the allocator's reserve. On CPU the peak resident size of the whole process, which includes the
    interpreter and its libraries (some hundred MB with torch): compare differences, not ratios. It can be reset
    on Linux alone; elsewhere it is the peak since the process began, and `reset` says so.
    """
    for _ in range(warmup):
        work()
    gc.collect()
    return _peak_on_cuda(work, device) if device.type == "cuda" else _peak_of_process(work)


def process_peak_mb() -> float:
    """Peak resident size of this process since its start or the last reset."""
    resident = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE) if STATUS.exists() else None
    if resident:  # getrusage on Linux would start from the peak of the process that started this one
        return int(resident[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, kB elsewhere


def _peak_on_cuda(work: Callable[[], object], device: torch.device) -> Peak:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return Peak(torch.cuda.max_memory_allocated(device) / 2**20, reset=True)


def _peak_of_process(work: Callable[[], object]) -> Peak:
    _give_back_freed()
    reset = _reset_process_peak()
    work()
    return Peak(process_peak_mb(), reset)


def _reset_process_peak() -> bool:
    """Set the peak to what is resident now; false where the system cannot."""
    try:
        CLEAR_REFS.write_text("5")  # proc(5): resets the peak resident set size
    except OSError:
        return False
    return True


def _give_back_freed() -> None:
    """glibc keeps tens of MB of what was freed; it would count as resident, and so as this work's."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
