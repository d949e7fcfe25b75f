"""Time or memory between the sizes at which it was measured: interpolated, never extrapolated.

Interpolation is linear in the logarithms of batch size, length and cost. A constant, a linear and a quadratic part
with positive factors add up to a curve that is convex on these axes, so the straight line between two measured sizes
lies on it or above: a limit that the interpolated cost meets is met. A change of kernel between the two can break this.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import groupby, product
from math import exp, log

Size = tuple[int, int]  # batch size, and length in tokens


class NotMeasuredError(ValueError):
    """A size that was not measured, and does not lie between sizes that were."""


@dataclass(frozen=True)
class Cost:
    """Time in ms or memory in MB.

    Args:
        corners: the measured sizes that it is interpolated between; a single one was measured itself.
    """

    value: float
    corners: tuple[Size, ...]


@dataclass(frozen=True)
class Grid:
    """What was measured, by size; None is a size that ran out of memory."""

    points: Mapping[Size, float | None]

    def at(self, batch: int, length: int) -> Cost | None:
        """The cost at this size; None if it does not fit in memory.

        Raises:
            NotMeasuredError: the size is no measured one, and not all sizes around it were measured.
        """
        batches = _weights(batch, {measured for measured, _ in self.points})
        lengths = _weights(length, {measured for _, measured in self.points
                                    if all((one, measured) in self.points for one in batches)})
        corners = tuple(product(batches, lengths))
        if not corners:
            raise NotMeasuredError("not measured")
        values = [value for corner in corners if (value := self.points[corner]) is not None]
        if not values:
            return None
        if len(values) < len(corners):
            raise NotMeasuredError("not known: a larger size ran out of memory")
        weights = [one * other for one, other in product(batches.values(), lengths.values())]
        logs = [weight * log(value) for weight, value in zip(weights, values, strict=True)]
        return Cost(values[0] if len(values) == 1 else exp(sum(logs)), corners)

    @property
    def range(self) -> str:
        """"batch 1 with 512 to 8,192 tokens, batch 2 to 64 with 520 tokens"."""
        lengths = {batch: [length for one, length in sorted(self.points) if one == batch]
                   for batch in sorted({batch for batch, _ in self.points})}
        return ", ".join(f"batch {_span(list(batches))} with {_span(measured)} tokens"
                         for measured, batches in groupby(lengths, key=lengths.__getitem__))


def _weights(at: int, measured: Collection[int]) -> dict[int, float]:
    """The measured values next to `at`, and their weights; empty outside of the measured range."""
    if at in measured:
        return {at: 1.0}
    below, above = [one for one in measured if one < at], [one for one in measured if one > at]
    if not below or not above:
        return {}
    low, high = max(below), min(above)
    share = log(at / low) / log(high / low)
    return {low: 1 - share, high: share}


def _span(values: list[int]) -> str:
    return " to ".join(dict.fromkeys(f"{value:,}" for value in (values[0], values[-1])))
