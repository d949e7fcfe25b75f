"""Programmatic dependent launch (CUDA programming guide): kernels that follow each other overlap at their edges.

Each of the hundred small kernels of a pass waits for the one before to end, then to be launched, then for its first
weights. Launched this way, its programs start while the one before still runs, and read what no kernel writes.
"""

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

CAPABILITY = 9  # the major compute capability from which on there is such a launch


@cache
def early(device: torch.device) -> dict[str, Any]:
    """With what to launch a kernel that calls `wait_for_inputs`."""
    if device.type != "cuda" or torch.version.cuda is None or torch.cuda.get_device_capability(device)[0] < CAPABILITY:
        return {"EARLY": False}
    return {"EARLY": True, "launch_pdl": True}


@triton.jit
def wait_for_inputs(EARLY: tl.constexpr):
    """Let the next kernel start, and wait until those before have ended.

    Before this call a kernel may read only what no kernel writes; it may write nothing.
    """
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
