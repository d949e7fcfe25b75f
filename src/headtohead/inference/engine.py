"""Inference on a trained model: prompts in one pass, then token by token over a static cache, in CUDA graphs on a GPU.

Between the hundreds of small kernels of a pass, a GPU waits for Python. A CUDA graph launches them all at once, always
on the same memory, so everything here has fixed shapes, with one graph for each; `rounded` limits how many there are.
"""

import gc
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from headtohead.attention.decoding import choose_state, state_for, takes_back
from headtohead.attention.job import Job
from headtohead.attention.plan import Plan, named, plan
from headtohead.attention.spec import AttentionSpec
from headtohead.attention.states import State
from headtohead.inference.graphs import Part, capture
from headtohead.inference.network import Arithmetic, Network, Plain
from headtohead.models.gpt2 import GPT2, features_of, kinds_of, layers_of

WIDEST = 1280  # width up to which our kernel multiplies a few tokens as fast as cuBLAS, measured on an H100
KEPT = 8  # recordings at most; the least recently used one is released first


class Recordable(Protocol):
    """A program on its own tensors, whose first part resets them all."""

    def parts(self) -> list[Part]: ...


Program = TypeVar("Program", bound=Recordable)


@dataclass(frozen=True)
class Kind:
    """The layers of a model that compute the same attention, by number."""

    spec: AttentionSpec
    scale: float
    layers: tuple[int, ...]


class Cache:
    """What all layers keep of their sequences: one state for each kind of layer."""

    def __init__(self, states: list[State], places: list[tuple[int, int]]) -> None:
        self.states, self._places = states, places

    def of(self, layer: int) -> tuple[State, int]:
        """A layer's state, and the layer's number in it."""
        state, inside = self._places[layer]
        return self.states[state], inside

    def reorder(self, rows: Tensor, beams: int, start: Tensor, most: int, count: Tensor) -> None:
        """See `State.reorder`."""
        for state in self.states:
            state.reorder(rows, beams, start, most, count)

    @property
    def bytes(self) -> int:
        """The size of its memory."""
        return sum(state.bytes for state in self.states)


