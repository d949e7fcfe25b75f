"""How cost grows with length and batch size, and roughly where one variant's line crosses another's.

Sweeps are measured once, in one process: they are a description and not a claim.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import exp, log
from typing import Any

from headtohead.reporting.results import Results, Variant
from headtohead.reporting.tables import NOTHING, Table, joined, short

NO_ROOM = "no room"
ALIKE = "about the same"


@dataclass(frozen=True)
class Point:
    """What was measured at one length or batch size, `at`, and its range from the 10th to the 90th percentile."""

    at: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """One variant's line, and where it ran out of memory."""

    points: Sequence[Point]
    no_room: Sequence[int]

    @property
    def measured_at(self) -> list[int]:
        """All lengths or batch sizes, including those that ran out of memory."""
        return [*self.no_room, *(point.at for point in self.points)]


Draw = Callable[[Results, Variant], Curve]


def time_by_length(results: Results, variant: Variant) -> Curve:
    """Milliseconds of a forward pass, batch 1."""
    return _curve(_forwards(variant, "timings", batch=1), "length", _time)


def memory_by_length(results: Results, variant: Variant) -> Curve:
    """Peak MB of a forward pass, batch 1."""
    return _curve(_forwards(variant, "memory", batch=1), "length", _memory)


def time_by_batch(results: Results, variant: Variant) -> Curve:
    """Milliseconds of a forward pass for each of its sequences, at the preset's length."""
    return _curve(_forwards(variant, "timings", length=results.length), "batch", _time_a_sequence)


def memory_by_batch(results: Results, variant: Variant) -> Curve:
    """Peak MB of a forward pass, at the preset's length."""
    return _curve(_forwards(variant, "memory", length=results.length), "batch", _memory)


BY_LENGTH: Mapping[str, Draw] = {"forward ms": time_by_length, "peak MB": memory_by_length}
BY_BATCH: Mapping[str, Draw] = {"ms a sequence": time_by_batch, "peak MB": memory_by_batch}


def _forwards(variant: Variant, kind: str, **where: int) -> list[dict[str, Any]]:
    return [row for row in variant.profile[kind] if row["work"] == "forward" and where.items() <= row.items()]


def _curve(rows: Sequence[dict[str, Any]], by: str, measured: Callable[[dict[str, Any]], tuple[float, float, float]],
           ) -> Curve:
    ordered = sorted(rows, key=lambda row: int(row[by]))
    return Curve([Point(row[by], *measured(row)) for row in ordered if not row.get("out_of_memory")],
                 [row[by] for row in ordered if row.get("out_of_memory")])


def _time(row: dict[str, Any]) -> tuple[float, float, float]:
    return row["median"], row["p10"], row["p90"]


def _time_a_sequence(row: dict[str, Any]) -> tuple[float, float, float]:
    return row["median"] / row["batch"], row["p10"] / row["batch"], row["p90"] / row["batch"]


def _memory(row: dict[str, Any]) -> tuple[float, float, float]:
    return row["peak_mb"], row["peak_mb"], row["peak_mb"]


def table(results: Results, measures: Mapping[str, Draw], title: str) -> Table:
    """Every point: a row for each measure and variant, a column for each length or batch size, named by `title`."""
    curves = {(measure, variant.name): draw(results, variant)
              for measure, draw in measures.items() for variant in results.variants}
    columns = sorted({at for curve in curves.values() for at in curve.measured_at})
    rows = []
    for (measure, name), curve in curves.items():
        cells = {point.at: short(point.value) for point in curve.points} | dict.fromkeys(curve.no_room, NO_ROOM)
        rows.append([name, measure, *(cells.get(at, NOTHING) for at in columns)])
    return Table(["variant", "measure", *(title.format(f"{at:,}") for at in columns)], rows, words=2)


def crossings(results: Results, measures: Mapping[str, Draw]) -> Table:
    """Which of two variants takes less, and where that changes: each against standard, and other pairs that cross."""
    rows = []
    for a, b in _pairs(results):
        found = [compare(draw(results, a), draw(results, b), _least(results, measure))
                 for measure, draw in measures.items()]
        if b is results.standard or any(comparison.crossings for comparison in found):
            rows.append([f"{a.name} / {b.name}", found[0].range, *(c.in_words(a.name, b.name) for c in found)])
    header = ["pair", "measured at", *(f"less {measure}" for measure in measures)]
    return Table(header, rows, words=len(header))


