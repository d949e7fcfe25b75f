"""Greedy and beam search with transformers' results, on tensors of fixed shape that never leave the device."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from headtohead.inference.engine import Engine, Recording, rounded
from headtohead.inference.graphs import Afterwards, Part

NEVER = -1.0e9  # transformers' score for what must not be chosen


@dataclass(frozen=True)
class Shape:
    """What one recording serves.

    Args:
        end: the token that ends a sequence, or None.
        drafted: tokens that prompt lookup drafts in each row for one pass.
    """

    batch: int
    length: int
    new_tokens: int
    beams: int
    no_repeat_ngram: int
    end: int | None
    drafted: int


@torch.inference_mode()
def generate(engine: Engine, ids: Tensor, left_padding: Tensor | None = None, *, max_new_tokens: int, beams: int = 1,
             no_repeat_ngram: int = 0, end: int | None = None, drafted: int = 0) -> Tensor:
    """The continuation of each prompt: the same tokens as transformers' `generate` gives.

    Args:
        ids: [batch, length] on the engine's device.
        left_padding: [batch], padding tokens before each prompt; None if there is none.
        beams: 1 is greedy search; more is beam search with transformers' defaults (scores divided by length).
        no_repeat_ngram: n-grams of this size do not occur twice in a continuation; 0 allows them.
        end: the token that ends a continuation, and pads it; with None all are `max_new_tokens` long.
        drafted: how many tokens greedy search drafts from the prompt, to verify them in one pass (see `lookup.py`).

    Returns:
        int64 [batch, at most max_new_tokens].
    """
    recording = search_for(engine, ids, left_padding, max_new_tokens, beams, no_repeat_ngram, end, drafted)
    search = recording.program
    recording.replay(0)
    done = _look_out(search, engine.graphs)
    for _ in range(1, max_new_tokens):
        if done():
            break
        recording.replay(1)
    return search.result()[:len(ids)].clone()


@torch.inference_mode()
def stream(engine: Engine, ids: Tensor, *, max_new_tokens: int, no_repeat_ngram: int = 0, end: int | None = None,
           drafted: int = 0) -> Iterator[int]:
    """The tokens of one prompt's greedy continuation, each as soon as it is chosen, without `end`.

    Args:
        ids: [1, length] on the engine's device.
        drafted: see `generate`.
    """
    recording = search_for(engine, ids, None, max_new_tokens, 1, no_repeat_ngram, end, drafted)
    search, told = recording.program, 0
    while told < max_new_tokens:
        recording.replay(min(told, 1))
        for token in search.written()[told:]:
            if token == end:
                return
            yield token
            told += 1


def search_for(engine: Engine, ids: Tensor, left_padding: Tensor | None, new_tokens: int, beams: int,
               no_repeat_ngram: int, end: int | None, drafted: int) -> "Recording[Search]":
    """A search that holds the prompts and has not begun.

    Raises:
        ValueError: there are more tokens than the model has positions.
    """
    batch, length = ids.shape
    engine.check_length(length + new_tokens - 1)  # the last token is never run
    padding = torch.zeros(batch, dtype=torch.int64, device=ids.device) if left_padding is None else left_padding
    rows, slots = (rounded(batch), rounded(length)) if engine.graphs else (batch, length)
    shape = Shape(rows, slots, new_tokens, beams, no_repeat_ngram, end, drafted)
    recording = engine.recording(shape, lambda: _kind(shape)(engine, shape))
    recording.program.load(ids, padding)
    return recording


def _look_out(search: "Search", graphs: bool) -> Callable[[], bool]:
    """Says after each pass whether further ones are useless."""
    if not search.may_end:
        return lambda: False
    return Afterwards(search.finished) if graphs else search.done


def _kind(shape: Shape) -> "type[Search]":
    from headtohead.inference.lookup import Lookup  # which is a Search

    if shape.drafted:
        return Lookup
    return Greedy if shape.beams == 1 else Beams


class Search(ABC):
    """What all searches share: the prompts and the cache.

    Attributes:
        finished: bool [batch], on the device; further steps do not change these prompts' continuations.
    """

    def __init__(self, engine: Engine, shape: Shape) -> None:
        self.engine, self.shape = engine, shape
        device = engine.device
        self.rows = shape.batch * shape.beams
        self.ids = torch.zeros(shape.batch, shape.length, dtype=torch.int64, device=device)
        self.lengths = torch.ones(shape.batch, dtype=torch.int64, device=device)  # of the prompts
        self.starts = torch.ones(self.rows, dtype=torch.int64, device=device)  # of the continuations, in their rows
        self.idle = torch.zeros(shape.batch, dtype=torch.bool, device=device)
        self.finished = torch.zeros_like(self.idle)
        self.cache = engine.cache(self.rows, shape.length + shape.new_tokens, shape.drafted)

    @property
    def may_end(self) -> bool:
        """Whether it may be done before its last step."""
        return self.shape.end is not None

    def load(self, ids: Tensor, padding: Tensor) -> None:
        """Left-align the prompts: causality hides the padding. Unused rows get one token and start finished."""
        batch, length = ids.shape
        place = padding[:, None] + torch.arange(length, device=ids.device)
        self.ids.zero_()
        self.ids[:batch, :length] = ids.gather(1, place.clamp(max=length - 1))
        self.lengths.fill_(1)
        self.lengths[:batch] = length - padding
        self.starts.copy_(self.lengths.repeat_interleave(self.shape.beams))
        self.idle.fill_(True)
        self.idle[:batch] = False

    def parts(self) -> list[Part]:
        parts: list[Part] = [self.start, self.step]
        return parts[:self.shape.new_tokens]

    def done(self) -> bool:
        """Whether further steps cannot change the result; waits for the device."""
        return bool(self.finished.all())

    @abstractmethod
    def start(self) -> None:
        """Run the prompts and choose the first token."""

    @abstractmethod
    def step(self) -> None:
        """Choose one more token, or several."""

    @abstractmethod
    def written(self) -> list[int]:
        """The first row's tokens so far; waits for the device."""

    @abstractmethod
    def result(self) -> Tensor:
        """The continuations [batch, length of the longest]."""


