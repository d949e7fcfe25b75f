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
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
capability = Capability(kernels=frozenset({"performer"}),
                        dtypes={"cpu": (torch.float64, *FLOATS), "cuda": FLOATS}, forms=frozenset(), alibi=False)


@dataclass(frozen=True)
class Performer:
    """One pass by `attend`, which is favor's `attend` or, as its oracle, `dense`."""

    attend: Callable[..., Tensor]
    job: Job
    left_padding: Tensor | None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, features: Tensor | None = None) -> Tensor:
        if features is None:
            features = default_features(self.job)
        return self.attend(q, k, v, features, self.job.scaling, self.left_padding)


def build(job: Job, left_padding: Tensor | None) -> Performer:
    """Compiled where there is much to do: one operator after the other, features would be written many times over."""
    long = job.device.type == "cuda" and job.keys >= LONG
    return Performer(partial(run_compiled, favor.attend) if long else favor.attend, job, left_padding)


def default_features(job: Job) -> Tensor:
    """Those of seed 0, where no model has others: float32 [features, head_dim]."""
    return _drawn(job.spec.numbers["features"], job.head_dim, job.device)


@cache
def _drawn(features: int, head_dim: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # or training could not use what inference left here
        return favor.orthogonal_features(features, head_dim, seed=0).to(device)
