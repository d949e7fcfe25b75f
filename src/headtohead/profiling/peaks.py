"""The best that the device reaches, measured here, with which the achieved throughput is compared."""

import torch

from headtohead.profiling.cost import Peaks
from headtohead.profiling.timing import measure

SIDE = {"cuda": 8192, "cpu": 1024}  # of the square matrices that are multiplied
COPIED = {"cuda": 2**31, "cpu": 2**27}  # bytes of the tensor that is copied: far more than any cache holds
REPEATS, WARMUP = 5, 2


def measure_peaks(device: torch.device, dtype: torch.dtype) -> Peaks:
    """The best of a few repeats. Random numbers: a GPU draws less power, and clocks higher, on zeros.

    Raises:
        torch.OutOfMemoryError: no room for twice the copied bytes.
    """
    return Peaks(_operations_per_ms(device, dtype) / 1e9, _bytes_per_ms(device) / 1e6)


def _operations_per_ms(device: torch.device, dtype: torch.dtype) -> float:
    side = SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    best = min(measure(lambda: torch.mm(a, b, out=out), device, min_repeats=REPEATS, min_seconds=0, warmup=WARMUP))
    return 2 * side**3 / best


def _bytes_per_ms(device: torch.device) -> float:
    source = torch.randint(256, (COPIED[device.type] // 64,), dtype=torch.uint8, device=device).repeat(64)
    target = torch.empty_like(source)
    best = min(measure(lambda: target.copy_(source), device, min_repeats=REPEATS, min_seconds=0, warmup=WARMUP))
    return 2 * source.numel() / best