class OneByOne(Search):
    """A token in every row each time, and a clock.

    Every token adds 1 to all numbers of the clock: the count of tokens, and the position of each row's latest one,
    padding not counted.
    """

    def __init__(self, engine: Engine, shape: Shape) -> None:
        super().__init__(engine, shape)
        device = engine.device
        self.clock = torch.zeros(1 + self.rows, dtype=torch.int64, device=device)
        self.count, self.positions = self.clock[:1], self.clock[1:]
        self.latest = torch.zeros(self.rows, dtype=torch.int64, device=device)
        self.tokens = torch.zeros(self.rows, shape.new_tokens, dtype=torch.int64, device=device)

    def start(self) -> None:
        self.count.zero_()
        self.positions.copy_(self.starts - 1)
        self.tokens.fill_(self.shape.end or 0)
        self.reset()
        logits = self.engine.prefill(self.ids, self.lengths, self.cache)
        self.choose(logits.repeat_interleave(self.shape.beams, 0))

    def step(self) -> None:
        self.choose(self.engine.decode(self.latest[:, None], self.positions[:, None], self.cache)[:, 0])

    def written(self) -> list[int]:
        return self.tokens[0, :int(self.count)].tolist()

    @abstractmethod
    def reset(self) -> None:
        """Reset everything to its value before the first token."""

    @abstractmethod
    def choose(self, logits: Tensor) -> None:
        """Choose the next token of every row from logits [rows, vocabulary], and advance the clock."""


class Greedy(OneByOne):
    """The likeliest token each time."""

    def reset(self) -> None:
        self.finished.copy_(self.idle)

    def choose(self, logits: Tensor) -> None:
        if size := self.shape.no_repeat_ngram:
            logits = without_repeats(logits, self.tokens, self.count, size)
        chosen = likeliest(logits)
        if self.shape.end is not None:
            chosen = chosen.masked_fill(self.finished, self.shape.end)
            self.finished.logical_or_(chosen == self.shape.end)
        self.tokens.index_copy_(1, self.count, chosen[:, None])
        self.latest.copy_(chosen)
        self.clock.add_(1)

    def result(self) -> Tensor:
        return up_to_the_last_end(self.tokens, self.shape.end, ~self.idle)


