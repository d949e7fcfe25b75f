"""A variant and its control in turn, in fresh processes, so that other work on the machine affects both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from headtohead.profiling.measurement import DIGITS, Measurement, Row, over_processes

Side = Literal["ours", "control"]

ORDER: tuple[Side, Side] = ("ours", "control")
TIMES = ("forward", "first_token", "generate", "train_step")
MEMORY = "memory"


@dataclass(frozen=True)
class Process:
    """What one process measured: the headline figures, once."""

    pair: int
    side: Side
    variant: str
    measured: Sequence[Measurement]

    def figure(self, name: str) -> tuple[float, ...]:
        """One of `TIMES` in ms, a median for each turn, or `MEMORY` in MB, the highest peak of inference alone.

        Empty if memory did not suffice.
        """
        if name != MEMORY:
            return next(one.samples for one in self.measured if one.unit == "ms" and one.work == name)
        peaks = [one.samples for one in self.measured if one.unit == "MB" and one.work != "train_step"]
        return (max(chain(*peaks)),) if all(peaks) else ()

    def row(self) -> Row:
        """As it stands in data/details/V/efficiency.json."""
        return {"pair": self.pair, "side": self.side, "variant": self.variant,
                "measurements": [one.row() for one in self.measured]}


def side_by_side(measure: Callable[[list[str]], Sequence[Sequence[Measurement]]], ours: str, control: str, pairs: int,
                 ) -> list[Process]:
    """Call `measure` for each pair of variants; in every second pair the control comes first, so that drift cancels.

    Returns:
        The processes in the order in which they began.
    """
    names: dict[Side, str] = {"ours": ours, "control": control}
    processes: list[Process] = []
    for pair in range(pairs):
        order = ORDER if pair % 2 == 0 else ORDER[::-1]
        measured = measure([names[side] for side in order])
        processes += [Process(pair, side, names[side], one) for side, one in zip(order, measured, strict=True)]
    return processes


def in_pairs(processes: Sequence[Process]) -> dict[str, list[list[float]] | None]:
    """For each figure, [ours, control] for each pair; None if some process ran out of memory.

    A pair's values are those of the turn in which the ratio of the two is its median: other work on the machine affects
    both, or only a few turns.
    """
    ours, control = ([one for one in processes if one.side == side] for side in ORDER)
    found: dict[str, list[list[float]] | None] = {}
    for name in (*TIMES, MEMORY):
        pairs = []
        for both in zip(ours, control, strict=True):
            both_turns = zip(*(one.figure(name) for one in both), strict=False)  # none if one of them has none
            pairs.append(sorted(both_turns, key=lambda turn: turn[0] / turn[1]))
        found[name] = [[round(value, DIGITS) for value in turns[len(turns) // 2]] for turns in pairs
                       ] if all(pairs) else None
    return found


def of_ours(processes: Sequence[Process]) -> list[Measurement]:
    """What the variant's own processes measured, a sample for each process."""
    return [over_processes(same) for same in zip(*(one.measured for one in processes if one.side == "ours"),
                                                 strict=True)]
