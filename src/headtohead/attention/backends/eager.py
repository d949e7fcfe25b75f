"""Materialised scores in the input's own precision, as GPT-2's eager attention does."""

from functools import partial

import torch
from torch import Tensor

from headtohead.attention.job import Capability, Job
from headtohead.attention.masks import dense_bias

name = "eager"
capability = Capability(kernels=frozenset({"eager"}))


def build(job: Job, left_padding: Tensor | None) -> partial[Tensor]:
    bias = dense_bias(job.spec, job.heads, job.queries, job.keys, left_padding, job.device)
    return partial(attend, bias=bias, scale=job.scaling)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """bias: float32 [batch or 1, heads or 1, queries, keys]."""
    scores = torch.matmul(q, k.transpose(-1, -2)) * scale + bias.to(q.dtype)
    return torch.matmul(scores.softmax(-1), v)
