"""What the inference engine does to its cache of keys and values, but for appending (see `one_query.py`).

A row's cache begins at its own first token: position t of a token is its place in its row without left padding.
The leading `first` tokens are kept for ever, in the slots of their positions; the others lie in a ring of
n = slots - first, in slot first + (t - first) % n. So the filled slots are the first min(t + 1, slots), t the newest.
"""

import triton
import triton.language as tl
from torch import Tensor

FILL_BLOCK = 32  # slots of a row and head that one program of `fill` writes
SLOT_BLOCK = 16  # slots that one program of `reorder` moves for all beams of a prompt: what was fastest on an H200


@triton.jit
def slot_of(position, first, ring):
    """Where the token of a position lies."""
    return tl.where(position < first, position, first + (position - first) % ring)


@triton.jit
def position_in(slot, newest, first, ring):
    """The position of the token in a filled slot, when `newest` is the latest one's."""
    now = slot_of(newest, first, ring)
    return tl.where(slot < first, slot, newest - now + slot - tl.where(slot > now, ring, 0))


def ring_of(slots: int, first: int) -> int:
    """How many slots are a ring; a cache that ends before its leading tokens do never asks for one."""
    return max(1, slots - first)


def fill(storage: Tensor, key: Tensor, value: Tensor, lengths: Tensor | None, first: int) -> None:
    """Begin rows with what is kept of their prompts' keys and values; slots for which there is no token stay.

    Args:
        storage: of one layer, [2, rows, heads, slots, head_dim].
        key, value: [prompts, heads, length, head_dim], each prompt for the next rows / prompts rows.
        lengths: int64 [prompts], each prompt's; what comes after is none of it. None: all are as long as they can be.
        first: how many leading tokens are kept for ever.
    """
    keys, values = storage
    rows, heads, slots, dim = keys.shape
    prompts, _, length, _ = key.shape
    _fill[(rows * heads, triton.cdiv(min(slots, length), FILL_BLOCK))](
        keys, values, key, value, key if lengths is None else lengths, length, slots, first,
        ring_of(slots, first), *key.stride(), *value.stride(), PADDED=lengths is not None, BEAMS=rows // prompts,
        HEADS=heads, DIM=dim, WIDTH=triton.next_power_of_2(dim), BLOCK=FILL_BLOCK, num_warps=4)


@triton.jit
def _fill(keys_at, values_at, key_at, value_at, lengths_at, length, slots, first, ring,
          key_prompt, key_head, key_place, key_channel, value_prompt, value_head, value_place, value_channel,
          PADDED: tl.constexpr, BEAMS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
          BLOCK: tl.constexpr):
    which = tl.program_id(0).to(tl.int64)
    prompt, head = which // HEADS // BEAMS, which % HEADS
    newest = (tl.load(lengths_at + prompt) if PADDED else length) - 1
    slot = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place = position_in(slot, newest, first, ring).to(tl.int64)[:, None]
    channel = tl.arange(0, WIDTH)[None, :]
    there = ((slot <= newest) & (slot < slots))[:, None] & (channel < DIM)
    key_at += prompt * key_prompt + head * key_head
    value_at += prompt * value_prompt + head * value_head
    to = (which * slots + slot[:, None]) * DIM + channel
    tl.store(keys_at + to, tl.load(key_at + place * key_place + channel * key_channel, there), there)
    tl.store(values_at + to, tl.load(value_at + place * value_place + channel * value_channel, there), there)


def reorder(storage: Tensor, rows: Tensor, beams: int, start: Tensor, most: int, count: Tensor) -> None:
    """In place: row i takes what row `rows[i]` has in the `count` slots from `start[i]` on, as far as there are any.

    Args:
        storage: [layers, 2, rows, heads, slots, head_dim].
        rows: int64 [rows], each within its own group of `beams`.
        start: int64 [rows] on the device, the same for all beams of a group.
        most: what `count` is at most.
        count: int64 [1] on the device.
    """
    layers, _, total, heads, slots, dim = storage.shape
    grid = (layers * 2 * (total // beams) * heads, triton.cdiv(min(most, slots), SLOT_BLOCK))
    _reorder[grid](storage, rows, start, count, total // beams, slots, HEADS=heads, DIM=dim, BEAMS=beams,
                   WIDE=triton.next_power_of_2(beams), DEEP=triton.next_power_of_2(dim), BLOCK=SLOT_BLOCK, num_warps=4)


@triton.jit
def _reorder(storage_at, rows_at, start_at, count_at, groups, slots, HEADS: tl.constexpr, DIM: tl.constexpr,
             BEAMS: tl.constexpr, WIDE: tl.constexpr, DEEP: tl.constexpr, BLOCK: tl.constexpr):
    which = tl.program_id(0).to(tl.int64)
    head, group, layer = which % HEADS, which // HEADS % groups, which // HEADS // groups
    first = tl.load(start_at + group * BEAMS)
    begin = tl.program_id(1) * BLOCK
    changed = tl.minimum(tl.load(count_at), slots - first)
    if begin < changed:
        beam = tl.arange(0, WIDE)
        taken = tl.load(rows_at + group * BEAMS + beam, beam < BEAMS, 0)
        row = layer * groups * BEAMS + group * BEAMS + beam
        source = layer * groups * BEAMS + taken
        inside = begin + tl.arange(0, BLOCK)
        column = tl.arange(0, DEEP)
        offset = (head * slots + first + inside)[None, :, None] * DIM + column[None, None, :]
        there = (beam < BEAMS)[:, None, None] & (inside < changed)[None, :, None] & (column < DIM)[None, None, :]
        held = tl.load(storage_at + source[:, None, None] * (HEADS * slots * DIM) + offset, there)
        tl.debug_barrier()  # all is read before any of it is written over
        tl.store(storage_at + row[:, None, None] * (HEADS * slots * DIM) + offset, held, there)