class Engine:
    """A model ready for inference.

    Args:
        model: in eval mode, on its device and in its dtype. On CUDA its weights are re-laid out in memory.
        graphs: whether to record CUDA graphs; by default, on CUDA. Without them the same kernels run one by one.

    Raises:
        BackendError (when it runs): the attention backend asked for cannot do the job, or is not installed.
    """

    def __init__(self, model: GPT2, graphs: bool | None = None) -> None:
        self.device, self.dtype, self.config = model.device, model.dtype, model.config
        self._limit = model.length_limit
        self.graphs = self.device.type == "cuda" if graphs is None else graphs
        self._asked, self._table = model.config.attention_backend, model.config.attention_table
        self._heads, self._head_dim = model.config.n_head, model.config.n_embd // model.config.n_head
        self._network, self._features = Network(model), features_of(model)
        layers = layers_of(model.config)
        self._kinds = [Kind(*kind, tuple(i for i, layer in enumerate(layers) if layer == kind))
                       for kind in kinds_of(model.config)]
        places: dict[int, tuple[int, int]] = {}  # of each layer: its kind, and its number among the layers of that kind
        for number, kind in enumerate(self._kinds):
            places |= {layer: (number, inside) for inside, layer in enumerate(kind.layers)}
        table = model.continuations  # without one, prompt lookup drafts from the article alone
        table = torch.zeros(model.config.vocab_size, 1) if table is None else table
        self.continuations = table.to(self.device, torch.int64)
        self._places = [places[layer] for layer in range(len(layers))]
        self._plans: dict[Hashable, Plan] = {}  # kept as long as graphs may use their memory
        self._recordings: OrderedDict[Hashable, Recording[Any]] = OrderedDict()
        self.takes_back = all(takes_back(kind.spec) for kind in self._kinds)  # tokens that turn out wrong

    @cached_property
    def decoder(self) -> str:
        """What computes attention token by token."""
        return " + ".join(dict.fromkeys(choose_state(self._job(kind, 1, 1, 2), self._asked) for kind in self._kinds))

    def backend_for(self, length: int, batch: int = 1) -> str:
        """What computes attention in a pass over `batch` sequences of `length` tokens."""
        return named((self._job(kind, batch, length, length) for kind in self._kinds), self._asked, self._table)

    def generation_by(self, length: int, batch: int = 1) -> str:
        """What computes attention in a pass over `batch` prompts of `length` tokens, and then token by token."""
        if self.graphs:
            batch, length = rounded(batch), rounded(length)
        jobs = (self._job(kind, batch, length, length, varied=True) for kind in self._kinds)
        prompts = named(jobs, self._asked, self._table)
        return f"{prompts}, then {self.decoder}"

    @torch.inference_mode()
    def forward(self, ids: Tensor) -> Tensor:
        """The next token's logits after prompts of equal length.

        Args:
            ids: [batch, length] on the model's device, without padding.

        Returns:
            Logits [batch, vocabulary]; on CUDA the next call overwrites them.
        """
        recording = self.recording(("forward", *ids.shape), lambda: Pass(self, *ids.shape))
        recording.program.ids.copy_(ids)
        recording.replay(0)
        return recording.program.out

    def prefill(self, ids: Tensor, lengths: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Logits [batch, vocabulary] after prompts [batch, length], whose keys and values go into the cache.

        Args:
            lengths: int64 [batch], the prompts' lengths, padding being on the right; None if all fill their rows.
        """
        batch, length = ids.shape
        self.check_length(length if lengths is None else 1)
        position = torch.arange(length, device=self.device).expand_as(ids)
        if lengths is not None:  # the padding must stay within the positions
            position = torch.minimum(position, lengths[:, None] - 1)
        plans = [self._plan(kind, batch, length, varied=cache is not None) for kind in self._kinds]

        def attention(layer: int, qkv: Tensor) -> Tensor:
            query, key, value = qkv.view(batch, length, 3, self._heads, self._head_dim).permute(2, 0, 3, 1, 4)
            planned = plans[self._places[layer][0]]
            query, key = planned.placed(query, key)
            if cache is not None:
                state, inside = cache.of(layer)
                state.fill(inside, key, value, lengths)
            attended: Tensor = planned.kernel(query, key, value, *self._features[layer])
            return attended.transpose(1, 2).reshape(len(qkv), -1)

        last = length * torch.arange(batch, device=self.device) + (length if lengths is None else lengths) - 1
        return self._pass(ids.reshape(-1), position.reshape(-1), attention, last)

    def decode(self, ids: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """Logits [rows, tokens, vocabulary], each after one more token of its row.

        Args:
            ids, positions: [rows, tokens], the tokens and their positions in their rows, padding not counted. If there
                are several, the cache was made for as many drafted ones; those beyond a position table have its last
                position, and mean nothing.
        """
        for state in cache.states:
            state.ready(positions)

        def attention(layer: int, qkv: Tensor) -> Tensor:
            state, inside = cache.of(layer)
            return state.step(inside, qkv.view(*ids.shape, 3, self._heads, self._head_dim)).reshape(len(qkv), -1)

        return self._pass(ids.reshape(-1), positions.reshape(-1), attention).view(*ids.shape, -1)

    def _pass(self, ids: Tensor, positions: Tensor, attention: Callable[[int, Tensor], Tensor],
              last: Tensor | None = None) -> Tensor:
        """All layers; after the last layer's attention, only the tokens `last` go on, or all."""
        arithmetic = self._arithmetic(len(ids))
        x = arithmetic.embed(ids, positions)
        *blocks, final = enumerate(self._network.blocks)
        for index, block in blocks:
            x = arithmetic.after_attention(x, attention(index, arithmetic.before_attention(x, block)), block)
        index, block = final
        attended = attention(index, arithmetic.before_attention(x, block))
        if last is not None:
            x, attended = x[last], attended[last]
        return arithmetic.logits(arithmetic.after_attention(x, attended, block))

    def _arithmetic(self, tokens: int) -> Arithmetic:
        """How to compute a pass over `tokens` tokens."""
        if self.device.type != "cuda":
            return Plain(self._network)
        from headtohead.inference.fused import FewTokens, Fused  # Triton is installed only with CUDA
        from headtohead.kernels.layers import FEW

        several = self.dtype.itemsize == 2 and self.config.n_embd <= WIDEST  # matrix units take no float32
        few = FEW if several else 1
        return FewTokens(self._network) if tokens <= few else Fused(self._network)

    def cache(self, rows: int, length: int, drafted: int = 0) -> Cache:
        """Room for `rows` sequences of `length` tokens, and for as many `drafted` ones, which may turn out wrong."""
        states = []
        for kind in self._kinds:
            features = [one for layer in kind.layers for one in self._features[layer]]
            states.append(state_for(self._job(kind, rows, 1 + drafted, length + drafted), len(kind.layers), rows,
                                    length + drafted, self._asked, features, drafted))
        return Cache(states, self._places)

    def check_length(self, tokens: int) -> None:
        """Raise ValueError if there are more tokens than positions. (A GPU would read beyond the table.)"""
        if self._limit is not None and tokens > self._limit:
            raise ValueError(f"{tokens:,} tokens are more than the model's {self._limit:,} positions")

    def _plan(self, kind: Kind, batch: int, length: int, varied: bool) -> Plan:
        job = self._job(kind, batch, length, length, varied)
        if job not in self._plans:
            self._plans[job] = plan(job, None, self._asked, self._table)
        return self._plans[job]

    def _job(self, kind: Kind, batch: int, queries: int, keys: int, varied: bool = False) -> Job:
        return Job(kind.spec, self.device, self.dtype, self._heads, self._head_dim, queries, keys, scale=kind.scale,
                   batch=batch, varied=varied)

    def recording(self, key: Hashable, make: Callable[[], Program]) -> "Recording[Program]":
        """The recording under `key`; made if there is none yet."""
        if key not in self._recordings:
            while len(self._recordings) >= (KEPT if self.graphs else 1):
                self._recordings.popitem(last=False)
            self._recordings[key] = self._record(make)
        self._recordings.move_to_end(key)
        return self._recordings[key]

    def _record(self, make: Callable[[], Program]) -> "Recording[Program]":
        """If memory runs out, release all other recordings and try again."""
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
        self._plans.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class Pass:
    """One forward pass over prompts of one shape."""

    def __init__(self, engine: Engine, batch: int, length: int) -> None:
        self._engine = engine
        self.ids = torch.zeros(batch, length, dtype=torch.int64, device=engine.device)
        self.out = torch.empty(batch, engine.config.vocab_size, dtype=engine.dtype, device=engine.device)

    def parts(self) -> list[Part]:
        return [self._run]

    def _run(self) -> None:
        self.out.copy_(self._engine.prefill(self.ids))


class Recording(Generic[Program]):
    """A program whose parts are replayed: as CUDA graphs, or by calling them if there are no graphs."""

    def __init__(self, program: Program, graphs: bool) -> None:
        self.program = program
        self._replays = capture(program.parts()) if graphs else program.parts()

    def replay(self, part: int) -> None:
        self._replays[part]()


def rounded(count: int) -> int:
    """The next of eight sizes in each doubling (64, 72, ... 120, 128, 144, ...): at most an eighth is wasted."""
    step = max(1, 1 << max(0, (count - 1).bit_length() - 4))
    return -(-count // step) * step
