"""What layers keep of a sequence between passes, and the attention of each row's new queries over it.

A row's memory begins at its own first token: `position` here is a token's index in its row, left padding not counted.
A pass adds one token to each row, or several that follow each other: those after the first are drafted, and if they
turn out wrong, the next pass writes over them. Buffers never move, so that a CUDA graph can hold their addresses.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Protocol

import torch
from torch import Tensor

from headtohead.attention import favor
from headtohead.attention.backends import flash_attn, performer
from headtohead.attention.job import Capability, Job
from headtohead.attention.masks import bias_at, seen_blocks
from headtohead.attention.patterns import Form, Kept
from headtohead.attention.positions import rotate, rotations, slopes_on

Features = Sequence[Tensor] | None  # Performer's, float32 [features, head_dim] for each layer

KEPT_IS_SEEN = frozenset({"window", "first", "block"})  # forms for which a decoder sees everything that it keeps


class State(Protocol):
    """What layers of one kind keep, each for `rows` sequences."""

    name: str

    def fill(self, layer: int, keys: Tensor, values: Tensor, lengths: Tensor | None) -> None:
        """Start from the prompts' keys and values [prompts, heads, length, head_dim], each for rows / prompts rows.

        The keys already carry their positions (`Plan.placed`).

        Args:
            lengths: int64 [prompts], the prompts' lengths; None if no prompt is padded.
        """

    def ready(self, position: Tensor) -> None:
        """Prepare, once per pass, what all layers share; `position` int64 [rows, tokens] is that of the new tokens."""

    def step(self, layer: int, qkv: Tensor) -> Tensor:
        """Add the new tokens' qkv [rows, tokens, 3, heads, head_dim]; returns [rows, tokens, heads, head_dim]."""

    def reorder(self, rows: Tensor, beams: int, start: Tensor, most: int, count: Tensor) -> None:
        """Row i continues from row rows[i] of its prompt's `beams`.

        Args:
            rows: int64 [rows].
            start: int64 [rows], the length of each row's prompt, which all its beams share.
            most: an upper bound for `count`.
            count: int64 [1], the tokens generated since the prompt.
        """

    @property
    def bytes(self) -> int:
        """The size of its memory."""


