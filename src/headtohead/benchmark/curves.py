"""Rows as curves against length, or something else, one for each contestant, and where two of them cross."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from headtohead.benchmark.plan import OURS
from headtohead.benchmark.rows import Row
from headtohead.reporting.sweeps import Curve, Point, compare


def name_of(row: Row) -> str:
    """Ours by the variant, transformers' by the implementation, a library's by both."""
    if row["implementation"] == OURS:
        return str(row["variant"])
    library = row["work"].startswith("attention")
    return f"{row['variant']} by {row['implementation']}" if library else str(row["implementation"])


def _length(row: Row) -> int:
    return int(row["length"])


def curves(rows: Iterable[Row], at: Callable[[Row], int] = _length) -> dict[str, Curve]:
    """A curve for each name among rows of one work that differ in `at` alone, in the order of the rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(name_of(row), []).append(row)
    return {name: _curve(sorted(own, key=at), at) for name, own in found.items()}


def crossings(named: Mapping[str, Curve]) -> Iterator[tuple[str, str, float]]:
    """(lower before, lower after, length) wherever two curves change places; `sweeps.Comparison` has the rule."""
    for (name, curve), (other, others) in combinations(named.items(), 2):
        comparison = compare(curve, others, least=1.0)
        ahead = [name, other]
        if comparison.apart and comparison.apart[0][1] > 0:
            ahead.reverse()
        for length in comparison.crossings:
            yield ahead[0], ahead[1], length
            ahead.reverse()


def _curve(rows: Sequence[Row], at: Callable[[Row], int]) -> Curve:
    return Curve([Point(at(row), row["median"], row["p10"], row["p90"]) for row in rows if row["median"] is not None],
                 [at(row) for row in rows if row["median"] is None])