class Beams(OneByOne):
    """Beam search as in transformers: the best `beams` open sequences continue, and the best finished ones are kept.

    A sequence's score is the sum of its tokens' log-probabilities; a finished one's is divided by its length.
    A prompt is done when its best open sequence, if it finished now, could not beat its worst finished one.
    """

    def __init__(self, engine: Engine, shape: Shape) -> None:
        super().__init__(engine, shape)
        size, device = (shape.batch, shape.beams), engine.device
        self.scores = torch.zeros(size, device=device)
        self.best = torch.zeros(*size, shape.new_tokens, dtype=torch.int64, device=device)
        self.best_scores = torch.zeros(size, device=device)
        self.best_lengths = torch.zeros(size, dtype=torch.int64, device=device)
        self.hopeful = torch.zeros(shape.batch, 1, dtype=torch.bool, device=device)
        self._first_row = torch.arange(shape.batch, device=device)[:, None] * shape.beams

    def reset(self) -> None:
        self.scores.fill_(NEVER)
        self.scores[:, :1].zero_()  # all beams are still the same
        self.best.fill_(self.shape.end or 0)
        self.best_scores.fill_(NEVER)
        self.best_lengths.zero_()
        self.hopeful.copy_(~self.idle[:, None])
        self.finished.copy_(self.idle)

    def choose(self, logits: Tensor) -> None:
        shape, wanted = self.shape, 2 * self.shape.beams
        logits = logits.float()
        norm = logits.logsumexp(-1, keepdim=True)
        if shape.no_repeat_ngram:
            logits = without_repeats(logits, self.tokens, self.count, shape.no_repeat_ngram)
        # Twice as many as there are beams: even if half of them have finished, enough are left to continue.
        likely, token = logits.topk(min(wanted, logits.shape[-1]))
        total = (likely - norm).view(shape.batch, shape.beams, -1) + self.scores[:, :, None]
        scores, place = total.flatten(1).topk(wanted)
        beam, token = place // total.shape[-1], token.view(shape.batch, -1).gather(1, place)
        written = self.tokens.view(shape.batch, shape.beams, shape.new_tokens)
        tokens = written.gather(1, beam[:, :, None].expand(-1, -1, shape.new_tokens))
        tokens.index_copy_(2, self.count, token[:, :, None])
        self.clock.add_(1)
        finished = self.count >= shape.new_tokens
        finished = finished.expand_as(token) if shape.end is None else finished | (token == shape.end)
        self._keep_finished(scores, tokens, finished)
        self._go_on(scores, tokens, beam, finished)

    def _keep_finished(self, scores: Tensor, tokens: Tensor, finished: Tensor) -> None:
        """Keep the best finished sequences, including those of the first `beams` candidates that have just finished."""
        final = scores / self.count + NEVER * (~self.hopeful) + NEVER * (~finished)
        final[:, self.shape.beams:] += NEVER
        scores, order = torch.cat([self.best_scores, final], 1).topk(self.shape.beams)
        lengths = torch.cat([self.best_lengths, self.count.expand_as(final)], 1).gather(1, order)
        tokens = torch.cat([self.best, tokens], 1).gather(1, order[:, :, None].expand(-1, -1, tokens.shape[-1]))
        self.best_scores.copy_(scores)
        self.best_lengths.copy_(lengths)
        self.best.copy_(tokens)

    def _go_on(self, scores: Tensor, tokens: Tensor, beam: Tensor, finished: Tensor) -> None:
        """Continue from the best candidates that are still open."""
        scores, order = (scores + NEVER * finished).topk(self.shape.beams)
        tokens = tokens.gather(1, order[:, :, None].expand(-1, -1, tokens.shape[-1]))
        self.scores.copy_(scores)
        self.tokens.copy_(tokens.flatten(0, 1))
        self.latest.copy_(self.tokens.index_select(1, self.count - 1)[:, 0])
        rows = (beam.gather(1, order) + self._first_row).flatten()
        self.cache.reorder(rows, self.shape.beams, self.starts, self.shape.new_tokens, self.count)
        reachable = scores[:, :1] / self.count
        self.hopeful.logical_and_((reachable > self.best_scores[:, -1:]) | (self.best_scores[:, -1:] <= NEVER / 2))
        self.finished.copy_(~self.hopeful[:, 0] | finished.all())

    def result(self) -> Tensor:
        return self.best[:, 0, :int(self.best_lengths[:, 0][~self.idle].max())]


def likeliest(logits: Tensor) -> Tensor:
    """The first of each row's highest logits [rows, vocabulary]: int64 [rows]."""
    if logits.device.type != "cuda":
        return logits.argmax(-1)
    from headtohead.kernels import layers  # Triton is installed only with CUDA

    return layers.likeliest(logits)


def up_to_the_last_end(tokens: Tensor, end: int | None, real: Tensor) -> Tensor:
    """Continuations [rows, new_tokens] cut to the longest of the `real` [rows] ones, including its end-of-text."""
    if end is None:
        return tokens
    is_end = (tokens == end).long()
    before_first_end = is_end.cumsum(1) - is_end == 0  # or at it
    return tokens[:, :int(before_first_end[real].sum(1).max())]


def without_repeats(scores: Tensor, tokens: Tensor, count: Tensor, size: int) -> Tensor:
    """Scores [rows, vocabulary] with -inf for tokens that would repeat an n-gram of a row's first `count` `tokens`.

    Args:
        tokens: [rows, places].
        count: int64 [rows or 1].
    """
    if tokens.shape[1] < size:
        return scores
    grams = tokens.unfold(1, size, 1)  # [rows, places, size]
    count = count[:, None]
    recent = count - size + 1 + torch.arange(size - 1, device=tokens.device)
    latest = tokens.gather(1, recent.clamp(min=0).expand(len(tokens), -1))
    place = torch.arange(grams.shape[1], device=tokens.device)
    repeats = (grams[:, :, :-1] == latest[:, None]).all(-1) & (place + size <= count)
    token = grams[:, :, -1]
    banned = scores.gather(1, token).masked_fill(repeats, -torch.inf)
    return scores.scatter_reduce(1, token, banned, "amin")
