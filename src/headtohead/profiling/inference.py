"""What inference costs: forward, generation and attention alone, at the preset's lengths and swept over others."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headtohead import params
from headtohead.inference.engine import Engine, Recording
from headtohead.inference.lookup import ALONE
from headtohead.inference.search import Search, generate, search_for
from headtohead.profiling import nvml
from headtohead.profiling.kernel import attention_alone
from headtohead.profiling.operations import top_operations, write_empty
from headtohead.profiling.passes import Passes, Work, if_room
from headtohead.profiling.timing import measure

if TYPE_CHECKING:
    from headtohead.models.gpt2 import GPT2

TRACED_TOKENS = 4  # generated under the profiler: enough to see decoding, few enough for a small trace
LOOKUP_PASSES = 8  # timed together
COUNTED_SECONDS = 1.0  # under NVML, whose counters are slow


def lengths_of(settings: params.Profile, length: int, limit: int | None) -> list[int]:
    """Where a forward pass is measured: the preset's own `length`, and all swept ones up to the model's `limit`."""
    return sorted({length, *(swept for swept in settings.lengths if limit is None or swept <= limit)})


def measure_headline(model: "GPT2", prompt: Tensor, passes: Passes) -> None:
    """Forward, generation and first token at the preset's own length: first memory, then time.

    Memory is read without CUDA graphs: a graph allocates when it is captured and nothing when it is replayed.

    Args:
        prompt: [1, length] token ids.
    """
    with _for_inference(model, passes) as ready:
        for engine, take in ((Engine(ready, graphs=False), passes.memory), (Engine(ready), passes.time)):
            take(*_headline_works(engine, prompt, passes.settings), make_room=engine.release)
            engine.release()
            passes.release()


def measure_sweep(model: "GPT2", prompt: Tensor, length: int, passes: Passes, trace: Path) -> dict[str, Any]:
    """Forward (and generation, in a grid) at other sizes, attention alone, operations, and the GPU's counters.

    Args:
        prompt: [1, longest] token ids.
        length: the preset's own.

    Returns:
        The last two; the measurements are in `passes`.
    """
    settings, limit = passes.settings, model.length_limit
    with _for_inference(model, passes) as ready:
        plain, engine = Engine(ready, graphs=False), Engine(ready)
        for each, take in ((plain, passes.memory), (engine, passes.time)):
            for work in _sweep(each, prompt, length, settings, limit):
                take(work)
                each.release()  # so that one's graphs and caches do not count for another
                passes.release()
        for other in lengths_of(settings, length, limit):
            passes.time(attention_alone(ready, other, engine.backend_for(other)))
            passes.release()
        if engine.takes_back:
            passes.time(_lookup_pass(engine, prompt[:, :length - settings.new_tokens], settings.new_tokens),
                        make_room=engine.release)
            engine.release()
            passes.release()
        passes.announce("the GPU's counters")
        _, generation, _ = _headline_works(engine, prompt[:, :length], settings)
        counters = if_room(lambda: _counters(generation, passes.device))
        engine.release()
        passes.announce("operations")
        operations = if_room(lambda: _operations(plain, prompt[:, :length], passes, trace))
        if operations is None:
            write_empty(trace)
        return {"operations": operations or [], "nvml": counters}


@contextmanager
def _for_inference(model: "GPT2", passes: Passes) -> Iterator["GPT2"]:
    """The model on the device, in the precision to be measured, without dropout and gradients.

    In float32 it is the model itself, so that a copy does not count as its memory.
    """
    dtype = getattr(torch, passes.settings.precision)
    ready = (model if model.dtype == dtype else deepcopy(model)).to(device=passes.device, dtype=dtype)
    with torch.no_grad():
        yield ready.eval()


def _headline_works(engine: Engine, prompt: Tensor, settings: params.Profile) -> list[Work]:
    """forward over the whole prompt; generation, and only its first token, from a prompt that leaves room for it."""
    new_tokens, start = settings.new_tokens, prompt[:, :-settings.new_tokens]
    return [_forward(engine, prompt), _generation(engine, start, new_tokens),
            Work("first_token", 1, start.shape[1], 1, lambda: generate(engine, start, max_new_tokens=1))]


def _sweep(engine: Engine, prompt: Tensor, length: int, settings: params.Profile, limit: int | None) -> Iterator[Work]:
    """forward at other lengths in batches of 1, and at the preset's own in other batches.

    In a grid, forward at all these lengths in all these batches, and generation, whose tokens count for the length.
    One by one, so that the tokens of one do not count for the memory of another.
    """
    lengths, batches = lengths_of(settings, length, limit), sorted(set(settings.batch_sizes) - {1})
    sizes = [(1, other) for other in lengths if other != length] + [(batch, length) for batch in batches]
    if settings.grid:
        sizes += [(batch, other) for batch in batches for other in lengths if other != length]
    for batch, other in sizes:
        ids = prompt[:, :other].repeat(batch, 1)
        yield _forward(engine, ids)
        if settings.grid and other > settings.new_tokens:
            yield _generation(engine, ids[:, :-settings.new_tokens], settings.new_tokens)


def _forward(engine: Engine, ids: Tensor) -> Work:
    """The next token's logits."""
    batch, length = ids.shape
    return Work("forward", batch, length, 0, lambda: engine.forward(ids), engine.backend_for(length, batch))


def _generation(engine: Engine, ids: Tensor, new_tokens: int) -> Work:
    """Exactly so many new tokens after each prompt."""
    batch, length = ids.shape
    return Work("generate", batch, length, new_tokens, lambda: generate(engine, ids, max_new_tokens=new_tokens),
                engine.generation_by(length, batch))


def _lookup_pass(engine: Engine, ids: Tensor, new_tokens: int) -> Work:
    """A pass of prompt lookup for a single article; it takes the same time whatever it accepts, even when done."""
    @cache
    def search() -> "Recording[Search]":
        begun = search_for(engine, ids, None, new_tokens, 1, 0, None, ALONE)
        begun.replay(0)
        return begun

    @torch.inference_mode()
    def run() -> None:
        for _ in range(LOOKUP_PASSES):
            search().replay(1)

    return Work("lookup_pass", 1, ids.shape[1], 1 + ALONE, run, engine.generation_by(ids.shape[1]), LOOKUP_PASSES)


def _operations(engine: Engine, prompt: Tensor, passes: Passes, trace: Path) -> list[dict[str, Any]]:
    """Those of one forward pass and a few generated tokens. A replayed graph would show as one operation."""
    new_tokens = passes.settings.new_tokens

    def run() -> None:
        engine.forward(prompt)
        generate(engine, prompt[:, :-new_tokens], max_new_tokens=min(new_tokens, TRACED_TOKENS))

    run()  # otherwise first-time costs would dominate
    return top_operations(run, passes.device, trace=trace)


def _counters(work: Work, device: torch.device) -> dict[str, Any] | None:
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
