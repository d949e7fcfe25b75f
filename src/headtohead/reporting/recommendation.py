"""The report's first sentence, and the warnings that belong to it."""

from collections.abc import Iterable, Mapping
from math import inf, log

from headtohead.quality.measures import ROUGE
from headtohead.reporting import machines
from headtohead.reporting.claims import BUSY, CONTROL, COSTS, Claims, Cost
from headtohead.reporting.results import Variant
from headtohead.reporting.tables import joined, spans
from headtohead.statistics import Comparison

GAINS = {"generate": "generation takes {} times as long", "forward": "a forward pass takes {} times as long",
         "memory": "peak memory is {} times as large"}  # possible reasons to take a variant
LOSSES = ("forward", "generate", "train_step", "memory")  # possible reasons not to
HELP = "more steps, a pretrained model or more articles would help"
MOST_CUT = 0.1  # of the test articles, before the report warns
ROUGE1 = ROUGE[0]


def recommend(claims: Claims) -> str:
    """Which variant to take on this machine, in one sentence that claims no more than is known."""
    variant = taken(claims)
    if variant is None:
        return _no_recommendation(claims)
    if variant is not claims.results.standard:
        return _recommend(claims, variant)
    tempting = [variant for variant in _sound(claims) if _gains(claims, variant) or _better(claims, variant)]
    if not tempting:
        return "Keep standard: no variant is shown to be better, smaller or faster in inference."
    return _keep_standard(claims, _best(claims, tempting))


def taken(claims: Claims) -> Variant | None:
    """The variant that is recommended; None if no model is good enough."""
    if fit := [variant for variant in _sound(claims) if _qualifies(claims, variant)]:
        return _best(claims, fit)
    standard = claims.results.standard
    return None if standard.name in claims.below_lead else standard


def _sound(claims: Claims) -> list[Variant]:
    """The variants besides standard that are not below Lead-3."""
    return [variant for variant in claims.results.variants
            if variant is not claims.results.standard and variant.name not in claims.below_lead]


def _qualifies(claims: Claims, variant: Variant) -> bool:
    """Whether it is better, or as good and cheaper, and no cost is or may be higher beyond its margin."""
    if _losses(claims, variant) or _open_costs(claims, variant) or _lower_rouge(claims, variant):
        return False
    quality = claims.quality.get(variant.name)
    as_good = quality is None or quality.standing == "equivalent"
    return _better(claims, variant) or (as_good and bool(_gains(claims, variant)))


def _better(claims: Claims, variant: Variant) -> bool:
    return variant.name in claims.quality and claims.quality[variant.name].standing == "better"


def _best(claims: Claims, variants: list[Variant]) -> Variant:
    """The best on the primary measure if some are better, else the one with the least doubt; then the cheapest.

    Differences within a margin count as ties, and the next criterion decides; last, the order of the variants.
    """
    doubt = {variant.name: _doubts(claims, variant) for variant in variants}
    left = [variant for variant in variants if doubt[variant.name] == min(doubt.values())]
    if all(_better(claims, variant) for variant in left):
        left = _level(left, {name: -found.comparison.difference for name, found in claims.quality.items()},
                      claims.quality[left[0].name].margin)
    for work in GAINS:
        costs = {name: costs[work] for name, costs in claims.costs.items()}
        left = _level(left, {name: log(cost.ratio.value) for name, cost in costs.items() if cost.ratio},
                      log(1 + costs[left[0].name].margin))
    return left[0]


def _doubts(claims: Claims, variant: Variant) -> int:
    """0 better, 1 as good, 2 undecided, 3 worse."""
    quality = claims.quality.get(variant.name)
    return 1 if quality is None else ("better", "equivalent", "undecided", "worse").index(quality.standing)


def _level(variants: list[Variant], values: Mapping[str, float], margin: float) -> list[Variant]:
    """Those whose value is at most the margin above the lowest; a missing value counts as the highest."""
    value = {variant.name: values.get(variant.name, inf) for variant in variants}
    return [variant for variant in variants if value[variant.name] <= min(value.values()) + margin]


def _gains(claims: Claims, variant: Variant) -> list[Cost]:
    return [cost for work in GAINS if (cost := claims.costs[variant.name][work]).less]


def _losses(claims: Claims, variant: Variant) -> list[str]:
    """What a variant is shown to be worse in."""
    quality, costs = claims.quality.get(variant.name), claims.costs[variant.name]
    worse = []
    if quality is not None and quality.standing == "worse":
        worse.append(f"its {claims.primary} is worse: {claims.shown(claims.results.primary, variant.name)}")
    for work in LOSSES:
        if costs[work].more:
            worse.append(f"its {COSTS[work]} is {costs[work].evidence} times standard's")
    return worse


def _open_costs(claims: Claims, variant: Variant) -> list[str]:
    """Costs that might still exceed standard's by more than the margin."""
    found = []
    for work in LOSSES:
        cost = claims.costs[variant.name][work]
        if cost.ratio is not None and cost.ratio.verdict != "equivalent" and cost.ratio.high >= 1 + cost.margin:
            found.append(COSTS[work])
    return found


