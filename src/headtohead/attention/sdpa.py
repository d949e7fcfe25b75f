"""PyTorch's fused scaled_dot_product_attention. A window or a bias is a dense mask to it: it does the full work."""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from headtohead.attention.masks import dense_bias
from headtohead.attention.spec import AttentionSpec

name = "sdpa"

# Without MATH: what cannot run fused is an error, not a silent dense computation.
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]


def unsupported(spec: AttentionSpec, device: torch.device, dtype: torch.dtype) -> str | None:
    if spec.kernel != "flash":
        return "it is a fused kernel, and the variant asks for materialised scores"
    return None if device.type in ("cpu", "cuda") else f"PyTorch has no fused kernel for {device.type}"


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
