"""Which differences from standard the data support. Everything else is called noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

from headtohead.quality.intervals import difference
from headtohead.reporting.results import Variant
from headtohead.reporting.tables import short

QUALITY = {"rouge1": "ROUGE-1", "rougeL": "ROUGE-L", "bleu": "BLEU", "loss": "loss", "fact_recall": "fact recall"}
TIMES = {"forward": "forward pass", "first_token": "first token", "generate": "generation",
         "train_step": "training step"}
MEMORY = "peak memory"
LEAST_MEMORY = 0.02  # a smaller relative difference is called none
LOWER_IS_BETTER = ("loss",)
DECISIVE = (tuple(QUALITY.values()), (TIMES["generate"],), (MEMORY,))  # what a choice rests on, what counts most first


@dataclass(frozen=True)
class Finding:
    """One comparison with standard. `better` is None where the data support no difference."""

    measure: str
    better: bool | None
    evidence: str


def judge(variant: Variant, standard: Variant, floors: dict[str, float], seed: int) -> list[Finding]:
    """Every comparison of `variant` with `standard`; `floors` from `noise_floors`."""
    measures = [name for name in QUALITY if name in standard.quality]
    return [*(_quality(name, variant, standard, floors[name], seed) for name in measures),
            *(_time(work, variant, standard) for work in TIMES if variant.timings(work) and standard.timings(work)),
            _memory(variant, standard)]


def noise_floors(variants: Sequence[Variant], seed: int) -> dict[str, float]:
    """How far luck in training alone may move each measure: the training noise floor.

    Two variants that differ in nothing but the kernel compute the same function, so what differs between them
    is noise. The floor is the far end of that difference's interval, the largest over all such pairs, and 0 where
    there is no pair: one pair is one draw of the noise, and its difference may be small by chance.
    """
    pairs = [pair for pair in combinations(variants, 2) if same_function(*pair)]
    return {name: max((max(map(abs, difference(name, a.details["articles"], b.details["articles"], seed)[1:]))
                       for a, b in pairs), default=0.0)
            for name in QUALITY if name in variants[0].quality}


def same_function(a: Variant, b: Variant) -> bool:
    """True where nothing but the kernel differs."""
    return a.spec.model_copy(update={"kernel": b.spec.kernel}) == b.spec


def _quality(name: str, variant: Variant, standard: Variant, floor: float, seed: int) -> Finding:
    """A difference counts if its whole interval lies beyond the training noise floor.

    Of a variant that computes the same function it never does: its own difference made the floor.
    """
    change, low, high = difference(name, variant.details["articles"], standard.details["articles"], seed)
    evidence = f"{change:+.3f} ({low:+.3f} to {high:+.3f})"
    if low <= floor and high >= -floor:
        return Finding(QUALITY[name], None, evidence)
    return Finding(QUALITY[name], (change > 0) != (name in LOWER_IS_BETTER), evidence)


def _time(work: str, variant: Variant, standard: Variant) -> Finding:
    """A difference counts if the two ranges from the 10th to the 90th percentile do not overlap, and it is larger
    than how far the machine itself differed meanwhile, by the yardstick timed beside each variant."""
    batch = min(variant.timing(work)["batch"], standard.timing(work)["batch"])  # they differ if memory ran out
    ours, theirs = variant.timing(work, batch), standard.timing(work, batch)
    evidence = f"{short(ours['median'])} against {short(theirs['median'])} ms"
    overlap = ours["p10"] <= theirs["p90"] and theirs["p10"] <= ours["p90"]
    if overlap or _ratio(ours, theirs) <= drift(variant, standard):
        return Finding(TIMES[work], None, evidence)
    return Finding(TIMES[work], ours["median"] < theirs["median"], evidence)


def drift(variant: Variant, standard: Variant) -> float:
    """How much slower the machine was for one than for the other: the ratio, at least 1, of their yardsticks."""
    return _ratio(variant.timings("yardstick")[0], standard.timings("yardstick")[0])


def _ratio(a: dict[str, Any], b: dict[str, Any]) -> float:
    return float(max(a["median"] / b["median"], b["median"] / a["median"]))


def _memory(variant: Variant, standard: Variant) -> Finding:
    ours, theirs = variant.efficiency["peak_memory_mb"], standard.efficiency["peak_memory_mb"]
    evidence = f"{ours / theirs - 1:+.0%}"
    better = None if abs(ours / theirs - 1) < LEAST_MEMORY else ours < theirs
    return Finding(MEMORY, better, evidence)


def in_words(variant: Variant, standard: Variant, findings: Sequence[Finding]) -> str:
    """One line: what is better, what is worse, and what is no difference beyond noise."""
    better = [f"{f.measure} {f.evidence}" for f in findings if f.better]
    worse = [f"{f.measure} {f.evidence}" for f in findings if f.better is False]
    noise = [f.measure for f in findings if f.better is None]
    parts = [f"{word}: {', '.join(what)}" for word, what in
             (("better", better), ("worse", worse), ("no difference beyond noise", noise)) if what]
    text = "; ".join(parts) + "."
    same = " It computes the same function as standard, so its quality can differ by luck in training alone."
    return text + (same if same_function(variant, standard) else "")


def recommend(judged: dict[str, list[Finding]], variants: Sequence[Variant]) -> str:
    """The report's first sentence: the variant to take on this machine.

    Quality decides, then generation, then memory; between equals the shorter median of generation.
    """
    milliseconds = {variant.name: variant.efficiency["generate_ms"] for variant in variants}
    best = max(judged, key=lambda name: (_standing(judged[name]), -milliseconds[name]))
    standing = _standing(judged[best])
    if standing <= (0, 0, 0):
        return "On this machine, keep standard: nothing beats it beyond noise without losing quality."
    gains, losses = (_named({best: judged[best]}, {*chain(*DECISIVE)}, better).get(best) for better in (True, False))
    price = f", though {losses}" if losses else ", at no loss of quality that shows" if standing[0] == 0 else ""
    return f"On this machine, take {best}: {gains}{price}."


def _standing(findings: Sequence[Finding]) -> tuple[int, ...]:
    """How a variant stands to standard in each group of `DECISIVE`: 1 better, -1 worse in anything, 0 neither."""
    signs = [[0 if f.better is None else 1 if f.better else -1 for f in findings if f.measure in group]
             for group in DECISIVE]
    return tuple(min(sign) or max(sign) for sign in signs)


def answers(judged: dict[str, list[Finding]], articles: int) -> dict[str, str]:
    """Which variant for what, and how sure.

    Args:
        judged: the findings of each variant other than standard.
        articles: how many test articles they rest on.
    """
    quality = set(QUALITY.values())
    worse = _named(judged, quality, better=False)
    gains = {name: why for name, why in _named(judged, quality, better=True).items() if name not in worse}
    loss = f", and {' and '.join(worse)} {'loses' if len(worse) == 1 else 'lose'} quality" if worse else ""
    return {"For the best summaries": f"{_list(gains) or 'no variant beats standard beyond noise'}{loss}.",
            "For speed": f"{_take(judged, TIMES['generate'], worse)}.",
            "For memory": f"{_take(judged, MEMORY, worse)}.",
            "How sure": f"{articles} test articles and one training run per variant, so the intervals cover the choice "
                        "of articles, not the luck of training."}


def _take(judged: dict[str, list[Finding]], measure: str, worse: dict[str, str]) -> str:
    """What to take for `measure`: variants that beat standard there, those that pay for it in quality apart."""
    better = _named(judged, {measure}, better=True)
    if not better:
        return "no variant beats standard beyond noise"
    free = {name: why for name, why in better.items() if name not in worse}
    paid = {name: why for name, why in better.items() if name in worse}
    text = (f"{_list(free)}, at no loss of quality that shows" if free else
            "nothing beats standard without losing quality")
    return text + (f"; {_list(paid)} at a loss of quality" if paid else "")


def _named(judged: dict[str, list[Finding]], measures: set[str], better: bool) -> dict[str, str]:
    """The variants with such a finding, and the evidence."""
    found = {name: [f"{f.measure} {f.evidence}" for f in findings if f.measure in measures and f.better is better]
             for name, findings in judged.items()}
    return {name: ", ".join(evidence) for name, evidence in found.items() if evidence}


def _list(named: dict[str, str]) -> str:
    return " or ".join(f"{name} ({why})" for name, why in named.items())
