"""`h2h doctor --measure`: how long a whole pass takes here with each backend that computes the same function.

A pass runs as it will run: the preset's model in the inference engine, on a GPU as a CUDA graph. Only what errs no more
than rounding allows is timed.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import median
from time import monotonic

import torch
from torch import Tensor

from headtohead.attention.job import Job
from headtohead.attention.plan import alternatives, choose
from headtohead.attention.spec import AttentionSpec
from headtohead.attention.table import Size, Table, Time, same_work
from headtohead.doctor.facts import Model, first_line
from headtohead.doctor.rounding import compare
from headtohead.inference.engine import Engine, rounded
from headtohead.models.gpt2 import GPT2, from_scratch
from headtohead.params import Model as Settings
from headtohead.params import Params, Preset
from headtohead.profiling.inference import lengths_of
from headtohead.profiling.passes import no_room
from headtohead.profiling.timing import garbage_frozen, measure

ROUNDS = 7  # in each of which every backend has its turn
REPEATS, SECONDS = 3, 0.03  # of a turn, at least
STD = 0.02  # of fresh weights; time does not depend on them
CHECKED = 2048  # keys at most, when results are compared with the float32 reference
NO_ROOM = "no room in memory"


@dataclass(frozen=True)
class Task:
    """A size to measure: `job` is one layer's, varied for a prompt, and all of the model's layers compute it."""

    variant: str
    job: Job


def tasks(params: Params, model: Model, device: torch.device) -> list[Task]:
    """What there is to choose in a run of these parameters: sizes for which several backends compute the same.

    The preset's own length comes first. Layers that several variants share are there once.
    """
    found: dict[tuple[object, ...], Task] = {}
    for variant in params.compared:
        for spec in dict.fromkeys(params.variants[variant].depth(model.layers)):
            for dtype, batch, length, prompt in _sizes(params.chosen, spec, model):
                job = Job(spec, device, getattr(torch, dtype), model.heads, model.head_dim, length, length, batch=batch,
                          varied=prompt)
                if len(alternatives(job)) > 1:
                    found.setdefault((str(same_work(spec)), dtype, batch, length), Task(variant, job))
    return list(found.values())


def _sizes(preset: Preset, spec: AttentionSpec, model: Model) -> Iterator[tuple[str, int, int, bool]]:
    """Precision, batch size, length and whether it is a prompt: what `profile` measures, then what `generate` does.

    A prompt's sizes are rounded as the engine does on a GPU. Those of test articles vary, so half of the longest is
    measured, too: between two sizes with the same winner that one is taken.
    """
    profile, own = preset.profile, preset.tokenizer.max_length
    lengths = lengths_of(profile, own, model.positions if spec.positions == "learned" else None)
    batches = sorted({1, *profile.batch_sizes})
    for batch, length in [(1, own), *((batch, own) for batch in batches), *((1, length) for length in lengths)]:
        yield profile.precision, batch, length, False
    if profile.grid:
        for batch in batches:
            yield from ((profile.precision, batch, length, False) for length in lengths)
    yield profile.precision, 1, rounded(own - profile.new_tokens), True
    longest = own - preset.generate.max_new_tokens
    for length in (longest, longest // 2):
        yield preset.generate.precision, rounded(preset.generate.batch_size), rounded(max(1, length)), True


def run(todo: Iterable[Task], model: Model, table: Table, save: Callable[[Table], None], seconds: float | None,
        on_task: Callable[[Task], object] = lambda task: None) -> Table:
    """Measure what the table does not have yet.

    Args:
        save: called with the table after each size, so that an interruption loses one at most.
        seconds: no size is begun after so many; None if there is no limit.
        on_task: called before each size.
    """
    started = monotonic()
    left = [task for task in todo if not table.has(task.job)]
    for _, group in groupby(left, key=lambda task: (task.job.spec, task.job.dtype)):
        bench: Bench | None = None
        for task in group:
            if seconds is not None and monotonic() - started > seconds:
                return table
            on_task(task)
            bench = bench or Bench(task.job, model)
            with garbage_frozen():
                table = table.with_size(task.job, bench.size(task.job))
            save(table)
    return table


class Bench:
    """The preset's model with fresh weights, whose layers all compute the same, and an engine for each backend."""

    def __init__(self, job: Job, model: Model) -> None:
        torch._dynamo.reset()  # what is compiled for other layers counts towards a limit
        settings = Settings(pretrained=None, layers=model.layers, width=model.heads * model.head_dim, heads=model.heads,
                            init_std=STD, position_init_std=STD, dropout=0.0)
        with job.device:
            fresh = from_scratch(job.spec, settings, vocab_size=model.vocabulary, end_of_text=0, seed=0,
                                 max_length=rounded(model.positions))  # for prompts that are rounded up
        self._model: GPT2 = fresh.to(job.device, job.dtype).eval()
        # All before the first pass: on a GPU an engine moves the weights, and graphs keep to where they were.
        self._engines = {name: self._engine(name) for name in alternatives(replace(job, varied=False))}
        self._wrong: dict[tuple[str, int], str | None] = {}

    def _engine(self, backend: str) -> Engine:
        self._model.config.attention_backend = backend
        return Engine(self._model)

    def size(self, job: Job) -> Size:
        """The time of each backend that computes the job rightly and has room for it."""
        ids = torch.ones(job.batch, job.keys, dtype=torch.int64, device=job.device)
        left_out: dict[str, str] = {}
        for name in alternatives(job):
            if problem := self._is_wrong(job, name) or _fails(self._engines[name], ids):
                left_out[name] = problem
        rounds: dict[str, list[float]] = {name: [] for name in alternatives(job) if name not in left_out}
        for number in range(ROUNDS):
            for name in list(rounds)[::-1 if number % 2 else 1]:  # so that drift cancels
                rounds[name].append(_turn(self._engines[name], ids))
        for engine in self._engines.values():
            engine.release()
        return Size(batch=job.batch, length=job.keys, forward=choose(replace(job, varied=False)).backend.name,
                    prompt=choose(replace(job, varied=True)).backend.name, left_out=left_out,
                    times={name: Time(median=median(taken), low=min(taken), high=max(taken))
                           for name, taken in rounds.items()})

    def _is_wrong(self, job: Job, backend: str) -> str | None:
        """How a backend breaks the rounding rule at the job's length, or what stopped it; None if it is right."""
        keys = min(job.keys, CHECKED)
        if (backend, keys) not in self._wrong:
            self._wrong[backend, keys] = _problem(replace(job, batch=1, queries=keys, keys=keys), backend)
        return self._wrong[backend, keys]


def _problem(job: Job, backend: str) -> str | None:
    try:
        return compare(job, backend).problem
    except Exception as error:  # whatever a compiler or a driver says is what is wrong
        return first_line(error)


def _fails(engine: Engine, ids: Tensor) -> str | None:
    """What stops the first pass, which compiles kernels and records the graph; None if nothing does."""
    try:
        engine.forward(ids)
    except Exception as error:  # as above
        problem = NO_ROOM if no_room(error) else first_line(error)
    else:
        return None
    engine.release()  # not in the handler: the traceback keeps tensors alive
    return problem


def _turn(engine: Engine, ids: Tensor) -> float:
    return median(measure(lambda: engine.forward(ids), engine.device, min_repeats=REPEATS, min_seconds=SECONDS,
                          warmup=1))
