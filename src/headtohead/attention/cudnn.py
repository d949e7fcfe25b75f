"""cuDNN's fused attention, the fastest there is on Hopper over the full pattern, ALiBi included.

cuDNN gets no bias from PyTorch. But softmax does not see what all keys of a query have in common, so ALiBi's
-slope * (query - key) may as well be slope * key: a product, of further dimensions of the query and of the key
(Wu et al. 2025, "FlashBias").

For inference alone: its gradients are not trusted here (pytorch/pytorch issues 139298 and 196678).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from headtohead.attention.alibi import slopes_on
from headtohead.attention.capability import Capability
from headtohead.attention.spec import AttentionSpec

name = "cudnn"
capability = Capability(kernels=frozenset({"flash"}), dtypes={"cuda": (torch.bfloat16, torch.float16)},
                        backward=frozenset(), patterns=frozenset({"full"}), padding=False, cache=False,
                        head_dims=range(16, 113, 16), lengths=range(2, 65_537), compute=9)
Fold = Callable[..., tuple[Tensor, Tensor]]


def prepare(spec: AttentionSpec, heads: int, queries: int, keys: int,
            left_padding: Tensor | None, device: torch.device) -> Fold | None:
    """What puts ALiBi into queries and keys, if the variant has it."""
    if spec.positions != "alibi":
        return None
    from headtohead.attention.fold import fold  # Triton is there with CUDA alone

    return partial(fold, slopes=slopes_on(heads, device))


def run(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, fold: Fold | None, scale: float) -> Tensor:
    if fold is not None:
        q, k = fold(q, k, scale=scale)
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return scaled_dot_product_attention(q, k, v, is_causal=q.shape[-2] > 1, scale=scale)
