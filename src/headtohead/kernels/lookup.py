"""Prompt lookup's bookkeeping in one launch a pass: see `headtohead.inference.lookup`."""

import triton
import triton.language as tl
from torch import Tensor

from headtohead.kernels.dependent import early, wait_for_inputs

SEARCHED = 1024  # places of a row that are searched at once


def advance(chosen: Tensor, block: Tensor, positions: Tensor, text: Tensor, filled: Tensor, starts: Tensor,
            finished: Tensor, continuations: Tensor, new_tokens: int, end: int | None, grams: int) -> None:
    """`accept` and then `draft`, in place; the arguments are theirs."""
    rows, choices = chosen.shape
    _advance[(rows,)](chosen, block, positions, text, filled, starts, finished, continuations, new_tokens,
                      -1 if end is None else end, text.shape[1], CHOICES=choices, BLOCK=block.shape[1], GRAMS=grams,
                      STEPS=continuations.shape[1] - 1, WIDE=triton.next_power_of_2(block.shape[1]), SEARCHED=SEARCHED,
                      num_warps=4, **early(text.device))


@triton.jit
def _advance(chosen_at, block_at, positions_at, text_at, filled_at, starts_at, finished_at, continuations_at,
             new_tokens, end, width, CHOICES: tl.constexpr, BLOCK: tl.constexpr, GRAMS: tl.constexpr,
             STEPS: tl.constexpr, WIDE: tl.constexpr,
             SEARCHED: tl.constexpr, EARLY: tl.constexpr):
    wait_for_inputs(EARLY)
    row = tl.program_id(0).to(tl.int64)
    ahead = tl.arange(0, WIDE)
    chosen_at += row * CHOICES
    block_at += row * BLOCK
    text_at += row * width
    filled = tl.load(filled_at + row).to(tl.int32)
    last = tl.load(starts_at + row).to(tl.int32) + new_tokens
    finished = tl.load(finished_at + row) != 0
    chosen = tl.load(chosen_at + ahead, ahead < CHOICES, -1)
    foreseen = tl.load(block_at + ahead + 1, ahead < CHOICES - 1, -2)
    count = 1 + tl.min(tl.where(chosen == foreseen, WIDE, ahead), 0)  # up to the first that was not foreseen
    ending = tl.min(tl.where((chosen == end) & (ahead < CHOICES), ahead + 1, WIDE + 1), 0)
    count = tl.minimum(tl.minimum(tl.minimum(count, CHOICES), ending), last - filled)
    count = tl.where(finished, 0, count)
    tl.store(text_at + filled + ahead, chosen, ahead < count)
    finished = finished | (ending <= count) | (filled + count == last)
    filled += count
    tl.store(filled_at + row, filled.to(tl.int64))
    tl.store(finished_at + row, finished)
    tl.debug_barrier()  # what was stored is read below
    best = 0  # none: whatever is drafted is verified
    for start in range(0, filled - 1, SEARCHED):
        place = start + tl.arange(0, SEARCHED)
        agrees = place < filled - 1
        shared = tl.zeros((SEARCHED,), tl.int32)
        for back in tl.static_range(GRAMS):
            latest = tl.load(text_at + filled - 1 - back, back < filled, -2)
            earlier = tl.load(text_at + place - back, agrees & (place >= back), -1)
            agrees = agrees & (earlier == latest)
            shared += agrees.to(tl.int32)
        best = tl.maximum(best, tl.max(tl.where(place < filled - 1, shared * (width + 1) - place, 0), 0))
    shared_most = (best + width) // (width + 1)
    found = shared_most * (width + 1) - best
    follows = tl.minimum(found + ahead, width - 1)
    drafted = tl.load(text_at + tl.where(ahead == 0, filled - 1, follows), ahead < BLOCK, 0)
    continuations_at += tl.load(text_at + filled - 1) * (1 + STEPS)
    frequent = tl.load(continuations_at + ahead, (ahead > 0) & (ahead <= STEPS), -1)
    drafted = tl.where((shared_most < tl.load(continuations_at)) & (frequent >= 0), frequent, drafted)
    tl.store(block_at + ahead, drafted, ahead < BLOCK)
    tl.store(positions_at + row * BLOCK + ahead, (filled - 1 + ahead).to(tl.int64), ahead < BLOCK)
