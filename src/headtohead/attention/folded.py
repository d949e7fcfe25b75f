"""ALiBi inside the product of queries and keys, so that fused kernels which know no bias (cuDNN's first) compute it.

Softmax does not see what all keys of a query have in common, so ALiBi's -slope * (query - key) may as well be
slope * key: a product, of further dimensions of the query and of the key (Wu et al. 2025, "FlashBias").
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from headtohead.attention import sdpa
from headtohead.attention.alibi import slopes_on
from headtohead.attention.capability import Capability
from headtohead.attention.spec import AttentionSpec

name = "folded"
capability = Capability(kernels=frozenset({"flash"}), dtypes={"cuda": sdpa.HALF}, backward=frozenset(),
                        patterns=frozenset({"full"}), padding=False, cache=False, head_dims=range(16, 113, 16),
                        longest=65_536)
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
    return sdpa.run(q, k, v, spec, None, scale)
