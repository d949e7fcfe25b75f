"""Attention of one query a row over a static cache, as a Triton kernel (Triton comes with PyTorch on Linux).

Decoding reads every key and value once for one multiplication each, so memory decides: the kernel reads them once,
appends the new ones on the way, and takes any pattern, ALiBi and padding as a bias. Softmax as in FlashAttention
(Dao et al. 2022, algorithm 1), split over the keys where there are too few rows to fill the device, as in
Flash-Decoding. Everything is computed in float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Keys that one program reads at once, and its warps: what was fastest on an H200.
SPLIT, WHOLE = (128, 4), (64, 2)  # where several programs share the keys of a row, and where one reads them all
LEAST_SHARE = 128  # keys; a shorter share is not worth a program of its own


def attend_one(qkv: Tensor, keys: Tensor, values: Tensor, position: Tensor, bias: Tensor | None,
               scale: float) -> Tensor:
    """Attention of one query a row over a cache, which it extends by the row's key and value.

    Args:
        qkv: [rows, 3 * heads * head_dim], the new token's query, key and value.
        keys, values: the caches [rows, heads, slots, head_dim], slots a ring: position p is in slot p % slots.
        position: int64 [1] on the device, the new token's; all before it are in the cache.
        bias: float32 [rows or 1, heads or 1, 1, slots], added to scaled scores; -inf hides a slot. None hides none.

    Returns:
        [rows, heads * head_dim].
    """
    rows, heads, slots, dim = keys.shape
    out = torch.empty(rows, heads * dim, dtype=qkv.dtype, device=qkv.device)
    splits = _splits(rows * heads, slots, qkv.device)
    block, warps = WHOLE if splits == 1 else SPLIT
    partial = torch.empty(rows * heads * splits * (dim + 2) if splits > 1 else 0, device=qkv.device)
    _attend_one[(rows * heads, splits)](
        qkv, keys, values, position, qkv if bias is None else bias, out, partial, slots, scale, *_strides(bias),
        BIASED=bias is not None, HEADS=heads, DIM=dim, BLOCK=block, SPLITS=splits, num_warps=warps)
    if splits > 1:
        _merge[(rows * heads,)](partial, out, DIM=dim, SPLITS=splits, BLOCK=triton.next_power_of_2(splits), num_warps=1)
    return out


def _strides(bias: Tensor | None) -> tuple[int, int]:
    """Of rows and heads, 0 where one serves all."""
    if bias is None:
        return 0, 0
    return bias.stride(0) * (bias.shape[0] > 1), bias.stride(1) * (bias.shape[1] > 1)


def _splits(programs: int, slots: int, device: torch.device) -> int:
    """In how many shares to read the keys, so that two programs a multiprocessor are at work."""
    wanted = 2 * torch.cuda.get_device_properties(device).multi_processor_count // programs
    return max(1, min(wanted, slots // LEAST_SHARE))


@triton.jit
def _attend_one(qkv_at, keys_at, values_at, position_at, bias_at, out_at, partial_at, slots, scale,
                bias_row, bias_head, BIASED: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr,
                BLOCK: tl.constexpr, SPLITS: tl.constexpr):
    which, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, head = which // HEADS, which % HEADS
    channel = tl.arange(0, DIM)
    new = qkv_at + row * (3 * HEADS * DIM) + head * DIM + channel
    query = tl.load(new).to(tl.float32) * scale
    new_key, new_value = tl.load(new + HEADS * DIM), tl.load(new + 2 * HEADS * DIM)
    position = tl.load(position_at)
    now = position % slots
    filled = tl.minimum(position + 1, slots)
    share = tl.cdiv(tl.cdiv(filled, SPLITS), BLOCK) * BLOCK
    first, last = split * share, tl.minimum((split + 1) * share, filled)
    bias_at += row * bias_row + head * bias_head
    cache = which * slots * DIM
    highest, total = -float("inf"), 0.0
    mixed = tl.zeros((DIM,), tl.float32)
    for start in range(first, last, BLOCK):
        slot = start + tl.arange(0, BLOCK)
        there = slot < last
        at = cache + slot[:, None] * DIM + channel[None, :]
        key = tl.load(keys_at + at, (there & (slot != now))[:, None], 0.0)
        value = tl.load(values_at + at, (there & (slot != now))[:, None], 0.0)
        key = tl.where((slot == now)[:, None], new_key[None, :], key)
        value = tl.where((slot == now)[:, None], new_value[None, :], value)
        score = tl.where(there, tl.sum(query[None, :] * key.to(tl.float32), 1), -float("inf"))
        if BIASED:
            score += tl.load(bias_at + slot, there, 0.0)
        top = tl.maximum(highest, tl.max(score, 0))
        base = tl.where(top == -float("inf"), 0.0, top)  # nothing visible yet
        weight = tl.exp(score - base)
        shrink = tl.exp(highest - base)
        mixed = mixed * shrink + tl.sum(weight[:, None] * value.to(tl.float32), 0)
        total, highest = total * shrink + tl.sum(weight, 0), top
    if (now >= first) & (now < last):
        tl.store(keys_at + cache + now * DIM + channel, new_key)
        tl.store(values_at + cache + now * DIM + channel, new_value)
    if SPLITS == 1:
        tl.store(out_at + which * DIM + channel, mixed / total)
    else:
        mine = partial_at + (which * SPLITS + split) * (DIM + 2)
        tl.store(mine + channel, mixed)
        tl.store(mine + DIM, highest)
        tl.store(mine + DIM + 1, total)


@triton.jit
def _merge(partial_at, out_at, DIM: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """Shares of one softmax put together, each weighted by its highest score."""
    which = tl.program_id(0).to(tl.int64)
    channel, split = tl.arange(0, DIM), tl.arange(0, BLOCK)
    share = partial_at + (which * SPLITS + split) * (DIM + 2)
    there = split < SPLITS
    highest = tl.load(share + DIM, there, -float("inf"))
    weight = tl.exp(highest - tl.max(highest, 0))
    total = tl.sum(weight * tl.load(share + DIM + 1, there, 0.0), 0)
    mixed = tl.load(share[:, None] + channel[None, :], there[:, None], 0.0)
    tl.store(out_at + which * DIM + channel, tl.sum(weight[:, None] * mixed, 0) / total)
