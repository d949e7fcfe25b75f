"""PyTorch's FlexAttention: any pattern in one fused kernel, compiled for it, that skips blocks which no query sees."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from headtohead.attention.alibi import slopes_on
from headtohead.attention.capability import BackendError, Capability
from headtohead.attention.masks import visible_at
from headtohead.attention.spec import AttentionSpec

name = "flex"
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
# Not for the CPU: compiled for less than AVX-512, PyTorch 2.13's kernel computes garbage over some numbers of keys.
capability = Capability(kernels=frozenset({"flash"}), dtypes={"cuda": FLOATS}, backward=frozenset({"cuda"}),
                        head_dims=range(16, 257))
SHAPES = 64  # it compiles for every shape, seconds each; more than so many is a mistake, not a plan
IEEE: Any = {"FLOAT32_PRECISION": "'ieee'"}  # true float32 where q is, whatever matrix products elsewhere may do
Mod = Callable[..., Tensor]


@dataclass(frozen=True)
class Prepared:
    blocks: BlockMask  # which blocks of queries and keys meet, and the mask inside them
    bias: Mod | None  # ALiBi's, for one score


def prepare(spec: AttentionSpec, heads: int, queries: int, keys: int,
            left_padding: Tensor | None, device: torch.device) -> Prepared:
    """The block mask, without padding built once for each pair of lengths, and ALiBi's bias."""
    if left_padding is None:
        return _unpadded(spec, heads, queries, keys, device)
    mask = _padded_mask(spec, keys - queries, left_padding.to(device))
    blocks = create_block_mask(mask, len(left_padding), None, queries, keys, device)
    return Prepared(blocks, _bias(spec, heads, keys - queries, device))


@lru_cache(maxsize=32)
def _unpadded(spec: AttentionSpec, heads: int, queries: int, keys: int, device: torch.device) -> Prepared:
    with torch.inference_mode(False):  # or training could not use what inference left here
        blocks = create_block_mask(_mask(spec, keys - queries), None, None, queries, keys, device)
    return Prepared(blocks, _bias(spec, heads, keys - queries, device))


def _mask(spec: AttentionSpec, offset: int) -> Mod:
    def mask(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return visible_at(spec, query + offset, key)

    return mask


def _padded_mask(spec: AttentionSpec, offset: int, left_padding: Tensor) -> Mod:
    """As in `masks.bias_at`: a padding query sees itself alone, and nothing real sees it."""
    def mask(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        first, query = left_padding[batch], query + offset
        return visible_at(spec, query - first, key - first) & (key >= first) | (query == key)

    return mask


def _bias(spec: AttentionSpec, heads: int, offset: int, device: torch.device) -> Mod | None:
    if spec.positions != "alibi":
        return None
    slopes = slopes_on(heads, device)

    def bias(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score - slopes[head] * (query + offset - key)

    return bias


def run(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, prepared: Prepared, scale: float) -> Tensor:
    if torch.compiler.is_compiling():  # it becomes part of the caller's graph
        return _attention(q, k, v, prepared.blocks, prepared.bias, scale)
    return _run(_attention, q, k, v, prepared.blocks, prepared.bias, scale)


def run_biased(q: Tensor, k: Tensor, v: Tensor, spec: AttentionSpec, bias: Tensor, scale: float) -> Tensor:
    """As decoding needs it: over all keys, with a dense bias [batch or 1, heads or 1, queries, keys] and no mask."""
    return _run(_biased, q, k, v, bias.expand(*q.shape[:3], k.shape[2]), scale)


def _run(attention: Mod, q: Tensor, k: Tensor, *rest: Any) -> Tensor:
    try:
        with torch._dynamo.config.patch(recompile_limit=SHAPES):
            return _compiled(attention)(q, k, *rest)
    except FailOnRecompileLimitHit as error:
        raise BackendError(f"flex has been compiled for {SHAPES} shapes in this process, its limit, and q "
                           f"{tuple(q.shape)}, k {tuple(k.shape)} is one more; take fewer lengths and batch sizes, or "
                           "another backend") from error


@cache
def _compiled(attention: Mod) -> Mod:
    """With fullgraph=True a shape too many is an error; without it, it would be computed densely, after a warning."""
    return torch.compile(attention, dynamic=False, fullgraph=True)


def _attention(q: Tensor, k: Tensor, v: Tensor, blocks: BlockMask, bias: Mod | None, scale: float) -> Tensor:
    return flex_attention(q, k, v, score_mod=bias, block_mask=blocks, scale=scale, kernel_options=IEEE)


def _biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    def add(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + bias[batch, head, query, key]

    return flex_attention(q, k, v, score_mod=add, scale=scale, kernel_options=IEEE)
