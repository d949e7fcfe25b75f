"""Measures the benchmark, row by row, each on a fresh model. What is measured already is kept: a run can be cut off."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from headtohead.benchmark import contestants
from headtohead.benchmark.blocks import touched
from headtohead.benchmark.contestants import BenchmarkError
from headtohead.benchmark.plan import TRANSFORMERS, Plan, Task, tasks
from headtohead.benchmark.rows import (
    ABOUT,
    ROWS,
    Key,
    Row,
    key_of,
    key_of_task,
    read_about,
    read_rows,
    write_about,
    write_rows,
)
from headtohead.profiling import machine
from headtohead.profiling.kernel import captured
from headtohead.profiling.measurement import Measurement
from headtohead.profiling.memory import peak_memory
from headtohead.profiling.passes import no_room
from headtohead.profiling.timing import garbage_frozen, measure
from headtohead.progress import Bar, console

GRAPH_MS = 2.0  # attention is repeated in one CUDA graph for about so long, so that launching the graph does not count
DEVICE = ("gpu", "driver", "cuda", "processor", "cores", "python")
IDENTITY = ("commit", "device", "versions", "plan", "models", "variants")  # rows of another one are not kept


def gpu() -> torch.device:
    """The GPU to measure.

    Raises:
        BenchmarkError: there is none.
    """
    if not torch.cuda.is_available():
        raise BenchmarkError("the benchmark measures a CUDA GPU, and there is none here; "
                             "`h2h bench FOLDER --render` makes the page again from the FOLDER's rows")
    return torch.device("cuda", torch.cuda.current_device())


def run(folder: Path, plan: Plan, device: torch.device, *, commit: str, command: str) -> None:
    """Measure every row that FOLDER/bench.json lacks, and write it as soon as it is measured.

    Args:
        folder: rows there of the same commit, device, versions and plan are kept, all others measured again.
        commit: of the code that runs.
        command: what was typed; the page tells it.

    Raises:
        BenchmarkError: something that the plan names is not installed.
        DataError: a file in `folder` cannot be read.
    """
    contestants.check(plan)
    rows = _begin(folder, describe(plan, commit, command))
    order = {key_of_task(task, plan.dtype): task for task in tasks(plan)}
    rows = {key: row for key, row in rows.items() if key in order}
    with Bar("benchmark", total=len(order), done=len(rows)) as bar, garbage_frozen():
        for number, (key, task) in enumerate(order.items(), 1):
            if key in rows:
                continue
            bar.note(str(task))
            rows[key] = measured(task, plan, device)
            write_rows(folder, (rows[key] for key in order if key in rows))
            bar.advance()
            if not console.is_terminal:
                console.print(f"{number} of {len(order)}: {task}: {_told(rows[key])}", markup=False, highlight=False)


def describe(plan: Plan, commit: str, command: str) -> Row:
    """What FOLDER/about.json holds: nothing that changes from one run to the next on the same machine."""
    numbers = asdict(plan)
    found = machine.describe()
    return {"commit": commit, "command": command, "device": {name: found[name] for name in DEVICE},
            "versions": machine.versions(),
            "plan": {name: value for name, value in numbers.items() if isinstance(value, int | float | str)},
            "models": [asdict(model) | {"parameters": model.parameters(plan.vocabulary)} for model in plan.models],
            "variants": {name: spec.model_dump() for name, spec in plan.variants.items()},
            "headline": list(numbers["headline"])}


def _begin(folder: Path, about: Row) -> dict[Key, Row]:
    """The rows that are there and can be kept; about.json is then that of this run."""
    kept: list[Row] = []
    if (folder / ROWS).exists():
        kept = read_rows(folder)
        before = read_about(folder) if (folder / ABOUT).exists() else {}
        if changed := [name for name in IDENTITY if before.get(name) != about[name]]:
            console.print(f"{folder / ROWS} is from another {', '.join(changed)}: every row is measured again")
            kept = []
    write_rows(folder, kept)  # before about.json, or other rows would pass for this run's
    write_about(folder, about)
    return {key_of(row): row for row in kept}


def measured(task: Task, plan: Plan, device: torch.device) -> Row:
    """One row; its numbers are null where the device has no room for the work."""
    point, take = task.point, TAKES.get(task.point.work, _time)
    try:
        taken = take(task, plan, device)
    except Exception as error:
        if not no_room(error):
            raise
        taken = Taken(())
    _release(device)
    measurement = Measurement(point.work, point.batch, point.length, point.new_tokens, plan.dtype,
                              "MB" if point.work in ("peak_memory", "cache") else "ms", taken.samples, taken.backend)
    row: Row = {"model": task.model.name, "work": point.work, "variant": task.variant,
                "implementation": task.implementation, "batch": point.batch, "length": point.length,
                "new_tokens": point.new_tokens, "dtype": plan.dtype}
    if point.work == "generate":
        row |= {"beams": point.beams, "no_repeat_ngram": point.no_repeat_ngram}
    row |= measurement.spread
    share = touched(plan.variants[task.variant], point.length) if plan.family and point.work in ATTENTION else None
    optional = {"out_of_memory": measurement.out_of_memory, "runs": taken.runs, "backend": taken.backend,
                "share": share}
    return row | {name: value for name, value in optional.items() if value}


@dataclass(frozen=True)
class Taken:
    """Samples in milliseconds or MB, none if memory did not suffice.

    Args:
        backend: of attention, where it is ours.
        runs: that each sample of attention alone is a mean over.
    """

    samples: tuple[float, ...]
    backend: str | None = None
    runs: int | None = None


def _time(task: Task, plan: Plan, device: torch.device) -> Taken:
    """Forward, generation, a training step."""
    with torch.set_grad_enabled(task.point.work == "train_step"), _made_ready(task, plan, device) as ready:
        slow = task.point.work == "generate" and task.implementation in TRANSFORMERS
        samples = measure(ready.run, device, min_seconds=plan.min_seconds, warmup=1 if slow else plan.warmup,
                          min_repeats=plan.slow_repeats if slow else plan.min_repeats)
        return Taken(tuple(samples), ready.backend)


def _memory(task: Task, plan: Plan, device: torch.device) -> Taken:
    """The peak of a forward, weights and logits in it; what earlier rows left behind is taken off."""
    before = torch.cuda.memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
    with torch.no_grad(), _made_ready(task, plan, device) as ready:
        return Taken((peak_memory(ready.run, device) - before,), ready.backend)


def _cache(task: Task, plan: Plan, device: torch.device) -> Taken:
    """What the engine keeps of the sequences."""
    with torch.no_grad(), _made_ready(task, plan, device) as ready:
        return Taken((ready.run().bytes / 2**20,), ready.backend)


def _decode_step(task: Task, plan: Plan, device: torch.device) -> Taken:
    """The mean step after a prompt: all tokens, less the median of the prompt and the first token."""
    point = replace(task.point, work="generate")
    first = median(_time(replace(task, point=replace(point, new_tokens=1)), plan, device).samples)
    taken = _time(replace(task, point=point), plan, device)
    return replace(taken, samples=tuple((sample - first) / (point.new_tokens - 1) for sample in taken.samples))


def _attention(task: Task, plan: Plan, device: torch.device) -> Taken:
    """Attention alone. Its backward is forward and backward together, less the median of the same forward alone.

    A run goes through all layers that differ, and what is measured is divided by their number.
    """
    backward = task.point.work == "attention_backward"
    layers, backend = contestants.attention(task, plan, device)
    q, k, v = contestants.queries_keys_values(task, plan, device, backward)

    def forward() -> None:
        for attend in layers:
            attend(q, k, v)

    with torch.set_grad_enabled(backward):
        if backward:
            samples, runs = _backward(layers, (q, k, v), forward, plan, device), 1
        else:
            samples, runs = _repeated(forward, plan, device)
    return Taken(tuple(sample / len(layers) for sample in samples), backend, runs)


def _backward(layers: Sequence[contestants.Attention], qkv: tuple[Tensor, Tensor, Tensor],
              forward: Callable[[], None], plan: Plan, device: torch.device) -> list[float]:
    towards = torch.randn_like(qkv[0])

    def both() -> None:
        for attend in layers:
            torch.autograd.grad(attend(*qkv), qkv, towards)

    alone = median(_plainly(forward, plan, device))
    return [sample - alone for sample in _plainly(both, plan, device)]


ATTENTION = ("attention", "attention_backward")
TAKES: Mapping[str, Callable[[Task, Plan, torch.device], Taken]] = {
    **dict.fromkeys(ATTENTION, _attention), "peak_memory": _memory, "cache": _cache, "decode_step": _decode_step}


def _plainly(work: Callable[[], object], plan: Plan, device: torch.device) -> list[float]:
    """Without a graph, which autograd's own threads do not join; so only work that outlasts its launch can be timed."""
    return measure(work, device, min_repeats=plan.min_repeats, min_seconds=plan.min_seconds, warmup=plan.warmup)


