"""How sure the recommendation is, and what to do next: the lines below it on the terminal."""

from headtohead.params import as_option, seeds_from
from headtohead.paths import Run
from headtohead.reporting.claims import CONTROL, Claims, next_seeds
from headtohead.reporting.recommendation import busy, taken
from headtohead.reporting.tables import joined


def how_sure(claims: Claims) -> str:
    """How precisely differences are known, and from how much."""
    results = claims.results
    seeds, articles, pairs = len(results.params.seeds), results.test["articles"], results.params.chosen.profile.pairs
    cost = f"ratios of time and memory are from {pairs} pairs of fresh processes"
    if seeds == 1:
        return f"one seed tells no difference in quality from luck; {cost}"
    known = [f"±{(found.comparison.high - found.comparison.low) / 2:.3f} for {name} ({found.words})"
             for name, found in claims.quality.items()]
    return (f"{seeds} seeds and {articles:,} test articles give the difference to {CONTROL} in {claims.primary} to "
            f"{joined(known)}; {cost}")


def next_step(claims: Claims) -> str:
    """The most useful thing to do now, with its command."""
    params = claims.results.params
    if again := busy(claims):
        stages = " ".join(f"profile@{name}" for name in again)
        return f"profile again while nothing else runs: dvc repro --force -s {stages}, then dvc repro"
    if claims.cut_off:
        steps = f"presets.{params.preset}.train.steps={2 * params.chosen.train.steps}"
        return f"train to the end: dvc exp run -S {steps}"
    if more := next_seeds(claims.seeds_needed.values(), len(params.seeds)):
        return f"train from more seeds: dvc exp run {as_option('seeds', seeds_from(params.seeds, more))}"
    if (variant := taken(claims)) is None:
        return "give the models a better start: more train.steps, more articles, or model.pretrained (docs/presets.md)"
    return f"use the model: h2h summarize FILE --model {Run(variant.name, params.seeds[0]).model}"
