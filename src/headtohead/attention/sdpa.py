"""PyTorch's fused scaled_dot_product_attention. A window or a bias is a dense mask to it: it does the full work."""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from headtohead.attention.capability import Capability
from headtohead.attention.masks import dense_bias
from headtohead.attention.spec import AttentionSpec

name = "sdpa"
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
capability = Capability(kernels=frozenset({"flash"}), dtypes={"cpu": (torch.float64, *FLOATS), "cuda": FLOATS})

# Without MATH: what cannot run fused is an error, not a silent dense computation. cuDNN is a backend of its own.
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]


def prepare(spec: AttentionSpec, heads: int, queries: int, keys: int,
            left_padding: Tensor | None, device: torch.device) -> Tensor | None:
    """The dense bias, or None where the kernel's own causal mask says the same."""
    plain = spec.pattern == "full" and spec.positions == "learned" and left_padding is None
    if plain and queries in (1, keys):
        return None
    return dense_bias(spec, heads, queries, keys, left_padding, device)


def run(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, bias: Tensor | None, scale: float) -> Tensor:
    with sdpa_kernel(FUSED):
        return scaled_dot_product_attention(
            q, k, v, attn_mask=None if bias is None else bias.to(q.dtype),
            is_causal=bias is None and q.shape[-2] > 1, scale=scale)
