"""Attention alone: what a variant's kernels take, without the rest of the model and without launch gaps."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headtohead.attention.job import Job
from headtohead.attention.plan import plan
from headtohead.inference import graphs
from headtohead.models.gpt2 import features_of, layers_of
from headtohead.profiling.passes import Work

if TYPE_CHECKING:
    from headtohead.models.gpt2 import GPT2


def captured(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`run`, as a graph where there is CUDA."""
    return graphs.capture([run])[0] if device.type == "cuda" else run


def attention_alone(model: "GPT2", length: int, backend: str) -> Work:
    """One layer's attention over one sequence, by the backends that the model's pass takes at this length.

    A run goes through all of the model's layers, and its time is divided by their number: layers may differ, and a
    launch between CUDA's events takes as long as a short attention. What is made once for a pass (masks, biases) is
    made in the first run, and not timed.
    """
    @cache
    def ready() -> Callable[[], object]:
        return captured(_layers(model, length), model.device)

    @torch.inference_mode()  # as the engine: what is compiled for one mode is compiled again for another
    def run() -> None:
        ready()()

    return Work("attention", 1, length, 0, run, backend, times=model.config.n_layer)


def _layers(model: "GPT2", length: int) -> Callable[[], None]:
    heads, device, dtype = model.config.n_head, model.device, model.dtype
    q, k, v = _random_heads(heads, length, model.config.n_embd // heads, device, dtype)
    jobs = [Job(spec, device, dtype, heads, q.shape[-1], length, length, scale=scale)
            for spec, scale in layers_of(model.config)]
    plans = {job: plan(job, backend=model.config.attention_backend, table=model.config.attention_table) for job in jobs}
    layers = [(plans[job], features) for job, features in zip(jobs, features_of(model), strict=True)]

    def run() -> None:
        for planned, features in layers:
            planned(q, k, v, *features)

    return run


def _random_heads(heads: int, length: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys and values [1, heads, length, head_dim], lying in memory as one projection leaves them."""
    projected = torch.randn(1, length, 3, heads, head_dim, device=device).to(dtype)
    return [part.transpose(1, 2) for part in projected.unbind(2)]
