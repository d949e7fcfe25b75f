"""The only place where a difference between trained models becomes a claim.

The unit is a training: a function (what a variant computes) and a seed. Articles are crossed with trainings, and both
are samples: another seed gives another model, another day gives other articles. An interval over articles alone
mistakes the luck of one training for a property of its attention.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import exp, inf, log, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit  # Student's t

ALPHA = 0.05
MOST = 1000  # trainings that anyone would run

Verdict = Literal["better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """One function against the control, on one measure.

    Args:
        difference: ours minus the control's.
        low, high: its 95 % interval, over trainings and articles; infinite if either was trained once.
        p: two-sided, for no difference; from `compare_all` adjusted for the number of functions compared.
        within: whether the difference is within the margin on both sides (two one-sided tests at 0.05 each).
        trainings: how many of each function would tell, with the same difference and spread: the interval is then
            no wider than the margin on both sides, or a difference beyond the margin is significant. None if the
            articles alone leave it open, or if the spread is not known.
    """

    difference: float
    low: float
    high: float
    p: float
    within: bool
    trainings: int | None

    @property
    def verdict(self) -> Verdict:
        """What may be claimed: better or worse at a p below 0.05, else equivalent within the margin, else nothing."""
        if self.p < ALPHA:
            return "better" if self.difference > 0 else "worse"
        return "equivalent" if self.within else "undecided"


def compare(ours: ArrayLike, control: ArrayLike, margin: float = 0.01) -> Comparison:
    """Compare two functions by their trainings.

    The variance of the difference is that of the two means over trainings (Welch 1947) plus that of the mean over
    articles of the difference between the functions' mean scores, which is what a bootstrap over articles estimates.
    The degrees of freedom follow Welch and Satterthwaite from all three. Equivalence is tested by two one-sided tests
    (Schuirmann 1987).

    Args:
        ours, control: [trainings, articles] of one measure, higher being better; the same articles in the same order.
            Kernels of one function are not separate trainings: average them for each seed first.
        margin: the smallest difference of interest, in the measure's own unit.

    Raises:
        ValueError: the shapes do not match, a score is not a finite number, or the margin is not positive.
    """
    return _compare(ours, control, margin, functions=1)


def _compare(ours: ArrayLike, control: ArrayLike, margin: float, functions: int) -> Comparison:
    """See `compare`; `functions` are compared with the control, by which `trainings` reckons with Holm's adjustment."""
    a, b = _scores(ours, "ours"), _scores(control, "control")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"ours has scores of {a.shape[1]} articles and control of {b.shape[1]}; they must be of the "
                         "same articles, in the same order")
    if not margin > 0:
        raise ValueError(f"margin {margin}: must be positive")
    difference, articles = float(a.mean() - b.mean()), a.shape[1]
    if min(len(a), len(b)) < 2:
        return Comparison(difference, -inf, inf, 1.0, within=False, trainings=None)
    spreads = [float(np.var(scores.mean(1), ddof=1)) for scores in (a, b)]
    by_article = (float(np.var(a.mean(0) - b.mean(0), ddof=1)) / articles, articles - 1)
    error, freedom = _error([(spreads[0] / len(a), len(a) - 1), (spreads[1] / len(b), len(b) - 1), by_article])
    return Comparison(
        difference, difference - _half(error, freedom), difference + _half(error, freedom),
        _p(difference, error, freedom), within=abs(difference) + _half(error, freedom, 2 * ALPHA) < margin,
        trainings=_trainings(spreads, by_article, margin, difference, functions))


def compare_all(ours: Mapping[str, ArrayLike], control: ArrayLike, margin: float = 0.01) -> dict[str, Comparison]:
    """Compare several functions with one control, so that a claim about any is false in at most one of twenty cases.

    Holm's step-down procedure (Holm 1979) adjusts p; equivalence needs no adjustment, for it is no search.

    Args:
        ours: scores of each function by name, as `compare` takes them.

    Raises:
        ValueError: see `compare`.
    """
    found = {name: _compare(scores, control, margin, len(ours)) for name, scores in ours.items()}
    ordered = sorted(found, key=lambda name: found[name].p)
    steps = [(len(ordered) - rank) * found[name].p for rank, name in enumerate(ordered)]
    adjusted = dict(zip(ordered, accumulate(steps, max), strict=True))
    return {name: replace(comparison, p=min(1.0, adjusted[name])) for name, comparison in found.items()}


def smallest_found(luck: float, own: float, trainings: int, articles: int, functions: int, power: float = 0.8) -> float:
    """The smallest true difference to the control that `compare_all` finds with probability `power`.

    Args:
        luck: assumed standard deviation over trainings of a function's mean score.
        own: the same over articles of the difference between two functions' mean scores.
        functions: how many are compared with the control.

    Returns:
        In the measure's own unit; infinite for one training, which supports no claim.
    """
    if min(trainings, articles) < 2:
        return inf
    error, freedom = _error([(luck ** 2 / trainings, trainings - 1)] * 2 + [(own ** 2 / articles, articles - 1)])
    return _half(error, freedom, ALPHA / functions) + _half(error, freedom, 2 * (1 - power))


def non_inferiority(low: float, high: float, loss: float) -> Literal["not inferior", "inferior", "undecided"]:
    """Whether a function may replace the control where a loss of `loss` is acceptable.

    "not inferior": the difference's 95 % interval lies above -loss, a one-sided test at 0.025, so that a function that
    loses that much or more passes in at most one of forty cases. "inferior": it lies below.

    Args:
        low, high: the 95 % interval of ours minus the control's, as `Comparison` has it.
        loss: not negative, in the measure's own unit.
    """
    if low > -loss:
        return "not inferior"
    return "inferior" if high < -loss else "undecided"


