"""Greedy search with prompt lookup (Saxena 2023): what follows an earlier occurrence of the latest tokens is drafted.

A summary repeats its article, so the draft is often right; where the article offers nothing, it is what summaries most
often go on with (`tokens/continuations.py`). One pass runs the latest token and the draft; the model's
own choices after each of them are kept as far as the draft agrees with them, and one choice beyond it. So the tokens
are those of greedy search, several in a pass (as in speculative decoding, Leviathan et al. 2023, without a second
model). Drafting and acceptance are part of the CUDA graph.
"""

import torch
from torch import Tensor

from headtohead.inference.engine import Engine
from headtohead.inference.search import Search, Shape, likeliest, up_to_the_last_end, without_repeats
from headtohead.params import Generate

PAYS = ((1, 15), (16, 7), (64, 5))  # rows of a batch up to which so many drafted tokens are best, measured on an H100
ALONE = PAYS[0][1]  # for a single article
GRAMS = 3  # tokens that an earlier occurrence shares with the latest ones at most; more of them hardly help


def drafted_for(engine: Engine, rows: int, settings: Generate) -> int:
    """How many tokens to draft for each of a batch's `rows`; 0 where it is turned off, impossible or does not pay."""
    if settings.beams > 1 or not engine.takes_back:
        return 0
    if isinstance(settings.lookup, int):
        return settings.lookup
    if engine.device.type != "cuda" or engine.dtype.itemsize > 2:  # in float32 more tokens take longer to multiply
        return 0
    return next((drafted for most, drafted in PAYS if rows <= most), 0)


class Lookup(Search):
    """Rows advance by one token or more in each step, each on its own.

    Attributes:
        text: int64 [rows, length + new_tokens + drafted], a row's prompt and what was written after it.
        filled: int64 [rows], how many tokens of it there are.
        block: int64 [rows, 1 + drafted], the latest token and the draft.
        positions: int64 [rows, 1 + drafted], theirs.
    """

    def __init__(self, engine: Engine, shape: Shape) -> None:
        super().__init__(engine, shape)
        device, rows = engine.device, self.rows
        self.text = torch.zeros(rows, shape.length + shape.new_tokens + shape.drafted, dtype=torch.int64, device=device)
        self.filled = torch.ones(rows, dtype=torch.int64, device=device)
        self.block = torch.zeros(rows, 1 + shape.drafted, dtype=torch.int64, device=device)
        self.positions = torch.zeros_like(self.block)

    @property
    def may_end(self) -> bool:
        return True

    def start(self) -> None:
        self.text.zero_()
        self.text[:, :self.shape.length].copy_(self.ids)
        self.filled.copy_(self.starts)
        self.finished.copy_(self.idle)
        logits = self.engine.prefill(self.ids, self.lengths, self.cache)
        self._advance(likeliest(logits)[:, None])

    def step(self) -> None:
        logits = self.engine.decode(self.block, self.positions, self.cache).flatten(0, 1)
        if self.shape.no_repeat_ngram:
            logits = self._without_repeats(logits)
        self._advance(likeliest(logits).view_as(self.block))

    def written(self) -> list[int]:
        return self.text[0, int(self.starts[0]):int(self.filled[0])].tolist()

    def result(self) -> Tensor:
        place = torch.arange(self.shape.new_tokens, device=self.text.device)
        tokens = self.text.gather(1, self.starts[:, None] + place)
        tokens = tokens.masked_fill(place >= (self.filled - self.starts)[:, None], self.shape.end or 0)
        return up_to_the_last_end(tokens, self.shape.end, ~self.idle)

    def _advance(self, chosen: Tensor) -> None:
        """Keep what is right of `chosen` [rows, 1 or 1 + drafted], the choices after the block's tokens; draft anew."""
        if chosen.device.type == "cuda":
            from headtohead.kernels import lookup  # Triton is installed only with CUDA

            lookup.advance(chosen, self.block, self.positions, self.text, self.filled, self.starts, self.finished,
                           self.engine.continuations, self.shape.new_tokens, self.shape.end, GRAMS)
        else:
            accept(chosen, self.block, self.text, self.filled, self.starts, self.finished, self.shape.new_tokens,
                   self.shape.end)
            draft(self.block, self.positions, self.text, self.filled, self.engine.continuations)

    def _without_repeats(self, logits: Tensor) -> Tensor:
        """Each token of the block is followed by none that would repeat an n-gram of what is written up to it."""
        place = torch.arange(self.shape.new_tokens + self.shape.drafted, device=logits.device)
        tokens = self.text.gather(1, (self.starts[:, None] + place).clamp(max=self.text.shape[1] - 1))
        count = self.positions - self.starts[:, None] + 1
        drafted = (count[:, 1:] - 1).clamp(max=tokens.shape[1] - 1)
        tokens = tokens.scatter(1, drafted, self.block[:, 1:]).repeat_interleave(self.block.shape[1], 0)
        return without_repeats(logits, tokens, count.flatten(), self.shape.no_repeat_ngram)


