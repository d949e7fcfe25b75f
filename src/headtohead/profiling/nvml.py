"""NVIDIA's own counters (NVML, through nvidia-ml-py): power, utilisation, temperature, clock, memory, energy.

Imports no torch.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import pynvml

Reading = dict[str, float]

# Name and unit -> how to read it from a device handle.
GAUGES: dict[str, Callable[[Any], float]] = {
    "power_w": lambda gpu: pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    "utilisation_percent": lambda gpu: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "temperature_c": lambda gpu: pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
    "sm_clock_mhz": lambda gpu: pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM),
    "memory_used_mb": lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).used / 2**20,
}


@contextmanager
def opened() -> Iterator[bool]:
    """Open NVML for the length of a `with`; gives False on a machine without a working NVIDIA driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no library, no driver, or one that does not fit the kernel: no GPU to use
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def watch(work: Callable[[], object], uuid: str, *, interval_s: float = 0.02) -> dict[str, float | None] | None:
    """Run `work` and read the GPU's gauges every `interval_s` seconds from a thread beside it.

    Args:
        work: should last a second or more: the driver renews some of its counters only every 100 ms or so.
        uuid: of the GPU, "GPU-..."; NVML counts all GPUs, whatever CUDA_VISIBLE_DEVICES says, so indices differ.

    Returns:
        `NAME_mean` and `NAME_max` for each of `GAUGES` (units are in the names), `energy_j` from the total energy
        counter, `seconds` and `readings`; null where this GPU has no such counter.
        None, and `work` is not run, on a machine without a working NVIDIA driver.

    Raises:
        pynvml.NVMLError: no such GPU, or a counter that failed for another reason than not being supported.
    """
    with opened() as available:
        if not available:
            return None
        gpu = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        energy, started = _energy_j(gpu), perf_counter()
        readings = _readings_during(work, gpu, interval_s)
        seconds, energy_after = perf_counter() - started, _energy_j(gpu)
    used = None if energy is None or energy_after is None else round(energy_after - energy, 3)
    return _summary(readings) | {"energy_j": used, "seconds": round(seconds, 3), "readings": len(readings)}


def _readings_during(work: Callable[[], object], gpu: Any, interval_s: float) -> list[Reading]:
    """The gauges from before `work` begins until it ends: one reading at least."""
    done = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as beside:  # its future passes on an error of the thread
        readings = beside.submit(_read_until, done, gpu, interval_s)
        try:
            work()
        finally:
            done.set()
    return readings.result()


def _read_until(done: threading.Event, gpu: Any, interval_s: float) -> list[Reading]:
    readings = [_read(gpu)]
    while not done.wait(interval_s):
        readings.append(_read(gpu))
    return readings


def _read(gpu: Any) -> Reading:
    values = {name: _supported(gauge, gpu) for name, gauge in GAUGES.items()}
    return {name: value for name, value in values.items() if value is not None}


def _energy_j(gpu: Any) -> float | None:
    """Joules since the driver was loaded."""
    millijoules = _supported(lambda gpu: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu), gpu)
    return None if millijoules is None else millijoules / 1000


def _supported(counter: Callable[[Any], float], gpu: Any) -> float | None:
    try:
        return counter(gpu)
    except pynvml.NVMLError_NotSupported:
        return None


def _summary(readings: list[Reading]) -> dict[str, float | None]:
    summary: dict[str, float | None] = {}
    for name in GAUGES:
        values = [reading[name] for reading in readings if name in reading]
        summary[f"{name}_mean"] = round(sum(values) / len(values), 2) if values else None
        summary[f"{name}_max"] = round(max(values), 2) if values else None
    return summary
