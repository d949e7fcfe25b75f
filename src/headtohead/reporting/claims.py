"""What may be claimed of the variants of a run: the one place between statistics and words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headtohead.params import Margins
from headtohead.quality.measures import BLEU, FACT_PRECISION, LOSS, ROUGE, Array, available
from headtohead.reporting.endings import still_falling
from headtohead.reporting.results import Results, Variant
from headtohead.reporting.tables import LABELS, signed, times
from headtohead.statistics import Comparison, Ratio, compare, compare_all, ratio

CONTROL = "full attention"  # the function of standard
SECONDARY = (*ROUGE[:2], ROUGE[3], BLEU, LOSS, FACT_PRECISION)
LOWER_IS_BETTER = (LOSS,)
LEAST_LENGTH = 0.9  # of the control's summaries: MLPerf's gate, for a few sure words can score well
COSTS = {"forward": "forward pass", "first_token": "first token", "generate": "generation",
         "train_step": "training step", "memory": "peak memory"}
MEMORY = "memory"
BUSY = "busy"  # the pairs lie so far apart that something else must have used the machine
Standing = Literal["better", "worse", "equivalent", "undecided"]


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
        """What a choice may rest on: a difference that is surely smaller than the margin makes none."""
        return "equivalent" if self.comparison.within and not self.barred else self.verdict

    @property
    def words(self) -> str:
        if self.verdict == "equivalent":
            return f"equivalent within {self.margin:g}"
        if self.verdict != "undecided":
            return self.verdict + f", by less than {self.margin:g}" * self.comparison.within
        return f"{'no claim' if self.barred else 'undecided'}: {self.doubt}"

    @property
    def doubt(self) -> str:
        """What nothing can be claimed for, or what would tell."""
        if self.barred:
            return self.barred
        needed = self.comparison.trainings
        if needed is None:
            return "only more articles would tell"
        return f"about {needed} seeds would tell" if needed > self.trainings else "near the margin"


@dataclass(frozen=True)
class Cost:
    """Time or memory of a variant over standard's; None if there was no room for one of them."""

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
    """Everything that is claimed of a run.

    Args:
        quality: of each variant that computes something else than standard; kernels of one function share it.
        others: the differences to full attention on the measures that decide nothing, by measure and variant. Of the
            loss, too, ours minus full attention's.
        costs: by variant and work; those of standard are of standard against itself.
        below_lead: variants whose primary measure is below Lead-3's.
        cut_off: the seeds of a variant's trainings that were cut off before their end; only of variants that have some.
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

    def difference(self, measure: str, variant: str) -> Comparison | None:
        """To full attention; None of a variant that computes it."""
        if measure == self.results.primary:
            return self.quality[variant].comparison if variant in self.quality else None
        return self.others.get(measure, {}).get(variant)

    def shown(self, measure: str, variant: str) -> str:
        """The difference with its interval; empty for a variant that computes full attention."""
        found = self.difference(measure, variant)
        return signed(found.difference, found.low, found.high) if found else ""


def judge(results: Results) -> Claims:
    """All claims of a run."""
    functions = _functions(results)
    control = functions[results.standard.name]
    rest = {name: kernels for name, kernels in functions.items() if kernels is not control}
    function_of = {kernel.name: name for name, kernels in rest.items() for kernel in kernels}
    cut_off = _cut_off(functions)
    late = {name for name, kernels in functions.items() if any(kernel.name in cut_off for kernel in kernels)}
    primary = _primary(results, rest, control, late)
    others = {measure: _secondary(measure, rest, control, _margin(results, measure))
              for measure in SECONDARY if measure != results.primary and _known(measure, results.variants)}
    return Claims(
        results, {variant: primary[name] for variant, name in function_of.items()},
        {measure: {variant: found[name] for variant, name in function_of.items()} for measure, found in others.items()},
        {variant.name: _costs(variant, results.params.margins) for variant in results.variants},
        {kernel.name for kernels in functions.values() for kernel in kernels
         if _mean(results.primary, kernels) < results.lead3.quality[results.primary]},
        cut_off)


def _cut_off(functions: Mapping[str, list[Variant]]) -> dict[str, list[int]]:
    """See `Claims`; kernels of one function are held against each other."""
    found = {}
    for kernels in functions.values():
        late = still_falling([training for kernel in kernels for training in kernel.trainings])
        for kernel in kernels:
            if seeds := [training.seed for training in kernel.trainings if any(training is one for one in late)]:
                found[kernel.name] = seeds
    return found


def _functions(results: Results) -> dict[str, list[Variant]]:
    """The variants by what they compute, under the name of the first of each; standard's is the control's."""
    functions: dict[str, list[Variant]] = {}
    for variant in [results.standard, *results.variants]:
        kernels = results.kernels_of(variant)
        functions.setdefault(results.standard.name if results.standard in kernels else kernels[0].name, kernels)
    return functions


def _primary(results: Results, functions: Mapping[str, list[Variant]], control: list[Variant], falling: set[str],
             ) -> dict[str, Quality]:
    measure, margin = results.primary, _margin(results, results.primary)
    found = compare_all({name: _scores(measure, kernels) for name, kernels in functions.items()},
                        _scores(measure, control), margin) if functions else {}
    seeds = len(results.params.seeds)
    return {name: Quality(comparison, margin, seeds, _barred(
        comparison, seeds, falling & {name, results.standard.name}, name, _words(functions[name]) / _words(control)))
        for name, comparison in found.items()}


def _barred(comparison: Comparison, seeds: int, falling: set[str], name: str, length: float) -> str:
    """Why nothing may be claimed of a function's quality; see `Quality`."""
    if seeds == 1:
        return "one seed"
    if falling:
        return f"{'it' if name in falling else CONTROL} was still falling"
    if comparison.verdict == "better" and length < LEAST_LENGTH:
        return f"its summaries are {length:.0%} as long".replace("%", " %")
    return ""