def count_passes(prompts: list[list[int]], written: list[list[int]], continuations: Tensor,
                 drafted: int) -> list[int]:
    """In how many passes after the prompt's prompt lookup writes what greedy search wrote; no model is needed for it.

    Args:
        written: the tokens after each prompt, with end-of-text if there is one.
        continuations: see `draft`.
    """
    starts, counts = (torch.tensor([len(tokens) for tokens in side]) for side in (prompts, written))
    known = torch.zeros(len(prompts), int((starts + counts).max()) + drafted + 1, dtype=torch.int64)
    for row, prompt, tokens in zip(known, prompts, written, strict=True):
        row[:len(prompt) + len(tokens)] = torch.tensor(prompt + tokens)
    ahead = torch.arange(1 + drafted)
    filled, finished = starts + 1, counts <= 1
    text = known.masked_fill(torch.arange(known.shape[1]) >= filled[:, None], 0)
    block, passes = torch.zeros(len(prompts), 1 + drafted, dtype=torch.int64), torch.zeros_like(counts)
    positions = torch.zeros_like(block)
    while not finished.all():
        passes += ~finished
        draft(block, positions, text, filled, continuations)
        place = (filled[:, None] + ahead).clamp(max=known.shape[1] - 1)
        accept(known.gather(1, place), block, text, filled, starts, finished, counts, None)
    return passes.tolist()


def accept(chosen: Tensor, block: Tensor, text: Tensor, filled: Tensor, starts: Tensor, finished: Tensor,
           new_tokens: int | Tensor, end: int | None) -> None:
    """Append to each row's text its choices up to the first that the draft did not foresee; in place.

    Args:
        chosen: int64 [rows, choices], the likeliest tokens after each of the block's first ones.
        block: int64 [rows, choices or more], the latest token, and the draft.
        text, filled: see `Lookup`.
        starts: int64 [rows], where continuations begin.
        finished: bool [rows]; such rows stay as they are. A row is finished by `end` or by its `new_tokens`-th token.
        new_tokens: of all rows, or int64 [rows].
    """
    choices = torch.arange(chosen.shape[1], device=chosen.device)
    count = 1 + (chosen[:, :-1] == block[:, 1:chosen.shape[1]]).long().cumprod(1).sum(1)
    ends = torch.zeros_like(chosen, dtype=torch.bool) if end is None else chosen == end
    to_end = torch.where(ends.any(1), ends.long().argmax(1) + 1, chosen.shape[1])
    count = torch.minimum(torch.minimum(count, to_end), starts + new_tokens - filled).masked_fill(finished, 0)
    place, kept = filled[:, None] + choices, choices < count[:, None]
    place = place.clamp(max=text.shape[1] - 1)  # beyond which nothing is kept
    text.scatter_(1, place, torch.where(kept, chosen, text.gather(1, place)))
    filled += count
    finished |= (ends & kept).any(1) | (filled == starts + new_tokens)


def draft(block: Tensor, positions: Tensor, text: Tensor, filled: Tensor, continuations: Tensor) -> None:
    """Put each row's latest token into its block, and after it what follows the best earlier occurrence; in place.

    The best occurrence shares the most tokens with the latest ones, at most `GRAMS`; of several, the first. If it
    shares too few, the draft begins with what summaries go on with after the latest token. All of it is verified.

    Args:
        block, positions: int64 [rows, 1 + drafted].
        text, filled: see `Lookup`.
        continuations: int64 [vocabulary, 1 + steps], see `count_continuations`.
    """
    place = torch.arange(text.shape[1], device=text.device)
    agrees = torch.ones_like(text, dtype=torch.bool)
    shared = torch.zeros_like(text)
    for back in range(GRAMS):
        latest = text.gather(1, (filled[:, None] - 1 - back).clamp(min=0))
        earlier = text.roll(back, 1).masked_fill(place < back, -1)
        agrees = agrees & (earlier == latest) & (place < filled[:, None] - 1) & (back < filled[:, None])
        shared += agrees
    shared, found = (shared * (text.shape[1] + 1) - place).max(1)
    shared = -(-shared // (text.shape[1] + 1))
    ahead = torch.arange(block.shape[1], device=text.device)
    follows = (found[:, None] + ahead).clamp(max=text.shape[1] - 1)
    block.copy_(text.gather(1, torch.where(ahead == 0, filled[:, None] - 1, follows)))
    enough, *steps = continuations[block[:, 0]].T
    for step, token in enumerate(steps[:block.shape[1] - 1], 1):
        block[:, step] = torch.where((shared < enough) & (token >= 0), token, block[:, step])
    positions.copy_(filled[:, None] - 1 + ahead)
