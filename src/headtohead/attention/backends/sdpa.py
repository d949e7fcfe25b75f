"""PyTorch's fused scaled_dot_product_attention. A pattern or a bias is a dense mask to it: it does the full work."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from headtohead.attention.job import Capability, Job
from headtohead.attention.masks import dense_bias
from headtohead.attention.patterns import Form

name = "sdpa"
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
capability = Capability(kernels=frozenset({"flash"}), dtypes={"cpu": (torch.float64, *FLOATS), "cuda": FLOATS})

# Without MATH: what cannot run fused is an error, not a silent dense computation. cuDNN is a backend of its own.
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]


def build(job: Job, left_padding: Tensor | None) -> partial[Tensor]:
    """With the dense bias, or without one where the kernel's own causal mask says the same."""
    plain = job.form == Form() and job.spec.positions != "alibi" and left_padding is None
    if plain and job.queries in (1, job.keys):
        return partial(attend, bias=None, scale=job.scaling)
    bias = dense_bias(job.spec, job.heads, job.queries, job.keys, left_padding, job.device)
    return partial(attend, bias=bias, scale=job.scaling)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """bias: float32 [batch or 1, heads or 1, queries, keys]; None is causal, or one query that sees all."""
    with sdpa_kernel(FUSED):
        return scaled_dot_product_attention(
            q, k, v, attn_mask=None if bias is None else bias.to(q.dtype),
            is_causal=bias is None and q.shape[-2] > 1, scale=scale)
