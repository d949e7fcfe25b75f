"""Everything that `h2h doctor` says, as data."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from math import isfinite, nan
from typing import Any

import torch

from headtohead.attention.decoding import STATES, explain_state
from headtohead.attention.job import BackendError, Capability, Job
from headtohead.attention.plan import BACKENDS, choose
from headtohead.attention.table import Table
from headtohead.doctor import facts
from headtohead.doctor.facts import Fact, Model, first_line
from headtohead.doctor.rounding import Errors, compare, compare_decoding
from headtohead.params import Params
from headtohead.profiling.machine import measured_here
from headtohead.records import DataError

WORKS = FORWARD, TRAINING, PROMPT, DECODING = "forward", "training", "prompt", "decoding"
LONGEST = 250  # keys of a check at most; no multiple of a kernel's tiles


@dataclass(frozen=True)
class Choice:
    """What will run one kind of work of a variant, and why; several if its layers differ, none if nothing can."""

    variant: str
    work: str
    backends: list[str]
    why: str


@dataclass(frozen=True)
class Check:
    """What one backend computed for one kind of work, over some variants.

    Args:
        needed: whether the run of params.yaml uses it; a prompt is tried as a forward pass.
        error, allowed: see `rounding.Errors`; of the variant that is furthest beyond what is allowed.
        wrong: what is wrong, by variant.
    """

    backend: str
    work: str
    dtype: str
    needed: bool
    variants: list[str]
    error: float
    allowed: float
    wrong: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """All of it.

    Args:
        conditions: of the choices and checks.
    """

    conditions: str
    facts: list[Fact]
    choices: list[Choice]
    checks: list[Check]
    compared: list[str]

    @property
    def broken(self) -> list[str]:
        """What the run of params.yaml needs and does not work."""
        facts = [f"{fact.name}: {fact.problem}" for fact in self.facts if fact.broken]
        lacking: dict[tuple[str, str], list[str]] = {}
        for choice in self.choices:
            if not choice.backends and choice.variant in self.compared:
                lacking.setdefault((choice.work, choice.why), []).append(choice.variant)
        nothing = [f"{work} of {', '.join(variants)}: {why}" for (work, why), variants in lacking.items()]
        wrong = [f"{check.work} by {check.backend}, {variant}: {problem}" for check in self.checks if check.needed
                 for variant, problem in check.wrong.items() if variant in self.compared]
        return [*facts, *nothing, *wrong]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in which no number is infinite or missing: those of a check that failed are null."""
        found = asdict(self)
        for check in found["checks"]:
            check |= {name: check[name] if isfinite(check[name]) else None for name in ("error", "allowed")}
        return {**found, "broken": self.broken}


def diagnose(params: Params, on_check: Callable[[str], None] = lambda what: None) -> Diagnosis:
    """Look at the machine, and try every backend that can run here on every variant of params.yaml.

    Args:
        on_check: called with what is tried next.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = [*facts.machine(device), *facts.software(device), *facts.inputs(params)]
    try:
        model = facts.shape(params)
    except (DataError, OSError, ValueError) as error:
        found.append(Fact("model", str(params.chosen.model.pretrained), str(error), broken=True))
        return Diagnosis("", found, [], [], params.compared)
    jobs = Jobs(params, model, device)
    table = measured_here()
    choices = [_choice(jobs, name, work, params.asked_backend, table) for name in params.variants for work in WORKS]
    length = params.chosen.tokenizer.max_length
    return Diagnosis(f"preset {params.preset}: {model.heads} heads of {model.head_dim}, {length:,} tokens, on {device}",
                     found, choices, list(_checks(jobs, choices, params.compared, on_check)), params.compared)


class Jobs:
    """What the preset asks of attention, for each variant and work: one job for each kind of layer."""

    def __init__(self, params: Params, model: Model, device: torch.device) -> None:
        preset = params.chosen
        self._variants, self._model, self.device = params.variants, model, device
        self.length = preset.tokenizer.max_length
        self.dtypes = {FORWARD: preset.profile.precision, TRAINING: preset.train.precision,
                       PROMPT: preset.generate.precision, DECODING: preset.generate.precision}

    def of(self, variant: str, work: str, length: int) -> list[Job]:
        layers = dict.fromkeys(self._variants[variant].depth(self._model.layers))
        return [Job(layer, self.device, getattr(torch, self.dtypes[work]), self._model.heads, self._model.head_dim,
                    1 if work == DECODING else length, length, backward=work == TRAINING, batch=2,
                    varied=work == PROMPT) for layer in layers]


def _choice(jobs: Jobs, variant: str, work: str, asked: str | None, table: Table) -> Choice:
    """As the model and the inference engine choose, for one sequence."""
    backends, why = [], []
    try:
        for job in jobs.of(variant, work, jobs.length):
            if work == DECODING:
                name, reason = explain_state(job, asked)
            else:
                chosen = choose(replace(job, batch=1), asked, table)
                name, reason = chosen.backend.name, chosen.why
            backends.append(name)
            why.append(reason)
    except BackendError as error:
        return Choice(variant, work, [], str(error).partition(f" on {jobs.device}: ")[2] or str(error))
    return Choice(variant, work, list(dict.fromkeys(backends)), " | ".join(dict.fromkeys(why)))


def _checks(jobs: Jobs, choices: list[Choice], compared: list[str], on_check: Callable[[str], None]) -> Iterator[Check]:
    """Every backend that can run here on the run's variants, and on each of the others what was chosen for it."""
    length, done = min(jobs.length, LONGEST), dict[tuple[Job, str], Errors | str]()
    for work in (FORWARD, TRAINING, DECODING):
        chosen: dict[str, set[str]] = {}
        for choice in choices:
            if choice.work == work or (choice.work, work) == (PROMPT, FORWARD):
                chosen.setdefault(choice.variant, set()).update(choice.backends)
        for backend in sorted({*(STATES if work == DECODING else BACKENDS)} - {"reference"}):
            found: dict[str, Errors | str] = {}
            for variant, backends in chosen.items():
                if variant not in compared and backend not in backends:
                    continue
                for job in jobs.of(variant, work, length):
                    if _capability(backend, work).unsupported(job):
                        continue
                    if (job, backend) not in done:
                        on_check(f"{work} by {backend}: {variant}")
                        done[job, backend] = _tried(job, backend, work)
                    found[variant] = _worse(found.get(variant), done[job, backend])
            if found:
                needed = any(backend in chosen[variant] for variant in compared)
                yield _check(backend, work, jobs.dtypes[work], needed, found)


def _capability(backend: str, work: str) -> Capability:
    return STATES[backend][0] if work == DECODING else BACKENDS[backend].capability


def _tried(job: Job, backend: str, work: str) -> Errors | str:
    """The errors, or what stopped it."""
    try:
        return compare_decoding(job, backend) if work == DECODING else compare(job, backend)
    except Exception as error:  # whatever a compiler or a driver says is what is wrong
        return first_line(error)


def _worse(one: Errors | str | None, other: Errors | str) -> Errors | str:
    if one is None or isinstance(other, str):
        return other
    return one if isinstance(one, str) or one.share >= other.share else other


def _check(backend: str, work: str, dtype: str, needed: bool, found: dict[str, Errors | str]) -> Check:
    numbers = [errors for errors in found.values() if isinstance(errors, Errors)]
    worst = max(numbers, key=lambda errors: errors.share, default=Errors(nan, nan))
    wrong = {name: problem for name, errors in found.items()
             if (problem := errors if isinstance(errors, str) else errors.problem)}
    return Check(backend, work, dtype, needed, list(found), worst.error, worst.allowed, wrong)
