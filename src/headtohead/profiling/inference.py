"""What inference costs: forward, generation and attention alone, at the preset's lengths and swept over others."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headtohead import params
from headtohead.decoding.engine import Engine
from headtohead.decoding.search import generate
from headtohead.profiling import nvml
from headtohead.profiling.kernel import attention_alone
from headtohead.profiling.operations import top_operations
from headtohead.profiling.passes import Passes, Row, Work
from headtohead.profiling.timing import measure

if TYPE_CHECKING:
    from headtohead.models.gpt2 import GPT2

TRACED_TOKENS = 4  # generated under the profiler: enough to see decoding, few enough for a small trace
COUNTED_SECONDS = 1.0  # under NVML, whose counters are slow


def lengths_of(settings: params.Profile, length: int, limit: int | None) -> list[int]:
    """Where a forward pass is measured: the preset's own `length`, and all swept ones up to the model's `limit`."""
    return sorted({length, *(swept for swept in settings.lengths if limit is None or swept <= limit)})


def swept(settings: params.Profile, length: int, limit: int | None) -> list[tuple[int, int]]:
    """(batch, length) of each forward pass beside the preset's own, which is of batch 1."""
    return [(1, other) for other in lengths_of(settings, length, limit) if other != length] + [
        (batch, length) for batch in sorted(set(settings.batch_sizes) - {1})]


def measure_inference(model: "GPT2", prompt: Tensor, length: int, passes: Passes, trace: Path) -> tuple[Row, Row]:
    """Everything without gradients, of each thing first memory, then time: the flat numbers and details.

    Memory is read without CUDA graphs: a graph allocates when it is captured and nothing when it is replayed.
    """
    settings = passes.settings
    ready = _for_inference(model, passes.device, getattr(torch, settings.precision))
    with torch.no_grad(), _evaluating(ready):
        plain = Engine(ready, graphs=False)
        peaks = [passes.read_memory(work) for work in _apart(_own(plain, prompt[:, :length], settings), plain, passes)]
        for work in _apart(_sweep(plain, prompt, length, settings, ready.length_limit), plain, passes):
            passes.try_memory(work)
        flat, details = _timed(ready, prompt, length, passes)
        passes.on_progress("operations")
        details["operations"] = _operations(plain, prompt[:, :length], passes, trace)
    return flat | {"peak_memory_mb": round(max(peaks), 2)}, details


def _timed(model: "GPT2", prompt: Tensor, length: int, passes: Passes) -> tuple[Row, Row]:
    """Times, with CUDA graphs where there is CUDA, and the GPU's counters."""
    settings, engine = passes.settings, Engine(model)
    works = _own(engine, prompt[:, :length], settings)
    forward, generation, first_token = [passes.time(work) for work in works]
    passes.on_progress("the GPU's counters")
    counters = _counters(works[1], passes.device)
    engine.release()
    for work in _apart(_sweep(engine, prompt, length, settings, model.length_limit), engine, passes):
        passes.try_time(work)
    for other in lengths_of(settings, length, model.length_limit):
        passes.try_time(attention_alone(model, other, engine.backend_for(other)))
        passes.release()
    flat = {"forward_ms": round(forward, 4), "generate_ms": round(generation, 4),
            "first_token_ms": round(first_token, 4),
            "tokens_per_s": round(settings.new_tokens / generation * 1000, 2)}
    return flat, {"backend": engine.backend_for(length), "nvml": counters}


def _apart(works: list[Work], engine: Engine, passes: Passes) -> Iterator[Work]:
    """Each of them; after it the engine's graphs and caches go, so that none counts for another."""
    for work in works:
        yield work
        engine.release()
        passes.release()


def _for_inference(model: "GPT2", device: torch.device, dtype: torch.dtype) -> "GPT2":
    if model.device == device and model.dtype == dtype:
        return model
    ready: GPT2 = deepcopy(model).to(device=device, dtype=dtype)
    return ready


def _own(engine: Engine, prompt: Tensor, settings: params.Profile) -> list[Work]:
    """forward over the whole prompt; generation, and its first token alone, from a prompt that leaves room for it."""
    new_tokens, start = settings.new_tokens, prompt[:, :-settings.new_tokens]
    return [_forward(engine, prompt),
            Work("generate", 1, start.shape[1], new_tokens, lambda: generate(engine, start, max_new_tokens=new_tokens),
                 engine.generation_by(1, start.shape[1])),
            Work("first_token", 1, start.shape[1], 1, lambda: generate(engine, start, max_new_tokens=1))]


def _sweep(engine: Engine, prompt: Tensor, length: int, settings: params.Profile, limit: int | None) -> list[Work]:
    return [_forward(engine, prompt[:, :other].repeat(batch, 1)) for batch, other in swept(settings, length, limit)]


def _forward(engine: Engine, ids: Tensor) -> Work:
    """The next token's logits."""
    batch, length = ids.shape
    return Work("forward", batch, length, 0, lambda: engine.forward(ids), engine.backend_for(length))


def _operations(engine: Engine, prompt: Tensor, passes: Passes, trace: Path) -> list[Row]:
    """Of one forward and a few generated tokens. A replayed graph would show as one operation."""
    new_tokens = passes.settings.new_tokens

    def run() -> None:
        engine.forward(prompt)
        generate(engine, prompt[:, :-new_tokens], max_new_tokens=min(new_tokens, TRACED_TOKENS))

    run()  # or first-time costs come up on top
    return top_operations(run, passes.device, trace=trace)


def _counters(work: Work, device: torch.device) -> Row | None:
    """NVML while `work` runs over and over, in a pass of its own; None on the CPU."""
    if device.type != "cuda":
        return None
    runs: list[float] = []
    counted = nvml.watch(
        lambda: runs.extend(measure(work.run, device, min_repeats=1, min_seconds=COUNTED_SECONDS, warmup=0)),
        uuid=f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    return counted and {"work": work.name, "runs": len(runs)} | counted | {
        "energy_per_summary_j": _each(counted["energy_j"], len(runs))}


def _each(energy_j: float | None, runs: int) -> float | None:
    return None if energy_j is None else round(energy_j / runs, 3)


@contextmanager
def _evaluating(model: "GPT2") -> Iterator[None]:
    """Without dropout; afterwards as before."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)
