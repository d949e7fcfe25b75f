"""Materialised scores in the input's own precision, as GPT-2's eager attention does."""

import torch
from torch import Tensor

from headtohead.attention.masks import dense_bias
from headtohead.attention.spec import AttentionSpec

name = "eager"


def unsupported(spec: AttentionSpec, device: torch.device, dtype: torch.dtype) -> str | None:
    return None if spec.kernel == "eager" else "it materialises the scores, and the variant asks for a fused kernel"


prepare = dense_bias


def run(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, bias: Tensor, scale: float) -> Tensor:
    scores = torch.matmul(q, k.transpose(-1, -2)) * scale + bias.to(q.dtype)
    return torch.matmul(scores.softmax(-1), v)
