"""Attention of one query a row over a static cache (laid out as `cache.py` says).

Decoding reads every key and value once for one multiplication each, so memory decides: the kernel reads them once,
appends the new ones on the way, turns queries and keys by rotary positions, and adds ALiBi or any bias. Softmax as in
FlashAttention (Dao et al. 2022, algorithm 1), split over the keys where there are too few rows to fill the device, as
in Flash-Decoding. Everything is computed in float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from headtohead.kernels.cache import position_in, ring_of, slot_of
from headtohead.kernels.dependent import early, wait_for_inputs

# Keys that one program reads at once, and its warps: what was fastest on an H200.
SPLIT, WHOLE = (128, 4), (64, 2)  # where several programs share the keys of a row, and where one reads them all
LEAST_SHARE = 128  # keys; a shorter share is not worth a program of its own


def attend_one(qkv: Tensor, keys: Tensor, values: Tensor, position: Tensor, *, first: int = 0, block: int | None = None,
               grain: int = 1, seen_blocks: Tensor | None = None, slopes: Tensor | None = None,
               bias: Tensor | None = None, rotary: Tensor | None = None, scale: float,
               splits: int | None = None) -> Tensor:
    """Attention of one query a row over what its cache holds, which it extends by the row's key and value.

    Args:
        qkv: [rows, 3 * heads * head_dim], the new token's query, key and value.
        keys, values: the caches [rows, heads, slots, head_dim], of the same type.
        position: int64 [rows] on the device, of each row's new token; all before it are in the cache that can be.
        first: how many leading tokens are kept for ever.
        block: positions are cut into blocks of as many, and a query sees only those of its own: slots = block,
            first = 0, and what is left from the block before is hidden. None: all that is in the cache is seen.
        seen_blocks: uint8 [blocks, blocks] on the device, 1 if queries of one block of `grain` positions see keys of
            another; what is hidden is not read. None: all that is in the cache is seen.
        slopes: float32 [heads], ALiBi's: of scaled scores is taken slope times how many tokens back a key is.
        bias: float32 [rows or 1, heads or 1, 1, slots], added to scaled scores; -inf hides a slot. None hides none.
        rotary: float32 [positions, 2, head_dim / 2], cosine and sine of each position's angles (Su et al. 2021), by
            which channels c and c + head_dim / 2 of query and new key are turned, and rounded, before all else.
        scale: of scores.
        splits: in how many shares to read a row's keys; None: as the device has room for.

    Returns:
        [rows, heads * head_dim].
    """
    rows, heads, slots, dim = keys.shape
    out = torch.empty(rows, heads * dim, dtype=qkv.dtype, device=qkv.device)
    splits = splits or splits_for(rows * heads, slots, qkv.device)
    size, warps = WHOLE if splits == 1 else SPLIT
    partial = torch.empty(rows * heads * splits * (dim + 2) if splits > 1 else 0, device=qkv.device)
    _attend_one[(rows * heads, splits)](
        qkv, keys, values, position,
        *(qkv if given is None else given for given in (seen_blocks, slopes, bias, rotary)), out, partial, slots, first,
        ring_of(slots, first), grain, 0 if seen_blocks is None else len(seen_blocks), scale, *strides_of(bias),
        RESTARTS=block is not None, BY_BLOCK=seen_blocks is not None, ALIBI=slopes is not None,
        BIASED=bias is not None, ROTARY=rotary is not None, HEADS=heads, DIM=dim, BLOCK=size, SPLITS=splits,
        num_warps=warps, **early(qkv.device))
    if splits > 1:
        merge[(rows * heads,)](partial, out, DIM=dim, SPLITS=splits, BLOCK=triton.next_power_of_2(splits), num_warps=1,
                               **early(qkv.device))
    return out


def strides_of(bias: Tensor | None) -> tuple[int, int]:
    """Of rows and heads, 0 where one serves all."""
    if bias is None:
        return 0, 0
    return bias.stride(0) * (bias.shape[0] > 1), bias.stride(1) * (bias.shape[1] > 1)


def splits_for(programs: int, slots: int, device: torch.device, share: int = LEAST_SHARE) -> int:
    """In how many shares to read the keys, so that two programs a multiprocessor are at work."""
    if device.type != "cuda":  # Triton's interpreter runs one program after another
        return 1
    wanted = 2 * torch.cuda.get_device_properties(device).multi_processor_count // programs
    return max(1, min(wanted, slots // share))


@triton.jit
def _attend_one(qkv_at, keys_at, values_at, position_at, seen_at, slopes_at, bias_at, rotary_at, out_at, partial_at,
                slots, first, ring, grain, blocks, scale, bias_row, bias_head, RESTARTS: tl.constexpr,
                BY_BLOCK: tl.constexpr, ALIBI: tl.constexpr, BIASED: tl.constexpr, ROTARY: tl.constexpr,
                HEADS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, SPLITS: tl.constexpr,
                EARLY: tl.constexpr):
    wait_for_inputs(EARLY)
    which, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, head = which // HEADS, which % HEADS
    channel = tl.arange(0, DIM)
    position = tl.load(position_at + row).to(tl.int32)
    new = qkv_at + row * (3 * HEADS * DIM) + head * DIM
    query, new_key = tl.load(new + channel), tl.load(new + HEADS * DIM + channel)
    new_value = tl.load(new + 2 * HEADS * DIM + channel)
    if ROTARY:
        angles_at = rotary_at + position * DIM
        query, new_key = _turned(query, new, angles_at, DIM), _turned(new_key, new + HEADS * DIM, angles_at, DIM)
    query = query.to(tl.float32) * scale
    now = slot_of(position, first, ring)
    filled = now + 1 if RESTARTS else tl.minimum(position + 1, slots)
    share = tl.cdiv(tl.cdiv(filled, SPLITS), BLOCK) * BLOCK
    begin, end = split * share, tl.minimum((split + 1) * share, filled)
    slope = tl.load(slopes_at + head) if ALIBI else 0.0
    bias_at += row * bias_row + head * bias_head
    keys_at += which * slots * DIM
    values_at += which * slots * DIM
    highest, total = -float("inf"), 0.0
    mixed = tl.zeros((DIM,), tl.float32)
    for start in range(begin, end, BLOCK):
        slot = start + tl.arange(0, BLOCK)
        there = slot < end
        at_position = position_in(slot, position, first, ring)
        if BY_BLOCK:
            there = there & (tl.load(seen_at + position // grain * blocks + at_position // grain, there, 0) != 0)
        if BIASED:  # what is hidden need not be read
            bias = tl.load(bias_at + slot, there, -float("inf"))
            there = there & (bias > -float("inf"))
        at = slot[:, None] * DIM + channel[None, :]
        key = tl.load(keys_at + at, (there & (slot != now))[:, None], 0.0)
        value = tl.load(values_at + at, (there & (slot != now))[:, None], 0.0)
        key = tl.where((slot == now)[:, None], new_key[None, :], key)
        value = tl.where((slot == now)[:, None], new_value[None, :], value)
        score = tl.where(there, tl.sum(query[None, :] * key.to(tl.float32), 1), -float("inf"))
        if ALIBI:
            score -= slope * (position - at_position)
        if BIASED:
            score += tl.where(there, bias, 0.0)
        top = tl.maximum(highest, tl.max(score, 0))
        base = tl.where(top == -float("inf"), 0.0, top)  # nothing visible yet
        weight = tl.exp(score - base)
        shrink = tl.exp(highest - base)
        mixed = mixed * shrink + tl.sum(weight[:, None] * value.to(tl.float32), 0)
        total, highest = total * shrink + tl.sum(weight, 0), top
    if (now >= begin) & (now < end):
        tl.store(keys_at + now * DIM + channel, new_key)
        tl.store(values_at + now * DIM + channel, new_value)
    if SPLITS == 1:
        tl.store(out_at + which * DIM + channel, mixed / total)
    else:
        mine = partial_at + (which * SPLITS + split) * (DIM + 2)
        tl.store(mine + channel, mixed)
        tl.store(mine + DIM, highest)
        tl.store(mine + DIM + 1, total)


@triton.jit
def _turned(x, x_at, angles_at, DIM: tl.constexpr):
    """The vector `x`, which lies at `x_at`, with its pairs of channels turned in float32; of the type it had."""
    channel = tl.arange(0, DIM)
    half = DIM // 2
    cosine, sine = tl.load(angles_at + channel % half), tl.load(angles_at + half + channel % half)
    partner = tl.load(x_at + (channel ^ half)).to(tl.float32)
    return (x.to(tl.float32) * cosine + tl.where(channel < half, -partner, partner) * sine).to(x.dtype)


@triton.jit
def merge(partial_at, out_at, DIM: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    """Shares of one softmax put together, each weighted by its highest score."""
    wait_for_inputs(EARLY)
    which = tl.program_id(0).to(tl.int64)
    channel, split = tl.arange(0, DIM), tl.arange(0, BLOCK)
    share = partial_at + (which * SPLITS + split) * (DIM + 2)
    there = split < SPLITS
    highest = tl.load(share + DIM, there, -float("inf"))
    weight = tl.exp(highest - tl.max(highest, 0))
    total = tl.sum(weight * tl.load(share + DIM + 1, there, 0.0), 0)
    mixed = tl.load(share[:, None] + channel[None, :], there[:, None], 0.0)
    tl.store(out_at + which * DIM + channel, tl.sum(weight[:, None] * mixed, 0) / total)
