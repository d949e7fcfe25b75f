"""Performer (Choromanski et al. 2021): softmax approximated by random features, in time linear in the length."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from headtohead.attention import favor
from headtohead.attention.backends.compiled import run_compiled
from headtohead.attention.job import Capability, Job

name = "performer"
LONG = 2048  # keys from which on it is compiled for its shape, which takes seconds
# What the kernel is for: a state of 128 x 64 is what registers hold; on Hopper alone has it been measured, where
# Triton 3.6 compiles it wrongly for heads of 16.
FEATURES, DIMS, HOPPER = (16, 32, 64, 128), (32, 64), (9, 0)
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
capability = Capability(kernels=frozenset({"performer"}),
                        dtypes={"cpu": (torch.float64, *FLOATS), "cuda": FLOATS}, forms=frozenset(), alibi=False)


@dataclass(frozen=True)
class Performer:
    """One pass by `attend`: favor's, the kernel's, or as their oracle favor's `dense`."""

    attend: Callable[..., Tensor]
    job: Job
    left_padding: Tensor | None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, features: Tensor | None = None) -> Tensor:
        if features is None:
            features = default_features(self.job)
        padding = () if self.left_padding is None else (self.left_padding,)
        return self.attend(q, k, v, features, self.job.scaling, *padding)


def build(job: Job, left_padding: Tensor | None) -> Performer:
    """By a kernel of its own where it can, which never writes features to memory, as operators do many times over.

    Else compiled where there is much to do, which saves the most of it.
    """
    if fits_kernel(job):
        from headtohead.kernels.favor import attend  # Triton is there with CUDA alone

        return Performer(attend, job, left_padding)
    long = job.device.type == "cuda" and job.keys >= LONG
    return Performer(partial(run_compiled, favor.attend) if long else favor.attend, job, left_padding)


def fits_kernel(job: Job) -> bool:
    """Whether it is what `kernels/favor.py` computes."""
    return (job.device.type == "cuda" and job.dtype == torch.bfloat16 and not job.padded and job.queries == job.keys
            and job.spec.numbers["features"] in FEATURES and job.head_dim in DIMS
            and torch.cuda.get_device_capability(job.device) >= HOPPER)


def default_features(job: Job) -> Tensor:
    """Those of seed 0, where no model has others: float32 [features, head_dim]."""
    return _drawn(job.spec.numbers["features"], job.head_dim, job.device)


@cache
def _drawn(features: int, head_dim: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # or training could not use what inference left here
        return favor.orthogonal_features(features, head_dim, seed=0).to(device)
