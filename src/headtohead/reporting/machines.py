"""On which kinds of machines trainings ran and times were taken: named wherever there are several."""

from collections.abc import Iterable
from typing import Any

from headtohead.reporting.results import Results, Training, Variant
from headtohead.reporting.tables import NOTHING, Table, joined, spans

UNKNOWN = "not recorded"  # by models that were trained before it was


def trained(results: Results) -> Table:
    """What the trainings ran on: a row for each kind of machine and what computed the attention there."""
    rows: dict[tuple[str, str], dict[str, list[int]]] = {}
    for variant in results.variants:
        for training in variant.trainings:
            backend = training.trained_on["backend"] if training.trained_on else NOTHING
            rows.setdefault((_kind(training), backend), {}).setdefault(variant.name, []).append(training.seed)
    return Table(["trained on", "attention by", "trainings"],
                 [[*key, "; ".join(f"{name} {', '.join(spans(seeds))}" for name, seeds in own.items())]
                  for key, own in rows.items()], words=3)


def warnings(results: Results) -> list[str]:
    """What several kinds of machines mean for this run; empty if there is one."""
    return [*_of_trainings(results), *_of_times(results)]


def _of_trainings(results: Results) -> Iterable[str]:
    found: dict[str, dict[str, list[int]]] = {}
    for variant in results.variants:
        for training in variant.trainings:
            found.setdefault(_kind(training), {}).setdefault(variant.name, []).append(training.seed)
    if len(found) > 1:
        where = joined([f"{kind} ({joined([_some(name, seeds, results) for name, seeds in own.items()])})"
                        for kind, own in found.items()])
        control = {_kind(training) for kernel in results.kernels_of(results.standard) for training in kernel.trainings}
        apart = [variant.name for variant in results.variants
                 if control.isdisjoint(_kind(training) for training in variant.trainings)]
        never = (f", and on none of those of full attention {joined(apart)}, whose difference to it may be one of "
                 "machines" if apart else "")
        yield f"Trained on machines of different kinds, which round differently: {where}{never}."


def _some(name: str, seeds: list[int], results: Results) -> str:
    """A variant, and which of its seeds unless all."""
    if len(seeds) == len(results.params.seeds):
        return name
    return f"{name}, seed{'s' * (len(seeds) > 1)} {joined(spans(seeds))}"


def _of_times(results: Results) -> Iterable[str]:
    found = timed(results.variants)
    if len(found) > 1:
        yield (f"Times and memory were measured on different machines: {in_words(found)}. Each ratio is of pairs on "
               "one machine and holds there; ms and MB do not compare between machines, nor does what is read off them "
               "by length and batch size.")


def timed(variants: Iterable[Variant]) -> dict[str, list[str]]:
    """The variants that were profiled on each machine."""
    found: dict[str, list[str]] = {}
    for variant in variants:
        found.setdefault(variant.timed_on, []).append(variant.name)
    return found


def in_words(found: dict[str, list[str]]) -> str:
    return joined([f"{machine} ({joined(names)})" for machine, names in found.items()])


def _kind(training: Training) -> str:
    """"AMD EPYC, 2 threads", or "4 devices of NVIDIA H100"."""
    on: dict[str, Any] | None = training.trained_on
    if not on:
        return UNKNOWN
    several = f"{on['devices']} devices of " if on.get("devices", 1) > 1 else ""
    threads = f", {on['threads']} thread{'s' * (on['threads'] > 1)}" if on["threads"] else ""
    return f"{several}{on['device']}{threads}"