def _lower_rouge(claims: Claims, variant: Variant) -> Comparison | None:
    """The difference in ROUGE-1, which has no verdict, if its estimate is lower by the margin or more."""
    found = claims.difference(ROUGE1, variant.name)
    lower = found is not None and found.difference <= -claims.results.params.margins.quality
    return found if lower and not _decides(claims) else None


def _decides(claims: Claims) -> bool:
    """Whether ROUGE-1 is the measure that decides."""
    return claims.results.primary == ROUGE1


def _recommend(claims: Claims, variant: Variant) -> str:
    gains, quality = _gains(claims, variant), claims.quality.get(variant.name)
    difference = claims.shown(claims.results.primary, variant.name)
    if quality is None:
        reason = "it computes what standard computes"
    elif quality.standing == "better":
        reason = f"{claims.primary} {difference} over {CONTROL}"
    else:
        reason = f"{claims.primary} is equivalent to {CONTROL}'s within {quality.margin:g} ({difference})"
    parts = [reason, *_in_words(gains), *_of_rouge(claims, variant), "no cost is higher beyond its margin"]
    return f"On this machine, take {variant.name}: {joined(parts)}."


def _of_rouge(claims: Claims, variant: Variant) -> list[str]:
    """What is known about ROUGE-1 if another measure is the primary one."""
    rouge, margin = claims.difference(ROUGE1, variant.name), claims.results.params.margins.quality
    if rouge is None or _decides(claims):
        return []
    return [f"ROUGE-1 is not inferior by {margin:g}" if rouge.low > -margin else "ROUGE-1 is not shown to be inferior"]


def _keep_standard(claims: Claims, variant: Variant) -> str:
    """The trade-off of the most tempting variant."""
    gains = _in_words(_gains(claims, variant))
    if _better(claims, variant):
        gains = [f"{claims.primary} is {claims.shown(claims.results.primary, variant.name)}", *gains]
    against = _losses(claims, variant) or [_doubt(claims, variant)]
    return f"Keep standard: with {variant.name} {joined(gains)}, but {joined(against)}."


def _doubt(claims: Claims, variant: Variant) -> str:
    """Why a variant that is not shown to be worse does not qualify."""
    if unclear := _open_costs(claims, variant):
        return f"whether its {joined(unclear)} costs more is open"
    rouge, quality = _lower_rouge(claims, variant), claims.quality[variant.name]
    if rouge and quality.standing != "undecided":
        return f"its ROUGE-1 {'is' if rouge.high < 0 else 'may be'} lower: {claims.shown(ROUGE1, variant.name)}"
    return f"whether its {claims.primary} is as good is open: {quality.doubt}"


def _in_words(gains: Iterable[Cost]) -> list[str]:
    """The gain in generation, or else in a forward pass; and that in memory."""
    evidence = {cost.work: cost.evidence for cost in gains}
    if "generate" in evidence:
        evidence.pop("forward", None)
    return [GAINS[work].format(words) for work, words in evidence.items()]


def _no_recommendation(claims: Claims) -> str:
    results = claims.results
    lead = f"that of Lead-3, an article's first three sentences ({results.lead3.quality[results.primary]:.3f})"
    if len(claims.below_lead) == len(results.variants):
        scores = sorted(variant.quality[results.primary] for variant in results.variants)
        return (f"No recommendation: the {claims.primary} of every model ({scores[0]:.3f} to {scores[-1]:.3f}) is "
                f"below {lead}; {HELP}.")
    own = results.standard.quality[results.primary]
    return (f"No recommendation: standard's {claims.primary} ({own:.3f}) is below {lead}, and of no variant above it "
            f"more is known; {HELP}.")


def warnings(claims: Claims) -> list[str]:
    """What limits the conclusions of this run; each a sentence or two."""
    results = claims.results
    found = []
    if len(results.params.seeds) == 1:
        found.append("Each variant was trained once, from one seed: no claim of quality is made.")
    if claims.cut_off:
        found.append(f"Cut off before their end: {joined(list(_trainings(claims.cut_off)))}. No quality is claimed of "
                     "such a variant; raise train.steps.")
    if unclear := [f"{name} ({', '.join(costs)})" for name, costs in busy(claims).items()]:
        found.append("The machine was busy: profile again, or in more pairs (profile.pairs). Of "
                     f"{joined(unclear)} no time or memory is claimed.")
    if claims.below_lead and len(claims.below_lead) < len(results.variants):
        found.append(f"Below Lead-3, so not recommended: {joined(sorted(claims.below_lead))}.")
    found += machines.warnings(results)
    cut = results.test["cut"] / results.test["articles"]
    if cut > MOST_CUT:
        found.append(f"{cut:.0%} of the test articles were cut: the models could not see the rest of them.".replace(
            "%", " %"))
    return found


def _trainings(falling: Mapping[str, list[int]]) -> Iterable[str]:
    return (f"{name} (seed{'s' * (len(seeds) > 1)} {joined(spans(seeds))})"
            for name, seeds in falling.items())


def busy(claims: Claims) -> dict[str, list[str]]:
    """Costs whose pairs disagree too much, by variant; without variants that have none."""
    found = {}
    for variant in claims.results.variants:
        if costs := [COSTS[cost.work] for cost in claims.costs[variant.name].values() if cost.words == BUSY]:
            found[variant.name] = costs
    return found
