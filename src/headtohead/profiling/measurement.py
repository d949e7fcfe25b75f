"""A measurement of one piece of work: one type for profile, benchmark, their files and the report."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median, quantiles
from typing import Any, Literal

Row = dict[str, Any]
Unit = Literal["ms", "MB"]

DIGITS = 5  # behind the point: 10 ns, or 10 bytes


@dataclass(frozen=True)
class Measurement:
    """One piece of work at one size.

    Args:
        work: its name.
        batch, length: the size of its input; length counts the tokens that go in.
        new_tokens: how many it generates, or 0.
        dtype: the type that it computes in.
        unit: "ms" of time, or "MB" (2**20 bytes) of peak memory.
        samples: one for each repeat, in order, or for each process if several measured it; empty if it ran out of
            memory.
        backend: what ran its attention, if that is known.
    """

    work: str
    batch: int
    length: int
    new_tokens: int
    dtype: str
    unit: Unit
    samples: tuple[float, ...]
    backend: str | None = None

    @property
    def out_of_memory(self) -> bool:
        return not self.samples

    @property
    def median(self) -> float | None:
        """In the measurement's unit; None if memory did not suffice."""
        return round(median(self.samples), DIGITS) if self.samples else None

    @property
    def spread(self) -> Row:
        """Median and deciles, which interpolate linearly as numpy.percentile does; None if memory did not suffice."""
        low, high = None, None
        if self.samples:
            deciles = quantiles(self.samples, n=10, method="inclusive") if len(self.samples) > 1 else self.samples
            low, high = round(deciles[0], DIGITS), round(deciles[-1], DIGITS)
        return {"median": self.median, "p10": low, "p90": high, "unit": self.unit, "repeats": len(self.samples)}

    def row(self) -> Row:
        """As in data/details/V/efficiency.json: the spread for time, `peak_mb` for memory."""
        row: Row = {"work": self.work, "batch": self.batch, "length": self.length, "new_tokens": self.new_tokens,
                    "dtype": self.dtype}
        if self.out_of_memory:
            row |= {"unit": self.unit, "out_of_memory": True}
        else:
            row |= self.spread if self.unit == "ms" else {"peak_mb": self.median, "unit": self.unit}
            row["samples"] = [round(sample, DIGITS) for sample in self.samples]
        return row if self.backend is None else row | {"backend": self.backend}


def read(row: Mapping[str, Any]) -> Measurement:
    """The measurement of a row that `Measurement.row` gave."""
    size = {name: row[name] for name in ("work", "batch", "length", "new_tokens", "dtype", "unit")}
    return Measurement(**size, samples=tuple(row.get("samples", ())), backend=row.get("backend"))


def over_processes(measurements: Iterable[Measurement]) -> Measurement:
    """The same work in several processes as one measurement, whose samples are their medians.

    It is out of memory if it was in any of them.
    """
    first, *rest = measurements
    medians = [one.median for one in (first, *rest)]
    return replace(first, samples=tuple(value for value in medians if value is not None) if None not in medians else ())
