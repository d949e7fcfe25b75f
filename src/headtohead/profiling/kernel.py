"""Attention alone: what a variant's kernel takes, without the rest of the model and without launch gaps."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headtohead.attention.dispatch import Backend, Job, choose
from headtohead.attention.spec import AttentionSpec
from headtohead.decoding import graphs
from headtohead.profiling.passes import Work

if TYPE_CHECKING:
    from headtohead.models.gpt2 import GPT2


def captured(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`run`, as a graph where there is CUDA."""
    return graphs.captured([run])[0] if device.type == "cuda" else run


def attention_alone(model: "GPT2", length: int, backend: str) -> Work:
    """One layer's attention over one sequence, by the backend that the model's pass takes at this length.

    A run goes through as many layers as the model has: a launch between CUDA's events takes as long as a short
    attention. What belongs to no layer (masks, biases) is prepared once, in the first run, and not timed.
    """
    @cache
    def ready() -> Callable[[], object]:
        return captured(_layers(model, length, backend), model.device)

    @torch.inference_mode()  # as the engine: what is compiled for one mode is compiled anew for another
    def run() -> None:
        ready()()

    return Work("attention", 1, length, 0, run, backend, times=model.config.n_layer)


def _layers(model: "GPT2", length: int, name: str) -> Callable[[], None]:
    spec, heads, layers, device = model.variant, model.config.n_head, model.config.n_layer, model.device
    q, k, v = _random_heads(heads, length, model.config.n_embd // heads, device, model.dtype)
    backend = _backend(spec, q, name)
    prepared, scale = backend.prepare(spec, heads, length, length, None, device), q.shape[-1] ** -0.5

    def run() -> None:
        for _ in range(layers):
            backend.run(q, k, v, spec, prepared, scale)

    return run


def _backend(spec: AttentionSpec, q: Tensor, name: str) -> Backend:
    length, head_dim = q.shape[-2:]
    return choose(Job(spec, q.device, q.dtype, head_dim, length, length), name).backend


def _random_heads(heads: int, length: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values [1, heads, length, head_dim], lying in memory as one projection leaves them."""
    projected = torch.randn(1, length, 3, heads, head_dim, device=device).to(dtype)
    return [part.transpose(1, 2) for part in projected.unbind(2)]
