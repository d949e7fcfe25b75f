"""Inference on a trained model: prompts in one pass, then token by token over a static cache, in CUDA graphs on a GPU.

A GPU waits for Python between the hundreds of small kernels of a pass; a CUDA graph launches them all at once, always
on the same memory. So everything here has fixed shapes, and there is one graph for each: `rounded` bounds how many.
"""

import gc
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from headtohead.attention.capability import Job
from headtohead.attention.dispatch import choose
from headtohead.decoding.cache import Cache
from headtohead.decoding.decoders import choose_decoder
from headtohead.decoding.graphs import Part, captured
from headtohead.decoding.network import Network
from headtohead.models.gpt2 import GPT2

KEPT = 8  # recordings at once; the one that was used longest ago gives up its memory


class Recordable(Protocol):
    """Work on tensors of its own, the first part of which sets them all anew."""

    def parts(self) -> list[Part]: ...


Work = TypeVar("Work", bound=Recordable)


class Engine:
    """A model ready for inference.

    Args:
        model: in eval mode, on its device and in its dtype. On CUDA its weights are laid out anew in memory.
        graphs: whether to record CUDA graphs; by default on CUDA. Without them the same kernels run one by one.

    Raises:
        BackendError: the attention backend asked for cannot do the job, or is not installed.
    """

    def __init__(self, model: GPT2, graphs: bool | None = None) -> None:
        self.device, self.dtype, self.spec, self.config = model.device, model.dtype, model.variant, model.config
        self.graphs = self.device.type == "cuda" if graphs is None else graphs
        self._asked = model.config.attention_backend
        self._heads, self._head_dim = model.config.n_head, model.config.n_embd // model.config.n_head
        self._network = Network(model)
        self._decoder = choose_decoder(self._job(1, 2, padded=True), self._heads, self._asked)
        self._recordings: OrderedDict[Hashable, Recording[Any]] = OrderedDict()

    def backend_for(self, length: int, padded: bool = False) -> str:
        """The attention backend of a pass over so many tokens."""
        return choose(self._job(length, length, padded), self._asked).backend.name

    @property
    def decoder(self) -> str:
        """What computes attention while decoding."""
        return self._decoder.name

    def generation_by(self, batch: int, length: int, padded: bool = False) -> str:
        """What computes attention in a pass over so many prompts of that length, and then token by token."""
        if self.graphs:
            padded, length = padded or (rounded(batch), rounded(length)) != (batch, length), rounded(length)
        return f"{self.backend_for(length, padded)}, then {self.decoder}"

    @torch.inference_mode()
    def forward(self, ids: Tensor) -> Tensor:
        """What comes after prompts of equal length.

        Args:
            ids: [batch, length] on the model's device, without padding.

        Returns:
            Logits [batch, vocabulary] of each prompt's next token; on CUDA the next call writes over them.
        """
        recording = self.recording(("forward", *ids.shape), lambda: Pass(self, *ids.shape))
        recording.work.ids.copy_(ids)
        recording.replay(0)
        return recording.work.out

    def prefill(self, ids: Tensor, left_padding: Tensor | None, cache: Cache | None) -> Tensor:
        """Logits [batch, vocabulary] after prompts [batch, length]; their keys and values go into the cache."""
        batch, length = ids.shape
        position = torch.arange(length, device=self.device)
        where = position.expand_as(ids) if left_padding is None else (position - left_padding[:, None]).clamp(min=0)
        backend = choose(self._job(length, length, left_padding is not None), self._asked).backend
        prepared = backend.prepare(self.spec, self._heads, length, length, left_padding, self.device)
        if cache is not None:
            rows = None if left_padding is None else left_padding.repeat_interleave(cache.rows // batch)
            self._decoder.begin(cache, rows)

        def attention(index: int, qkv: Tensor, scale: float) -> Tensor:
            split = qkv.view(batch, length, 3, self._heads, self._head_dim)
            query, key, value = split.permute(2, 0, 3, 1, 4)
            if cache is not None:
                cache.fill(index, key, value)
            return backend.run(query, key, value, self.spec, prepared, scale).transpose(1, 2).reshape(len(qkv), -1)

        return self._pass(ids.reshape(-1), where.reshape(-1), attention, batch)

    def decode(self, ids: Tensor, positions: Tensor, now: Tensor, left_padding: Tensor | None, cache: Cache) -> Tensor:
        """Logits [rows, vocabulary] after one more token in each row.

        Args:
            ids: [rows].
            positions: [rows], the tokens' own, without padding.
            now: int64 [1], their position in the cache, padding counted.
            left_padding: [rows] or None.
        """
        prepared = self._decoder.prepare(cache, now, left_padding)

        def attention(index: int, qkv: Tensor, scale: float) -> Tensor:
            split = qkv.view(len(ids), 3, self._heads, self._head_dim)
            return self._decoder.run(split, index, cache, now, prepared, scale).reshape(len(ids), -1)

        return self._pass(ids, positions, attention, len(ids))

    def _pass(self, ids: Tensor, positions: Tensor, attention: Callable[[int, Tensor, float], Tensor],
              batch: int) -> Tensor:
        """All layers; from the last layer's attention on for each sequence's last token alone."""
        x = self._network.embed(ids, positions)
        arithmetic = self._network.arithmetic(len(ids))
        *layers, final = enumerate(self._network.layers)
        for index, layer in layers:
            x = arithmetic.leave(x, attention(index, arithmetic.enter(x, layer), layer.scale), layer)
        index, layer = final
        attended = attention(index, arithmetic.enter(x, layer), layer.scale)
        x, attended = (part.view(batch, -1, part.shape[-1])[:, -1].contiguous() for part in (x, attended))
        return arithmetic.logits(arithmetic.leave(x, attended, layer))

    def cache(self, rows: int, length: int) -> Cache:
        """Room for so many rows of so many tokens."""
        return Cache(self.spec.reach if self._decoder.ring else None, layers=len(self._network.layers), rows=rows,
                     heads=self._heads, length=length, head_dim=self._head_dim, device=self.device, dtype=self.dtype)

    def recording(self, key: Hashable, make: Callable[[], Work]) -> "Recording[Work]":
        """The recorded work of that key; made where there is none yet."""
        if key not in self._recordings:
            while len(self._recordings) >= (KEPT if self.graphs else 1):
                self._recordings.popitem(last=False)
            self._recordings[key] = self._record(make)
        self._recordings.move_to_end(key)
        return self._recordings[key]

    def _record(self, make: Callable[[], Work]) -> "Recording[Work]":
        """If memory runs out, the others have to go."""
        try:
            return Recording(make(), self.graphs)
        except torch.OutOfMemoryError:
            if not self._recordings:
                raise
        self.release()
        return Recording(make(), self.graphs)

    def release(self) -> None:
        """Give back the memory of all recordings."""
        self._recordings.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _job(self, queries: int, keys: int, padded: bool) -> Job:
        return Job(self.spec, self.device, self.dtype, self._head_dim, queries, keys, padded=padded)


class Pass:
    """One forward pass over prompts of one shape."""

    def __init__(self, engine: Engine, batch: int, length: int) -> None:
        self._engine = engine
        self.ids = torch.zeros(batch, length, dtype=torch.int64, device=engine.device)
        self.out = torch.empty(batch, engine.config.vocab_size, dtype=engine.dtype, device=engine.device)

    def parts(self) -> list[Part]:
        return [self._run]

    def _run(self) -> None:
        self.out.copy_(self._engine.prefill(self.ids, None, None))


class Recording(Generic[Work]):
    """The parts of some work, each in a CUDA graph, or as they are where there are to be none."""

    def __init__(self, work: Work, graphs: bool) -> None:
        self.work = work
        self._replays = captured(work.parts()) if graphs else work.parts()

    def replay(self, part: int) -> None:
        self._replays[part]()


def rounded(count: int) -> int:
    """The next of eight sizes in each doubling (64, 72, ... 120, 128, 144, ...): at most an eighth is wasted."""
    step = max(1, 1 << max(0, (count - 1).bit_length() - 4))
    return -(-count // step) * step
