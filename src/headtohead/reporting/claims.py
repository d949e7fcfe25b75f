"""What may be claimed about the variants of a run: the one place between statistics and words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import median
from typing import Literal, TypeVar

import numpy as np

from headtohead.choosing.rule import LEAST_LENGTH
from headtohead.params import Margins
from headtohead.quality.measures import BLEU, FACT_PRECISION, LOSS, ROUGE, Array, available
from headtohead.reporting.endings import still_falling
from headtohead.reporting.results import Results, Variant
from headtohead.reporting.tables import LABELS, signed, times
from headtohead.statistics import Comparison, Ratio, compare, compare_all, ratio

CONTROL = "full attention"  # the function of standard
SECONDARY = (*ROUGE[:2], ROUGE[3], BLEU, LOSS, FACT_PRECISION)
LOWER_IS_BETTER = (LOSS,)
COSTS = {"forward": "forward pass", "first_token": "first token", "generate": "generation",
         "train_step": "training step", "memory": "peak memory"}
MEMORY = "memory"
ENOUGH_SEEDS, MOST_SEEDS = 3, 10  # for a first claim; to decide a difference at most
BUSY = "busy"  # something else must have used the machine: the pairs disagree so much, or all of them were slow
LOADED = 2.0  # times as long as beside another variant; if standard itself takes that, ratios are another machine's
Standing = Literal["better", "worse", "equivalent", "undecided"]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Quality:
    """A function against full attention on the primary measure.

    Args:
        barred: why nothing may be claimed, whatever the numbers are; empty if something may.
    """

    comparison: Comparison
    margin: float
    trainings: int
    barred: str = ""

    @property
    def verdict(self) -> Standing:
        return "undecided" if self.barred else self.comparison.verdict

    @property
    def standing(self) -> Standing:
        """The verdict for a choice: a difference shown to be smaller than the margin counts as none."""
        return "equivalent" if self.comparison.within and not self.barred else self.verdict

    @property
    def words(self) -> str:
        if self.verdict == "equivalent":
            return f"equivalent within {self.margin:g}"
        if self.verdict != "undecided":
            return f"{self.verdict}, by less than {self.margin:g}" if self.comparison.within else self.verdict
        return f"{'no claim' if self.barred else 'undecided'}: {self.doubt}"

    @property
    def doubt(self) -> str:
        """Why nothing can be claimed, or what would decide it."""
        return self.barred or what_would_tell(self.comparison.trainings, self.trainings)


def what_would_tell(needed: int | None, seeds: int) -> str:
    """What would decide a difference that `seeds` leave open and `needed` would decide, as `Comparison.trainings`."""
    if needed is None:
        return "only more articles would tell"
    return f"about {needed} seeds would tell" if needed > seeds else "near the margin"


def next_seeds(needed: Iterable[int | None], seeds: int) -> int | None:
    """How many seeds the next run should have; None if more would decide nothing, or so many that nobody runs them.

    Args:
        needed: how many would decide each difference that is open.
        seeds: of this run.
    """
    within_reach = [count for count in needed if count and seeds < count <= MOST_SEEDS]
    return max([ENOUGH_SEEDS, *within_reach]) if seeds == 1 or within_reach else None


@dataclass(frozen=True)
class Cost:
    """Time or memory of a variant over standard's; the ratio is None if one of them ran out of memory."""

    work: str
    ratio: Ratio | None
    margin: float

    @property
    def less(self) -> bool:
        return self.ratio is not None and self.ratio.verdict == "less"

    @property
    def more(self) -> bool:
        return self.ratio is not None and self.ratio.verdict == "more"

    @property
    def words(self) -> str:
        if self.ratio is None:
            return "no room"
        if self.ratio.scattered:
            return BUSY
        less, more = ("smaller", "larger") if self.work == MEMORY else ("faster", "slower")
        return {"less": less, "more": more, "equivalent": f"within\u00a0{100 * self.margin:g}\u00a0%",
                "undecided": "undecided"}[self.ratio.verdict]

    @property
    def evidence(self) -> str:
        if self.ratio is None:
            return ""
        return times(self.ratio.value, self.ratio.low, self.ratio.high, claimed=self.less or self.more)


