"""A stride's far keys in one pass, put together with the near ones as they are read."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64  # queries, and keys, of one group that a program reads at a time
LOG2E = tl.constexpr(1.4426950408889634)


def add_far(q: Tensor, k: Tensor, v: Tensor, near: Tensor, weight: Tensor, stride: int, scale: float,
            slopes: Tensor | None) -> Tensor:
    """Attention over every `stride`-th earlier key and the near ones, of which the result is known.

    It goes on with online softmax (Milakov, Gimelshein 2018; Dao et al. 2022, section 3.1) where the near part ended.

    Args:
        q, k, v: [batch, heads, length, head_dim].
        near: as q, attention over the near keys, none of which is a multiple of `stride` before the query.
        weight: float32 [batch, heads, length], the near scores' log-sum-exp.
        slopes: ALiBi's, float32 [heads], or None.

    Returns:
        As q, laid out as [batch, length, heads, head_dim].
    """
    batch, heads, length, dim = q.shape
    out = torch.empty(batch, length, heads, dim, dtype=q.dtype, device=q.device)
    groups = triton.cdiv(length, stride)
    _add_far[(triton.cdiv(groups, BLOCK), stride, batch * heads)](
        q, k, v, near, weight, out, slopes, heads, length, stride, *q.stride()[:3], *k.stride()[:3],
        *v.stride()[:3], *near.stride()[:3], *weight.stride()[:2],
        DIM=dim, WIDTH=max(16, triton.next_power_of_2(dim)), BLOCK=BLOCK, SCALE=scale,
        BIASED=slopes is not None,
        PRECISION="ieee" if q.dtype == torch.float32 else None, num_warps=4)
    return out.transpose(1, 2)


@triton.jit
def _add_far(q_at, k_at, v_at, near_at, weight_at, out_at, slopes_at, heads, length, stride,
             q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, near_batch, near_head, near_row,
             weight_batch, weight_head, DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
             SCALE: tl.constexpr, BIASED: tl.constexpr, PRECISION: tl.constexpr):
    tile, rest, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    batch, head = (sequence // heads).to(tl.int64), sequence % heads
    channel = tl.arange(0, WIDTH)[None, :]
    mine = tile * BLOCK + tl.arange(0, BLOCK)  # places in the group of positions with this remainder
    query = (mine * stride + rest)[:, None]
    there = (query < length) & (channel < DIM)
    q = tl.load(q_at + batch * q_batch + head * q_head + query * q_row + channel, there, 0.0)
    near_at += batch * near_batch + head * near_head
    total = tl.load(near_at + query * near_row + channel, there, 0.0).to(tl.float32)
    place = mine * stride + rest
    largest = tl.load(weight_at + batch * weight_batch + head * weight_head + place, place < length, 0.0) * LOG2E
    weights = tl.full([BLOCK], 1.0, tl.float32)
    slope = tl.load(slopes_at + head) * stride * LOG2E if BIASED else 0.0
    k_at += batch * k_batch + head * k_head
    v_at += batch * v_batch + head * v_head
    for begin in range(0, (tile + 1) * BLOCK, BLOCK):
        theirs = begin + tl.arange(0, BLOCK)
        key = (theirs * stride + rest)[:, None]
        real = (key < length) & (channel < DIM)
        k = tl.load(k_at + key * k_row + channel, real, 0.0)
        v = tl.load(v_at + key * v_row + channel, real, 0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (SCALE * LOG2E)
        if BIASED:
            scores -= slope * (mine[:, None] - theirs[None, :]).to(tl.float32)
        scores = tl.where(theirs[None, :] < mine[:, None], scores, float("-inf"))
        higher = tl.maximum(largest, tl.max(scores, 1))
        shares, kept = tl.exp2(scores - higher[:, None]), tl.exp2(largest - higher)
        weights = weights * kept + tl.sum(shares, 1)
        total = total * kept[:, None] + tl.dot(shares.to(v.dtype), v, input_precision=PRECISION)
        largest = higher
    to = out_at + ((batch * length + query) * heads + head) * DIM + channel
    tl.store(to, (total / weights[:, None]).to(out_at.dtype.element_ty), there)
