"""Attention of a few queries a row, which follow each other, over a static cache (laid out as `cache.py` says).

As in `one_query`, keys and values are read once, and the new ones stored on the way. All queries of a row and head
share what is read: two matrix products a block of keys, as in FlashAttention (Dao et al. 2022, algorithm 1).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from headtohead.kernels.cache import position_in, ring_of
from headtohead.kernels.dependent import early, wait_for_inputs
from headtohead.kernels.one_query import merge, splits_for, strides_of

MOST = 16  # queries of a row: what one matrix product takes
MOST_KEYS, MOST_BYTES = 64, 8192  # keys that one program reads at once, and their size
WARPS = 4


def attend_few(qkv: Tensor, keys: Tensor, values: Tensor, position: Tensor, *, first: int = 0,
               window: int | None = None, block: int | None = None, grain: int = 1, seen_blocks: Tensor | None = None,
               slopes: Tensor | None = None, bias: Tensor | None = None, rotary: Tensor | None = None, scale: float,
               splits: int | None = None) -> Tensor:
    """Attention of each row's next tokens over what its cache holds, which it extends by their keys and values.

    Causal among the new tokens too. What is not named here is as in `attend_one`.

    Args:
        qkv: [rows * tokens, 3 * heads * head_dim], a row's tokens next to each other, at most `MOST`.
        position: int64 [rows], of each row's first new token.
        window: how many of the last keys are seen, besides the `first` ones; None: all. The ring has room for
            tokens - 1 more, so that none of these is written over by the new tokens.
        block: a query sees only keys of its own block of as many positions.
        bias: float32 [rows or 1, heads or 1, tokens, slots].

    Returns:
        [rows * tokens, heads * head_dim].
    """
    rows, heads, slots, dim = keys.shape
    tokens = len(qkv) // rows
    if tokens > MOST:
        raise ValueError(f"{tokens} tokens a row; at most {MOST} are attended at once")
    out = torch.empty(len(qkv), heads * dim, dtype=qkv.dtype, device=qkv.device)
    splits = splits or splits_for(rows * heads, slots, qkv.device, MOST_KEYS)
    size = max(16, min(MOST_KEYS, MOST_BYTES // (dim * keys.itemsize)))
    partial = torch.empty(len(qkv) * heads * splits * (dim + 2) if splits > 1 else 0, device=qkv.device)
    _attend_few[(rows * heads, splits)](
        qkv, keys, values, position, position.stride(0),
        *(qkv if given is None else given for given in (seen_blocks, slopes, bias, rotary)), out, partial, slots, first,
        ring_of(slots, first), window or 0, block or 1, grain, 0 if seen_blocks is None else len(seen_blocks), scale,
        *strides_of(bias), WINDOWED=window is not None, BLOCKED=block is not None, BY_BLOCK=seen_blocks is not None,
        ALIBI=slopes is not None, BIASED=bias is not None, ROTARY=rotary is not None, HEADS=heads, DIM=dim,
        TOKENS=tokens, QUERIES=MOST, BLOCK=size, SPLITS=splits, num_warps=WARPS, **early(qkv.device))
    if splits > 1:
        merge[(len(qkv) * heads,)](partial, out, DIM=dim, SPLITS=splits, BLOCK=triton.next_power_of_2(splits),
                                   num_warps=1, **early(qkv.device))
    return out


@triton.jit
def _attend_few(qkv_at, keys_at, values_at, position_at, position_row, seen_at, slopes_at, bias_at, rotary_at, out_at,
                partial_at, slots, first, ring, window, own, grain, blocks, scale, bias_row, bias_head,
                WINDOWED: tl.constexpr, BLOCKED: tl.constexpr, BY_BLOCK: tl.constexpr, ALIBI: tl.constexpr,
                BIASED: tl.constexpr, ROTARY: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr,
                TOKENS: tl.constexpr, QUERIES: tl.constexpr, BLOCK: tl.constexpr, SPLITS: tl.constexpr,
                EARLY: tl.constexpr):
    wait_for_inputs(EARLY)
    which, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, head = which // HEADS, which % HEADS
    channel = tl.arange(0, DIM)
    token = tl.arange(0, QUERIES)
    begun = tl.load(position_at + row * position_row).to(tl.int32)  # the first new token's position
    newest = begun + TOKENS - 1
    position = begun + token
    new = qkv_at + (row * TOKENS * 3 * HEADS + head) * DIM  # the first new token's query
    query = _of(new, token, position, rotary_at, (token < TOKENS), channel, ROTARY, HEADS, DIM)
    filled = tl.minimum(newest + 1, slots)
    share = tl.cdiv(tl.cdiv(filled, SPLITS), BLOCK) * BLOCK
    begin, end = split * share, tl.minimum((split + 1) * share, filled)
    slope = tl.load(slopes_at + head) if ALIBI else 0.0
    bias_at += row * bias_row + head * bias_head
    keys_at += which * slots * DIM
    values_at += which * slots * DIM
    highest = tl.full((QUERIES,), -float("inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, DIM), tl.float32)
    for start in range(begin, end, BLOCK):
        slot = start + tl.arange(0, BLOCK)
        at_position = position_in(slot, newest, first, ring)
        seen = (slot < end)[None, :] & (at_position[None, :] <= position[:, None])
        if WINDOWED:
            near = position[:, None] - at_position[None, :] < window
            seen = seen & (near | (at_position < first)[None, :])
        if BLOCKED:
            seen = seen & (position[:, None] // own == at_position[None, :] // own)
        if BY_BLOCK:
            known = seen & (token < TOKENS)[:, None]
            seen = seen & (tl.load(seen_at + (position // grain * blocks)[:, None] + (at_position // grain)[None, :],
                                   known, 0) != 0)
        if BIASED:
            bias = tl.load(bias_at + token[:, None] * slots + slot[None, :], seen & (token < TOKENS)[:, None],
                           -float("inf"))
            seen = seen & (bias > -float("inf"))
        needed = tl.max(seen.to(tl.int32), 0) != 0  # what is hidden from all is not read
        fresh = (slot < end) & (at_position >= begun)
        at = slot[:, None] * DIM + channel[None, :]
        kept = (needed & (at_position < begun))[:, None]
        key, value = tl.load(keys_at + at, kept, 0.0), tl.load(values_at + at, kept, 0.0)
        which_new = tl.where(fresh, at_position - begun, 0)
        new_key = _of(new + HEADS * DIM, which_new, at_position, rotary_at, fresh, channel, ROTARY, HEADS, DIM)
        new_value = tl.load(new + which_new[:, None] * (3 * HEADS * DIM) + 2 * HEADS * DIM + channel[None, :],
                            fresh[:, None], 0.0)
        key = tl.where(fresh[:, None], new_key, key)
        value = tl.where(fresh[:, None], new_value, value)
        tl.store(keys_at + at, new_key, fresh[:, None])
        tl.store(values_at + at, new_value, fresh[:, None])
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        if ALIBI:
            score -= slope * (position[:, None] - at_position[None, :])
        if BIASED:
            score += tl.where(seen, bias, 0.0)
        score = tl.where(seen, score, -float("inf"))
        top = tl.maximum(highest, tl.max(score, 1))
        base = tl.where(top == -float("inf"), 0.0, top)  # nothing visible yet
        weight = tl.exp(score - base[:, None])
        shrink = tl.exp(highest - base)
        mixed = mixed * shrink[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        total, highest = total * shrink + tl.sum(weight, 1), top
    there = token < TOKENS
    to = (row * TOKENS + token) * HEADS + head
    if SPLITS == 1:
        tl.store(out_at + to[:, None] * DIM + channel[None, :], mixed / total[:, None], there[:, None])
    else:
        mine = partial_at + (to * SPLITS + split) * (DIM + 2)
        tl.store(mine[:, None] + channel[None, :], mixed, there[:, None])
        tl.store(mine + DIM, highest, there)
        tl.store(mine + DIM + 1, total, there)


@triton.jit
def _of(new, which, position, rotary_at, there, channel, ROTARY: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr):
    """Vectors of some of the new tokens, [tokens, DIM]; `new` is the first token's. Turned in float32, and rounded."""
    at = new + which[:, None] * (3 * HEADS * DIM)
    x = tl.load(at + channel[None, :], there[:, None], 0.0)
    if ROTARY:
        half: tl.constexpr = DIM // 2
        angles = rotary_at + position[:, None] * DIM + (channel % half)[None, :]
        cosine, sine = tl.load(angles, there[:, None], 0.0), tl.load(angles + half, there[:, None], 0.0)
        partner = tl.load(at + (channel ^ half)[None, :], there[:, None], 0.0).to(tl.float32)
        sign = tl.where(channel < half, -1.0, 1.0)[None, :]
        x = (x.to(tl.float32) * cosine + sign * partner * sine).to(x.dtype)
    return x