def _secondary(measure: str, functions: Mapping[str, list[Variant]], control: list[Variant], margin: float,
               ) -> dict[str, Comparison]:
    """For their intervals alone; of these measures no verdict is told."""
    return {name: _restored(compare(_better(measure, kernels), _better(measure, control), margin), measure)
            for name, kernels in functions.items()}


def _known(measure: str, variants: Iterable[Variant]) -> bool:
    """Of every training: the precision of one that states nothing is none."""
    return all(measure in available(training.details["articles"])
               for variant in variants for training in variant.trainings)


def _restored(found: Comparison, measure: str) -> Comparison:
    """The difference as it is, where it was compared as its negative."""
    if measure not in LOWER_IS_BETTER:
        return found
    return Comparison(-found.difference, -found.high, -found.low, found.p, found.within, found.trainings)


def _better(measure: str, kernels: Iterable[Variant]) -> Array:
    return (-1 if measure in LOWER_IS_BETTER else 1) * _scores(measure, kernels)


def _scores(measure: str, kernels: Iterable[Variant]) -> Array:
    """[trainings, articles] of a function: its kernels averaged for each seed, for they are no draws of their own."""
    return np.asarray(np.mean([kernel.scores(measure) for kernel in kernels], axis=0))


def _mean(measure: str, kernels: list[Variant]) -> float:
    return float(np.mean([kernel.quality[measure] for kernel in kernels]))


def _words(kernels: list[Variant]) -> float:
    return float(np.mean([kernel.details["summary_words"] for kernel in kernels]))


def _margin(results: Results, measure: str) -> float:
    margins = results.params.margins
    return margins.fact_recall if measure.startswith("fact") else margins.quality


def _costs(variant: Variant, margins: Margins) -> dict[str, Cost]:
    return {work: Cost(work, ratio(pairs, margin) if (pairs := variant.pairs(work)) else None, margin)
            for work in COSTS for margin in [margins.memory if work == MEMORY else margins.time]}