class KeysValues:
    """The keys and values of the kept tokens: the first ones in the slots of their positions, the others in a ring.

    Args:
        length: tokens of a row at most, drafted ones included.
        drafted: how many tokens of a pass may be wrong. The ring is longer by as many: what they write over, no query
            of this pass or the next one sees.

    Attributes:
        storage: [layers, 2, rows, heads, slots, head_dim].
        first: how many leading tokens are kept for good. Token t is in slot t if t < first, else in slot
            first + (t - first) % (slots - first).
    """

    name = ""

    def __init__(self, job: Job, kept: Kept, layers: int, rows: int, length: int, drafted: int = 0) -> None:
        self.first, slots = kept.first, min(kept.first + kept.last + drafted, length)
        self.storage = torch.zeros(layers, 2, rows, job.heads, slots, job.head_dim, device=job.device, dtype=job.dtype)
        self._job, self._whole = job, slots == length
        self._turns = rotations(length, job.head_dim, job.device) if job.spec.positions == "rope" else None
        self._position = self._at = torch.zeros(0)

    @property
    def slots(self) -> int:
        return self.storage.shape[4]

    @property
    def bytes(self) -> int:
        return self.storage.nbytes

    def positions(self, newest: Tensor) -> Tensor:
        """The position in each slot [rows, slots] when `newest` [rows] is the latest; negative if the slot is empty."""
        slot, newest = torch.arange(self.slots, device=newest.device), newest[:, None]
        in_ring = newest - (newest - slot) % max(1, self.slots - self.first)
        if not self.first:
            return in_ring
        leading = torch.where(slot <= newest, slot, -1)
        return torch.where(slot < self.first, leading, in_ring.masked_fill(in_ring < self.first, -1))

    def fill(self, layer: int, keys: Tensor, values: Tensor, lengths: Tensor | None) -> None:
        if self.storage.device.type == "cuda":
            from headtohead.kernels.cache import fill  # Triton is installed only with CUDA

            fill(self.storage[layer], keys, values, lengths, self.first)
            return
        prompts, _, length, _ = keys.shape
        newest = torch.full((prompts,), length - 1, device=keys.device) if lengths is None else lengths - 1
        used = min(self.slots, length)
        place = self.positions(newest)[:, :used].clamp(min=0)
        for kept, given in zip(self.storage[layer], (keys, values), strict=True):
            at = place[:, None, :, None].expand(-1, given.shape[1], -1, given.shape[3])
            kept.unflatten(0, (prompts, -1))[:, :, :, :used] = given.gather(2, at)[:, None]

    def ready(self, position: Tensor) -> None:
        slot = position % self.slots
        if self.first:
            ring = self.first + (position - self.first) % max(1, self.slots - self.first)
            slot = torch.where(position < self.first, position, ring)
        self._position, self._at = position, slot[:, None, :, None]

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values [rows, heads, tokens, head_dim]; returns all the layer's keys and values."""
        keys, values = self.storage[layer]
        at = self._at.expand_as(key)
        keys.scatter_(2, at, key)
        values.scatter_(2, at, value)
        return keys, values

    def placed(self, x: Tensor) -> Tensor:
        """Queries or keys [rows, heads, tokens, head_dim], rotated by their positions if the variant uses RoPE."""
        return x if self._turns is None else rotate(x, self._turns[self._position][:, None])

    def reorder(self, rows: Tensor, beams: int, start: Tensor, most: int, count: Tensor) -> None:
        if self.storage.device.type == "cuda":
            from headtohead.kernels.cache import reorder  # Triton is installed only with CUDA

            whole = self._whole
            reorder(self.storage, rows, beams, start if whole else torch.zeros_like(start),
                    most if whole else self.slots, count if whole else torch.full_like(count, self.slots))
            return
        changed = self.storage[:, :, :, :, int(start.min()) if self._whole else 0:]
        changed.copy_(changed.index_select(2, rows))


class Dense(KeysValues):
    """Attends over all slots by a backend that takes a dense bias; on a CPU, only over the filled ones."""

    def __init__(self, name: str, attend: Callable[..., Tensor], job: Job, layers: int, rows: int, length: int,
                 features: Features = None, drafted: int = 0) -> None:
        super().__init__(job, job.spec.visibility.keeps(length), layers, rows, length, drafted)
        self.name, self._attend, self._bias = name, attend, torch.empty(0)

    def ready(self, position: Tensor) -> None:
        super().ready(position)
        used = min(int(position.max()) + 1, self.slots) if position.device.type == "cpu" else self.slots
        self._bias = bias_at(self._job.spec, self._job.heads, position, self.positions(position[:, -1])[:, :used])

    def step(self, layer: int, qkv: Tensor) -> Tensor:
        query, key, value = qkv.transpose(1, 3).unbind(2)
        used = self._bias.shape[-1]
        keys, values = self.append(layer, self.placed(key), value)
        attended = self._attend(self.placed(query), keys[:, :, :used], values[:, :, :used], self._bias,
                                self._job.scaling)
        return attended.transpose(1, 2)


