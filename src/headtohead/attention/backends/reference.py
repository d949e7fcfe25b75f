"""Attention spelled out in float32, one step a line: the oracle that every other backend is tested against.

softmax(Q K^T * scale + bias) V (Vaswani et al. 2017, equation 1), with the variant's mask and bias; for Performer the
quadratic form of its approximation.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from headtohead.attention import favor
from headtohead.attention.backends.performer import Performer
from headtohead.attention.job import Capability, Job
from headtohead.attention.masks import dense_bias

name = "reference"
capability = Capability(kernels=frozenset({"eager", "flash", "performer"}))


def build(job: Job, left_padding: Tensor | None) -> Callable[..., Tensor]:
    if job.spec.kernel == "performer":
        return Performer(favor.dense, job, left_padding)
    bias = dense_bias(job.spec, job.heads, job.queries, job.keys, left_padding, job.device)
    return partial(attend, bias=bias, scale=job.scaling)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """bias: float32 [batch or 1, heads or 1, queries, keys]."""
    scores = q.float() @ k.float().transpose(-1, -2) * scale + bias
    return (scores.softmax(-1) @ v.float()).to(q.dtype)