@dataclass(frozen=True)
class Claims:
    """Everything that is claimed about a run.

    Args:
        quality: for each variant that computes another function than standard; kernels of one function share it.
        others: the differences to full attention on the other measures, by measure and variant; for the loss, too,
            ours minus full attention's.
        costs: by variant and work; those of standard compare it with itself.
        below_lead: variants whose primary measure is below Lead-3's.
        cut_off: by variant, the seeds of its trainings that were cut off before their end; without variants that have
            none.
    """

    results: Results
    quality: Mapping[str, Quality]
    others: Mapping[str, Mapping[str, Comparison]]
    costs: Mapping[str, Mapping[str, Cost]]
    below_lead: set[str]
    cut_off: Mapping[str, list[int]]

    @property
    def primary(self) -> str:
        return LABELS[self.results.primary]

    @property
    def seeds_needed(self) -> dict[str, int | None]:
        """Of each variant that is undecided, how many seeds would tell; None if only more articles would."""
        return {name: found.comparison.trainings for name, found in self.quality.items()
                if found.verdict == "undecided" and not found.barred}

    def difference(self, measure: str, variant: str) -> Comparison | None:
        """The difference to full attention; None for a variant that computes it."""
        if measure == self.results.primary:
            return self.quality[variant].comparison if variant in self.quality else None
        return self.others.get(measure, {}).get(variant)

    def shown(self, measure: str, variant: str) -> str:
        """The difference with its interval; empty for a variant that computes full attention."""
        found = self.difference(measure, variant)
        return signed(found.difference, found.low, found.high) if found else ""


def judge(results: Results) -> Claims:
    """All claims about a run."""
    functions = _functions(results)
    control = functions[results.standard.name]
    rest = {name: kernels for name, kernels in functions.items() if kernels is not control}
    cut_off = _cut_off(functions)
    falling: set[str] = set()
    below_lead: set[str] = set()
    for name, kernels in functions.items():
        names = {kernel.name for kernel in kernels}
        if names & cut_off.keys():
            falling.add(name)
        if _mean(results.primary, kernels) < results.lead3.quality[results.primary]:
            below_lead |= names

    quality = _of_each_kernel(_primary(results, rest, control, falling), rest)
    others = {}
    for measure in SECONDARY:
        if measure != results.primary and _known(measure, results.variants):
            found = _secondary(measure, rest, control, margin_of(measure, results.params.margins))
            others[measure] = _of_each_kernel(found, rest)
    costs = {variant.name: _costs(variant, results.params.margins, _quiet(results, variant.timed_on))
             for variant in results.variants}
    return Claims(results, quality, others, costs, below_lead, cut_off)


def _of_each_kernel(found: Mapping[str, Found], functions: Mapping[str, list[Variant]]) -> dict[str, Found]:
    """By variant what was found by function."""
    return {kernel.name: found[name] for name, kernels in functions.items() for kernel in kernels}


def _cut_off(functions: Mapping[str, list[Variant]]) -> dict[str, list[int]]:
    """See `Claims`."""
    found = {}
    for kernels in functions.values():
        late = still_falling([training for kernel in kernels for training in kernel.trainings])
        for kernel in kernels:
            if seeds := [training.seed for training in kernel.trainings if any(training is one for one in late)]:
                found[kernel.name] = seeds
    return found


def _functions(results: Results) -> dict[str, list[Variant]]:
    """The variants by what they compute, each function under its first variant's name; the control under standard's."""
    functions: dict[str, list[Variant]] = {}
    for variant in [results.standard, *results.variants]:
        kernels = results.kernels_of(variant)
        functions.setdefault(results.standard.name if results.standard in kernels else kernels[0].name, kernels)
    return functions