def _repeated(work: Callable[[], object], plan: Plan, device: torch.device) -> tuple[list[float], int]:
    """Milliseconds of one `work`, each a mean over the runs that one CUDA graph holds, and how many those are."""
    runs = 1
    if device.type == "cuda":
        once, = measure(work, device, min_repeats=1, min_seconds=0.0, warmup=plan.warmup)
        runs = max(1, ceil(GRAPH_MS / once))

    def repeat() -> None:
        for _ in range(runs):
            work()

    replay = captured(repeat, device)
    samples = measure(replay, device, min_repeats=plan.min_repeats, min_seconds=plan.min_seconds, warmup=plan.warmup)
    return [sample / runs for sample in samples], runs


@contextmanager
def _made_ready(task: Task, plan: Plan, device: torch.device) -> Iterator[contestants.Ready]:
    ready = contestants.ready(task, plan, device)
    try:
        yield ready
    finally:
        ready.release()


def _told(row: Row) -> str:
    return "out of memory" if row["median"] is None else f"{row['median']:,.3f} {row['unit']}"


def _release(device: torch.device) -> None:
    """Give back what nothing refers to any more, so that the next row has room and the same start."""
    torch.compiler.reset()  # what was compiled for this row would count against the limit of the next ones
    gc.collect()
    if device.type == "cuda":
        torch._C._cuda_clearCublasWorkspaces()  # one for each stream that ever multiplied; they would add up
        torch.cuda.empty_cache()
