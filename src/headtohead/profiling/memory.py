"""Peak memory of a piece of work. MB is 2**20 bytes everywhere."""

import ctypes
import gc
import re
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


def peak_memory(work: Callable[[], object], device: torch.device, *, warmup: int = 1) -> float:
    """The peak memory in MB while `work` runs once, after `warmup` runs that do not count.

    On CUDA, what PyTorch's allocator has handed out on `device`: weights and all live tensors, without the CUDA context
    and the allocator's reserve. On CPU, the peak resident size of the whole process, including the interpreter and its
    libraries (some hundred MB with torch). Only Linux can reset it; elsewhere it is the peak since the process began.
    """
    for _ in range(warmup):
        work()
    reset_peak(device)
    work()
    return peak_since(device)


def reset_peak(device: torch.device) -> None:
    """Reset the peak to the current use."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return
    _give_back_freed()
    with suppress(OSError):  # no Linux
        CLEAR_REFS.write_text("5")  # proc(5): resets the peak resident set size


def peak_since(device: torch.device) -> float:
    """The peak in MB since it was reset."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) / 2**20
    return process_peak_mb()


def process_peak_mb() -> float:
    """Peak resident size of this process since its start or the last reset."""
    resident = re.search(r"^VmHWM:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE) if STATUS.exists() else None
    if resident:  # getrusage on Linux would start from the peak of the process that started this one
        return int(resident[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, kB elsewhere


def _give_back_freed() -> None:
    """glibc keeps tens of MB of freed memory, which would count as resident, and so as this work's."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