def _primary(results: Results, functions: Mapping[str, list[Variant]], control: list[Variant], falling: set[str],
             ) -> dict[str, Quality]:
    if not functions:
        return {}
    measure, margin = results.primary, margin_of(results.primary, results.params.margins)
    scores = {name: _scores(measure, kernels) for name, kernels in functions.items()}
    seeds = len(results.params.seeds)
    quality = {}
    for name, comparison in compare_all(scores, _scores(measure, control), margin).items():
        length = _words(functions[name]) / _words(control)
        barred = _barred(comparison, seeds, falling & {name, results.standard.name}, name, length)
        quality[name] = Quality(comparison, margin, seeds, barred)
    return quality


def _barred(comparison: Comparison, seeds: int, falling: set[str], name: str, length: float) -> str:
    """Why nothing may be claimed about a function's quality; see `Quality`."""
    if seeds == 1:
        return "one seed"
    if falling:
        return f"{'it' if name in falling else CONTROL} was still falling"
    if comparison.verdict == "better" and length < LEAST_LENGTH:
        return f"its summaries are {length:.0%} as long".replace("%", " %")
    return ""


def _secondary(measure: str, functions: Mapping[str, list[Variant]], control: list[Variant], margin: float,
               ) -> dict[str, Comparison]:
    """For their intervals; no verdict is given on these measures."""
    against = _better(measure, control)
    return {name: _restored(compare(_better(measure, kernels), against, margin), measure)
            for name, kernels in functions.items()}


def _known(measure: str, variants: Iterable[Variant]) -> bool:
    """Whether every training has the measure: one that states nothing has no precision."""
    return all(measure in available(training.details["articles"])
               for variant in variants for training in variant.trainings)


def _restored(found: Comparison, measure: str) -> Comparison:
    """The difference with its own sign, if the negatives were compared."""
    if measure not in LOWER_IS_BETTER:
        return found
    return Comparison(-found.difference, -found.high, -found.low, found.p, found.within, found.trainings)


def _better(measure: str, kernels: Iterable[Variant]) -> Array:
    return (-1 if measure in LOWER_IS_BETTER else 1) * _scores(measure, kernels)


def _scores(measure: str, kernels: Iterable[Variant]) -> Array:
    """[trainings, articles] of a function: its kernels averaged for each seed, because they are not independent."""
    return np.asarray(np.mean([kernel.scores(measure) for kernel in kernels], axis=0))


def _mean(measure: str, kernels: list[Variant]) -> float:
    return float(np.mean([kernel.quality[measure] for kernel in kernels]))


def _words(kernels: list[Variant]) -> float:
    return float(np.mean([kernel.details["summary_words"] for kernel in kernels]))


def margin_of(measure: str, margins: Margins) -> float:
    """The smallest difference of interest in a measure of quality."""
    return margins.fact_recall if measure.startswith("fact") else margins.quality


def _costs(variant: Variant, margins: Margins, quiet: Mapping[str, float]) -> dict[str, Cost]:
    """By work; `quiet` is standard's time in each when the machine was least busy."""
    costs = {}
    for work in COSTS:
        margin, pairs = margins.memory if work == MEMORY else margins.time, variant.pairs(work)
        found = ratio(pairs, margin) if pairs else None
        if pairs and found and work != MEMORY and _beside(pairs) > LOADED * quiet[work]:
            found = replace(found, verdict="undecided", scattered=True)
        costs[work] = Cost(work, found, margin)
    return costs


def _quiet(results: Results, machine: str) -> dict[str, float]:
    """Standard's time in each work beside the variant beside which it was shortest on this machine."""
    there = [variant for variant in results.variants if variant.timed_on == machine]
    return {work: min((_beside(pairs) for variant in there if (pairs := variant.pairs(work))), default=inf)
            for work in COSTS}


def _beside(pairs: Sequence[tuple[float, float]]) -> float:
    return median(standard for _, standard in pairs)