def _scores(values: ArrayLike, name: str) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=float)
    if scores.ndim != 2 or scores.shape[0] < 1 or scores.shape[1] < 2:
        raise ValueError(f"{name} {scores.shape}: need [trainings, articles], with two articles or more")
    if not np.isfinite(scores).all():
        raise ValueError(f"{name}: a score is no finite number")
    return scores


def _error(parts: list[tuple[float, int]]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum of independent (variance, degrees of freedom)."""
    variance = sum(part for part, _ in parts)
    uncertainty = sum(part ** 2 / freedom for part, freedom in parts)
    return sqrt(variance), variance ** 2 / uncertainty if uncertainty > 0 else 1.0


def _p(difference: float, error: float, freedom: float) -> float:
    if error == 0:  # every training of either wrote the same
        return 1.0 if difference == 0 else 0.0
    return 2 * float(stdtr(freedom, -abs(difference) / error))


def _half(error: float, freedom: float, alpha: float = ALPHA) -> float:
    """Half of an interval."""
    return float(stdtrit(freedom, 1 - alpha / 2)) * error if error else 0.0


def _trainings(spreads: list[float], by_article: tuple[float, int], margin: float, difference: float,
               functions: int) -> int | None:
    """See `Comparison`; by bisection, because more trainings never widen the interval."""
    def tells(count: int) -> bool:
        error, freedom = _error([*((spread / count, count - 1) for spread in spreads), by_article])
        significant = _half(error, freedom, ALPHA / functions) < abs(difference)
        return _half(error, freedom) <= margin or (significant and abs(difference) > margin)

    found = bisect_left(range(2, MOST + 1), True, key=tells) + 2
    return found if found <= MOST else None


@dataclass(frozen=True)
class Estimate:
    """One function's own score on one measure.

    Args:
        mean: over trainings and articles.
        low, high: its 95 % interval, over both; over articles alone if there was one training.
        spread: the standard deviation over trainings; None if there was one.
        trainings: how many.
    """

    mean: float
    low: float
    high: float
    spread: float | None
    trainings: int


def estimate(scores: ArrayLike) -> Estimate:
    """A function's mean score and its interval, from the same variances as `compare`.

    Args:
        scores: [trainings, articles] of one measure.

    Raises:
        ValueError: another shape, fewer than two articles, or a score is no finite number.
    """
    found = _scores(scores, "scores")
    trainings, articles = found.shape
    parts = [(float(np.var(found.mean(0), ddof=1)) / articles, articles - 1)]
    spread = float(np.std(found.mean(1), ddof=1)) if trainings > 1 else None
    if spread is not None:
        parts.append((spread ** 2 / trainings, trainings - 1))
    mean, half = float(found.mean()), _half(*_error(parts))
    return Estimate(mean, mean - half, mean + half, spread, trainings)


@dataclass(frozen=True)
class Ratio:
    """A variant's cost over the control's: of time or memory, of which less is better.

    Args:
        value: geometric mean over pairs of ours / control.
        low, high: its 95 % interval; 0 and infinite if there is one pair alone.
        pairs: how many.
        verdict: what may be claimed; see `ratio`.
        scattered: nothing can be, because the pairs lie so far apart that the machine was busy with something else.
    """

    value: float
    low: float
    high: float
    pairs: int
    verdict: Literal["less", "more", "equivalent", "undecided"]
    scattered: bool


def ratio(pairs: Sequence[tuple[float, float]], margin: float) -> Ratio:
    """Compare costs that were measured side by side, pair by pair, in fresh processes.

    The interval is Student's t interval of the mean log ratio. "equivalent": its 90 % interval lies within the margin,
    1 / (1 + margin) to 1 + margin (two one-sided tests). Else "less" or "more": the 95 % interval excludes 1, and the
    value lies beyond the margin. Else "undecided", and "scattered" if half the interval is larger than the margin.

    If log ratios are normally distributed and pairs are independent, two that cost the same are claimed to differ in
    at most 5 % of tries, however much the pairs scatter, and two that differ by the margin or more are claimed to be
    equivalent in at most 5 %.

    Args:
        pairs: (ours, control) of each, in one unit, all positive.
        margin: the smallest relative difference of interest, such as 0.05.

    Raises:
        ValueError: no pairs, a number that is not positive and finite, or a margin that is not positive.
    """
    costs = np.asarray(pairs, dtype=float)
    if costs.ndim != 2 or costs.shape[0] < 1 or costs.shape[1] != 2:
        raise ValueError(f"pairs {costs.shape}: need (ours, control), one pair or more")
    if not (np.isfinite(costs) & (costs > 0)).all():
        raise ValueError("pairs: a cost is no positive, finite number")
    if not margin > 0:
        raise ValueError(f"margin {margin}: must be positive")
    logs, reach = np.log(costs[:, 0] / costs[:, 1]), log(1 + margin)
    mean, count = float(logs.mean()), len(logs)
    if count < 2:
        return Ratio(exp(mean), 0.0, inf, count, "undecided", scattered=True)
    error = float(logs.std(ddof=1)) / sqrt(count)
    half = _half(error, count - 1)
    verdict: Literal["less", "more", "equivalent", "undecided"] = "undecided"
    if abs(mean) + _half(error, count - 1, 2 * ALPHA) < reach:
        verdict = "equivalent"
    elif abs(mean) > max(half, reach):
        verdict = "less" if mean < 0 else "more"
    return Ratio(exp(mean), exp(mean - half), exp(mean + half), count, verdict,
                 scattered=verdict == "undecided" and half > reach)
