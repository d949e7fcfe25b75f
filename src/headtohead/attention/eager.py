"""Materialised scores in the input's own precision, as GPT-2's eager attention does."""

import torch
from torch import Tensor

from headtohead.attention.capability import Capability
from headtohead.attention.masks import dense_bias
from headtohead.attention.spec import AttentionSpec

name = "eager"
capability = Capability(kernels=frozenset({"eager"}))
prepare = dense_bias


def run(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, bias: Tensor, scale: float) -> Tensor:
    scores = torch.matmul(q, k.transpose(-1, -2)) * scale + bias.to(q.dtype)
    return torch.matmul(scores.softmax(-1), v)