def _pairs(results: Results) -> Iterator[tuple[Variant, Variant]]:
    """All pairs of variants: first those with standard, which is the second of the two."""
    others = [variant for variant in results.variants if variant is not results.standard]
    yield from ((variant, results.standard) for variant in others)
    yield from combinations(others, 2)


def _least(results: Results, measure: str) -> float:
    """The ratio below which two are about the same."""
    margins = results.params.margins
    return 1 + (margins.memory if measure == "peak MB" else margins.time)


@dataclass(frozen=True)
class Comparison:
    """Two curves where both were measured.

    Args:
        common: those lengths or batch sizes.
        apart: (at, log of the ratio of the first to the second) where they are not about the same.
    """

    common: Sequence[int]
    apart: Sequence[tuple[int, float]]

    @property
    def crossings(self) -> list[float]:
        """Where the lines cross: between two neighbours in `apart` with a different order, on the straight lines
        between their values on logarithmic axes."""
        return [exp(log(left) + before / (before - after) * (log(right) - log(left)))
                for (left, before), (right, after) in pairwise(self.apart) if before * after < 0]

    @property
    def range(self) -> str:
        """"512 to 8,192"."""
        return " to ".join(dict.fromkeys(f"{at:,}" for at in (self.common[0], self.common[-1])))

    def in_words(self, a: str, b: str) -> str:
        """Which takes less: "standard, from about 1,180 flash"."""
        if not self.apart:
            return ALIKE
        names = [a, b] if self.apart[0][1] < 0 else [b, a]
        if self.crossings:
            text = names[0]
            for i, at in enumerate(self.crossings, 1):
                text += f", from about {at:,.0f} {names[i % 2]}"
            return text
        unclear = [at for at in self.common if at not in dict(self.apart)]
        return f"{names[0]}; {ALIKE} at {_listed(unclear)}" if unclear else f"{names[0]} throughout"


def compare(a: Curve, b: Curve, least: float) -> Comparison:
    """Two curves; they are apart where their ranges do not overlap and their ratio is larger than `least`."""
    others = {point.at: point for point in b.points}
    common: list[int] = []
    apart: list[tuple[int, float]] = []
    for ours in a.points:
        if (theirs := others.get(ours.at)) is None:
            continue
        common.append(ours.at)
        overlap = ours.low <= theirs.high and theirs.low <= ours.high
        if not overlap and max(ours.value / theirs.value, theirs.value / ours.value) > least:
            apart.append((ours.at, log(ours.value / theirs.value)))
    return Comparison(common, apart)


def without_room(results: Results, measures: Mapping[str, Draw]) -> str:
    """"standard at 8,192 and 16,384": which variants ran out of memory, and where; empty if none did."""
    lost = {variant.name: sorted({at for draw in measures.values() for at in draw(results, variant).no_room})
            for variant in results.variants}
    return "; ".join(f"{name} at {_listed(places)}" for name, places in lost.items() if places)


def left_out(results: Results) -> str:
    """"standard and flash beyond 520 tokens": lengths for which variants have no positions; empty if there are none."""
    short_of: dict[int, list[str]] = {}
    for variant in results.variants:
        if variant.profile["lengths_left_out"]:
            short_of.setdefault(variant.profile["length_limit"], []).append(variant.name)
    return "; ".join(f"{joined(names)} beyond {limit:,} tokens" for limit, names in short_of.items())


def waiting(results: Results) -> str:
    """A sentence on the batch sizes up to which the GPU mostly waits in a training step; empty if there are none.

    If it computes, twice the batch takes about twice the time; if it waits, about the same.
    """
    waits = []
    for variant in results.variants:
        for point, after in pairwise(_curve(variant.timings("train_step"), "batch", _time).points):
            if after.value / point.value < (after.at / point.at) ** 0.5:
                waits.append(point.at)
    if results.on_cpu or not waits:
        return ""
    return f" Up to batch {max(waits)} the GPU waits for Python to launch a step's kernels."


def _listed(places: Sequence[int]) -> str:
    return joined([f"{at:,}" for at in places])
