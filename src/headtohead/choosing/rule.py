"""The rule: first quality, then memory and latency, then the cheapest of what is left."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Literal

from headtohead.choosing.grid import Cost, Grid, NotMeasuredError, Size
from headtohead.statistics import non_inferiority

LEAST_LENGTH = 0.9  # of the control's summaries: MLPerf's gate, because a few safe words can score well
Gate = Literal["quality", "summaries", "positions", "memory", "latency"]


@dataclass(frozen=True)
class Situation:
    """What a variant is chosen for.

    Args:
        batch: sequences at a time.
        length: tokens of a sequence, in and out.
        max_loss: how much of the primary measure may be lost, in its own unit.
        memory: limit in MB (2**20 bytes).
        latency: limit in ms for the whole batch.
    """

    batch: int
    length: int
    max_loss: float
    memory: float = inf
    latency: float = inf

    def __post_init__(self) -> None:
        for name in ("batch", "length", "memory", "latency"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: must be positive (is {getattr(self, name)})")
        if not 0 <= self.max_loss <= 1:
            raise ValueError(f"max_loss: must be from 0 to 1 (is {self.max_loss})")


@dataclass(frozen=True)
class Option:
    """A variant that can be chosen.

    Args:
        difference: to full attention on the primary measure, as (difference, low, high) with its 95 % interval; None
            for a variant that computes full attention.
        words: the length of its summaries over that of full attention's.
        doubt: why nothing may be claimed about its quality; empty if something may.
        below_lead: whether its primary measure is below Lead-3's.
        length_limit: the most tokens that it has positions for; None if there is no limit.
        time, memory: in ms and MB by size.
        ratios: its time over the same control's at sizes where both were measured side by side. A machine that was
            slower when it was this variant's turn does not change them.
    """

    name: str
    difference: tuple[float, float, float] | None
    words: float
    doubt: str
    below_lead: bool
    length_limit: int | None
    time: Grid
    memory: Grid
    ratios: Mapping[Size, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Objection:
    """Why a variant is not taken: it fails a gate, or (`open`) is not known to pass it."""

    gate: Gate
    words: str
    open: bool = False


@dataclass(frozen=True)
class Judged:
    """A variant in a situation; time in ms and memory in MB are None if they are not known or there is no room."""

    option: Option
    time: Cost | None
    memory: Cost | None
    objections: tuple[Objection, ...]

    @property
    def passes(self) -> bool:
        return not self.objections

    @property
    def fails(self) -> bool:
        """Whether it is known not to pass."""
        return any(not objection.open for objection in self.objections)

    def open_at(self, gate: Gate) -> bool:
        """Whether it is not known to pass this gate."""
        return any(objection.open and objection.gate == gate for objection in self.objections)


@dataclass(frozen=True)
class Choice:
    """The answer.

    Args:
        ranked: the variants that pass, the one to take first; empty if none is known to.
        others: those that fail or of which too little is known, in their own order.
    """

    ranked: Sequence[Judged]
    others: Sequence[Judged]


def choose(options: Sequence[Option], situation: Situation, time_margin: float, memory_margin: float) -> Choice:
    """The variants that pass every gate, the cheapest first, and why the others do not.

    The cheapest takes the least time, by `Option.ratios` if all that pass have one at this size. Times within the
    margin of the least count as equal; then the least memory decides, within its margin, and then the order of
    `options`. So relaxing a limit never makes the choice slower by more than the margin.

    Args:
        time_margin, memory_margin: the smallest differences of interest, as a share.

    Raises:
        NotMeasuredError: the size is neither measured nor between measured sizes for any variant that has positions
            for it; names what was measured.
    """
    judged = [_judge(option, situation) for option in options]
    able = [one for one in judged if one.option.length_limit is None or situation.length <= one.option.length_limit]
    if able and all(one.open_at("latency") for one in able):
        measured = Grid({size: 0.0 for option in options for size in option.time.points})
        raise NotMeasuredError(f"batch {situation.batch} with {situation.length:,} tokens was not measured, and "
                               f"nothing is extrapolated; measured: {measured.range}")
    left, ranked = [one for one in judged if one.passes], []
    size = (situation.batch, situation.length)
    paired = all(size in one.option.ratios for one in left)

    def time(one: Judged) -> float:
        return one.option.ratios[size] if paired else one.time.value if one.time else inf

    while left:
        best = _level(_level(left, time, time_margin), _memory, memory_margin)[0]
        ranked.append(best)
        left.remove(best)
    return Choice(ranked, [one for one in judged if not one.passes])


def _judge(option: Option, situation: Situation) -> Judged:
    objections = list(_of_quality(option, situation.max_loss))
    if option.length_limit is not None and situation.length > option.length_limit:
        objections.append(Objection("positions", f"its positions end at {option.length_limit:,} tokens"))
        return Judged(option, None, None, tuple(objections))
    memory, against = _of_cost("memory", option.memory, situation, situation.memory, "MB", needed=False)
    time, also_against = _of_cost("latency", option.time, situation, situation.latency, "ms", needed=True)
    return Judged(option, time, memory, (*objections, *against, *also_against))


def _of_quality(option: Option, max_loss: float) -> list[Objection]:
    found = []
    if option.below_lead:
        found.append(Objection("quality", "below Lead-3"))
    if option.difference is None:
        return found
    if option.doubt:
        return [*found, Objection("quality", f"no claim of quality: {option.doubt}", open=True)]
    _, low, high = option.difference
    standing = non_inferiority(low, high, max_loss)
    if standing != "not inferior":
        words = {"inferior": f"loses more than {max_loss:g}", "undecided": f"may lose more than {max_loss:g}"}
        found.append(Objection("quality", words[standing], open=standing == "undecided"))
    if option.words < LEAST_LENGTH:
        found.append(Objection("summaries", f"its summaries are {100 * option.words:.0f} % as long"))
    return found


def _of_cost(gate: Gate, grid: Grid, situation: Situation, limit: float, unit: str, needed: bool,
             ) -> tuple[Cost | None, list[Objection]]:
    """A cost, and what it objects; a cost that is not `needed` for the ranking may be unknown without a limit."""
    try:
        cost = grid.at(situation.batch, situation.length)
    except NotMeasuredError as error:
        unknown = Objection(gate, f"{'time' if gate == 'latency' else gate} {error}", open=True)
        return None, [unknown] if needed or isfinite(limit) else []
    if cost is None:
        return None, [Objection(gate, "runs out of memory")] if gate == "memory" or needed else []
    return cost, [Objection(gate, f"{cost.value:,.4g} {unit} of {limit:,.4g}")] if cost.value > limit else []


def _level(judged: list[Judged], cost: Callable[[Judged], float], margin: float) -> list[Judged]:
    """Those whose cost is at most the margin above the least."""
    most = min(map(cost, judged)) * (1 + margin)
    return [one for one in judged if cost(one) <= most]


def _memory(judged: Judged) -> float:
    return judged.memory.value if judged.memory else inf
