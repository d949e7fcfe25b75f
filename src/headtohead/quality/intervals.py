"""Percentile bootstrap over articles: how far a number would move had other articles been drawn."""

from functools import cache

import numpy as np

from headtohead.quality.measures import Array, Columns, measure, measure_all

RESAMPLES = 1000
LEVEL = 0.95


@cache
def draws(articles: int, seed: int) -> Array:
    """How often each article is drawn in each resample, [RESAMPLES, articles].

    It depends on nothing else, so two systems over the same articles are resampled alike: paired.
    """
    counts = np.random.default_rng(seed).multinomial(articles, np.full(articles, 1 / articles), size=RESAMPLES)
    counts.setflags(write=False)
    return counts.astype(float)


def percentiles(values: Array) -> tuple[float, float]:
    """The ends of the LEVEL interval; resamples without a value (no fact drawn) do not count."""
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def interval(name: str, articles: Columns, seed: int) -> tuple[float, float]:
    """95 % interval of the measure `name`; `articles` as `measures.measure` wants them."""
    return percentiles(measure(name, articles, draws(_count(articles), seed)))


def difference(name: str, ours: Columns, theirs: Columns, seed: int) -> tuple[float, float, float]:
    """`ours` minus `theirs` over the same articles in the same order: the difference and its 95 % interval.

    Raises:
        ValueError: the two are not of the same articles.
    """
    if list(ours["id"]) != list(theirs["id"]):
        raise ValueError("a paired difference needs the same articles in the same order on both sides")
    weights = draws(_count(ours), seed)
    low, high = percentiles(measure(name, ours, weights) - measure(name, theirs, weights))
    return measure_all([name], ours)[name] - measure_all([name], theirs)[name], low, high


def _count(articles: Columns) -> int:
    return len(articles["id"])
