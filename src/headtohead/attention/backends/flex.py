"""PyTorch's FlexAttention: any pattern in one fused kernel, compiled for it, that skips blocks which no query sees."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from headtohead.attention.backends.compiled import run_compiled
from headtohead.attention.job import Capability, Job
from headtohead.attention.masks import visible_at
from headtohead.attention.patterns import Pattern
from headtohead.attention.positions import slopes_on

name = "flex"
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# Not for the CPU: compiled for less than AVX-512, PyTorch 2.13's kernel computes garbage over some numbers of keys.
capability = Capability(kernels=frozenset({"flash"}), dtypes={"cuda": FLOATS}, backward=frozenset({"cuda"}),
                        head_dims=range(16, 257))
TILE = 128  # queries and keys of a block that is skipped or not, unless the pattern has smaller blocks of its own
IEEE: Any = {"FLOAT32_PRECISION": "'ieee'"}  # true float32 where q is, whatever matrix products elsewhere may do
Mod = Callable[..., Tensor]


@dataclass(frozen=True)
class Flex:
    """One pass: which blocks of queries and keys meet and the mask inside them, and ALiBi's bias for one score."""

    blocks: BlockMask
    bias: Mod | None
    scale: float
    options: Any

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return run_compiled(_attention, q, k, v, self.blocks, self.bias, self.scale, self.options)


def build(job: Job, left_padding: Tensor | None) -> Flex:
    """The block mask, without padding built once for each pair of lengths, and ALiBi's bias."""
    pattern, offset = job.spec.visibility, job.keys - job.queries
    slopes = slopes_on(job.heads, job.device) if job.spec.positions == "alibi" else None
    tile = 64 if pattern.grain == 64 and not job.backward else TILE  # gradients have no kernel for less
    blocks = (block_mask(pattern, job.queries, job.keys, job.device, tile) if left_padding is None else
              create_block_mask(_padded_mask(pattern, offset, left_padding.to(job.device)), len(left_padding), None,
                                job.queries, job.keys, job.device, tile))
    options = IEEE if tile == TILE else IEEE | {"BLOCK_M": tile, "BLOCK_N": tile}
    return Flex(blocks, None if slopes is None else biased_by(slopes, offset), job.scaling, options)


@lru_cache(maxsize=64)
def block_mask(pattern: Pattern, queries: int, keys: int, device: torch.device, tile: int = TILE) -> BlockMask:
    """Which tiles of queries and keys meet, and the mask inside them; the queries are the last of the keys."""
    with torch.inference_mode(False):  # or training could not use what inference left here
        mask = _mask(_shared(pattern, device), keys - queries)
        return create_block_mask(mask, None, None, queries, keys, device, tile)


def _shared(pattern: Pattern, device: torch.device) -> Pattern:
    """With its seeds as tensors: layers that only draw otherwise share what is compiled."""
    return pattern.model_copy(update={name: torch.tensor(getattr(pattern, name), device=device)
                                      for name in pattern.drawn})


def _mask(pattern: Pattern, offset: int) -> Mod:
    def mask(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return visible_at(pattern, query + offset, key)

    return mask


def _padded_mask(pattern: Pattern, offset: int, left_padding: Tensor) -> Mod:
    """As in `masks.bias_at`: a padding query sees itself alone, and nothing real sees it."""
    def mask(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        first, query = left_padding[batch], query + offset
        return visible_at(pattern, query - first, key - first) & (key >= first) | (query == key)

    return mask


def biased_by(slopes: Tensor, offset: int) -> Mod:
    def bias(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score - slopes[head] * (query + offset - key)

    return bias


def attend_biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """As decoding needs it: over all keys, with a dense bias [batch or 1, heads or 1, queries, keys] and no mask."""
    return run_compiled(_biased, q, k, v, bias.expand(*q.shape[:3], k.shape[2]), scale)


def _attention(q: Tensor, k: Tensor, v: Tensor, blocks: BlockMask, bias: Mod | None, scale: float,
               options: Any) -> Tensor:
    return flex_attention(q, k, v, score_mod=bias, block_mask=blocks, scale=scale, kernel_options=options)


def _biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    def add(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + bias[batch, head, query, key]

    return flex_attention(q, k, v, score_mod=add, scale=scale, kernel_options=IEEE)