class OneQuery(KeysValues):
    """Our own kernels: they append and attend in one launch, and read only what the queries see."""

    name = "one-query"
    capability = Capability(kernels=frozenset({"flash"}),
                            dtypes={"cuda": (torch.float32, torch.bfloat16, torch.float16)}, backward=frozenset(),
                            head_dims=(16, 32, 64, 128, 256))

    def __init__(self, job: Job, layers: int, rows: int, length: int, features: Features = None,
                 drafted: int = 0) -> None:
        from headtohead.kernels import few_queries, one_query  # Triton is installed only with CUDA

        super().__init__(job, job.spec.visibility.keeps(length), layers, rows, length, drafted)
        form, pattern = job.form, job.spec.visibility
        by_form = form is not None and form.parts <= KEPT_IS_SEEN
        blocks = None
        if pattern.grain is not None and not by_form:
            blocks = seen_blocks(pattern, length, job.device).to(torch.uint8)
        self._biased = not by_form and blocks is None
        slopes = slopes_on(job.heads, job.device) if job.spec.positions == "alibi" and not self._biased else None
        attend: Callable[..., Tensor] = one_query.attend_one
        if drafted:
            attend = partial(few_queries.attend_few, window=form.window if form and by_form else None)
        self._attend = partial(attend, first=self.first, block=form.block if form else None, seen_blocks=blocks,
                               grain=pattern.grain or 1, slopes=slopes, rotary=self._turns, scale=job.scaling)
        self._bias: Tensor | None = None

    def ready(self, position: Tensor) -> None:
        self._position = position[:, 0]
        if self._biased:
            self._bias = bias_at(self._job.spec, self._job.heads, position, self.positions(position[:, -1]))

    def step(self, layer: int, qkv: Tensor) -> Tensor:
        keys, values = self.storage[layer]
        rows, tokens, _, *rest = qkv.shape
        out = self._attend(qkv.view(rows * tokens, -1), keys, values, self._position, bias=self._bias)
        return out.view(rows, tokens, *rest)


class FlashAttn(KeysValues):
    """flash-attn's own decoding kernel. It has no ring, so a window reads its part of a cache that keeps everything."""

    name = "flash-attn"
    capability = replace(flash_attn.capability, forms=frozenset({"window"}))

    def __init__(self, job: Job, layers: int, rows: int, length: int, features: Features = None,
                 drafted: int = 0) -> None:
        super().__init__(job, Kept(0, length), layers, rows, length, drafted)
        slopes = slopes_on(job.heads, job.device) if job.spec.positions == "alibi" else None
        self._attend = partial(import_module("flash_attn").flash_attn_with_kvcache, softmax_scale=job.scaling,
                               causal=True, alibi_slopes=slopes, window_size=flash_attn.window_size(job.form or Form()))

    def ready(self, position: Tensor) -> None:
        self._position, self._filled = position, position[:, 0].to(torch.int32)

    def step(self, layer: int, qkv: Tensor) -> Tensor:
        query, key, value = qkv.transpose(1, 3).unbind(2)
        query, key, value, keys, values = (x.transpose(1, 2) for x in (
            self.placed(query), self.placed(key), value, *self.storage[layer]))
        out: Tensor = self._attend(query, keys, values, key, value, cache_seqlens=self._filled)
        return out


class Recurrent:
    """Performer's sums over all keys so far (Choromanski et al. 2021, section 2.5.1); their size is constant.

    Attributes:
        sums: float32 [layers, rows, heads, features, head_dim + 1].
    """

    name, capability = "performer", performer.capability

    def __init__(self, job: Job, layers: int, rows: int, length: int, features: Features = None,
                 drafted: int = 0) -> None:
        if drafted:
            raise ValueError("a sum over all keys cannot take tokens back")
        self._job, self._features = job, features or [performer.default_features(job)] * layers
        self.sums = torch.zeros(layers, rows, job.heads, len(self._features[0]), job.head_dim + 1, device=job.device)
        self._turns = rotations(length, job.head_dim, job.device) if job.spec.positions == "rope" else None

    @property
    def bytes(self) -> int:
        return self.sums.nbytes

    def fill(self, layer: int, keys: Tensor, values: Tensor, lengths: Tensor | None) -> None:
        sums = favor.final_state(keys, values, self._features[layer], self._job.scaling, lengths)
        self.sums[layer].copy_(sums.repeat_interleave(self.sums.shape[1] // len(keys), 0))

    def ready(self, position: Tensor) -> None:
        self._position = position[:, 0]

    def step(self, layer: int, qkv: Tensor) -> Tensor:
        query, key, value = qkv[:, 0].unbind(1)
        if self._turns is not None:
            query, key = (rotate(x, self._turns[self._position, None]) for x in (query, key))
        return favor.step(self.sums[layer], query, key, value, self._features[layer], self._job.scaling)[:, None]

    def reorder(self, rows: Tensor, beams: int, start: Tensor, most: int, count: Tensor) -> None:
        self.sums.copy_(self.sums.index_select(1, rows))
