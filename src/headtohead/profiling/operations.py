"""Where the time goes: torch.profiler's top operations as rows, and a trace to look at."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile


def top_operations(work: Callable[[], object], device: torch.device, *, trace: Path, top: int = 10,
                   ) -> list[dict[str, Any]]:
    """Run `work` once under torch.profiler; it should have run before, or its first-time costs come up on top.

    Args:
        trace: where the Chrome trace goes; https://ui.perfetto.dev opens it. The suffix .json.gz compresses
            it to about a tenth, and is the one to choose: five tokens of GPT-2 small on a GPU are 3 to 4 MB.

    Returns:
        The `top` operations by self time (without the operations they call), longest first:
        `name`, `self_ms` over all `calls`, and `share` of all such time, 0 to 1.
        Of the device's time on CUDA: kernels count with the operation that launched them, and those that none
        launched (Triton's) by their own names.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or its library reports its own start and stop on stderr
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities, acc_events=True) as profiler:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    trace.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(trace))
    launched = {kernel.name for event in profiler.events() or () for kernel in event.kernels}
    return _rows(profiler.key_averages(), launched, on_cuda=device.type == "cuda")[:top]


def write_empty(trace: Path) -> None:
    """A trace in which nothing happens, where memory did not suffice for a real one."""
    with (gzip.open if trace.suffix == ".gz" else open)(trace, "wt") as file:
        json.dump({"traceEvents": []}, file)


def _rows(events: Any, launched: set[str], *, on_cuda: bool) -> list[dict[str, Any]]:
    """Kernels have events of their own besides the operations': the total is theirs, the rows are the operations and
    the kernels that were not `launched` by any."""
    time = "self_device_time_total" if on_cuda else "self_cpu_time_total"  # microseconds
    counted = DeviceType.CUDA if on_cuda else DeviceType.CPU
    total = sum(getattr(event, time) for event in events if event.device_type == counted)
    own = [event for event in events if event.device_type == DeviceType.CPU or event.key not in launched]
    operations = [event for event in own if getattr(event, time) > 0]
    operations.sort(key=lambda event: getattr(event, time), reverse=True)
    return [{"name": event.key, "self_ms": round(getattr(event, time) / 1000, 4),
             "share": round(getattr(event, time) / total, 4), "calls": event.count} for event in operations]
