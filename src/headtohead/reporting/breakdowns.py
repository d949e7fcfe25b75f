"""Quality in detail: facts by distance, position and kind, what else is stated, and further test sets."""

from collections.abc import Mapping
from typing import Any

from headtohead.quality.measures import FACT_PRECISION, FACT_RECALL, LOSS, ROUGE, WRONG_FROM_ARTICLE
from headtohead.reporting.results import Results
from headtohead.reporting.tables import LABELS, NOTHING, Table, joined, with_interval

MOVED = f"{FACT_RECALL}_by_position"  # what the details of a set with moved facts have


def recall_by(key: str, results: Results) -> Table:
    """Fact recall of every system for each group of facts, `key` being "distance" or "kind"."""
    title = "{} tokens" if key == "distance" else "{}"
    return _recall(key, title, {system.name: system.details for system in (*results.variants, *results.baselines)})


def has_moved_facts(results: Results) -> bool:
    """Whether one fact's sentence was moved in some test set."""
    return any(MOVED in part for part in results.standard.details["further"].values())


def recall_by_position(results: Results) -> Table:
    """Fact recall of every variant by the position of the fact's sentence, all else fixed; 0 is first."""
    [name] = [name for name, part in results.standard.details["further"].items() if MOVED in part]
    return _recall("position", "place {}", {variant.name: variant.details["further"][name]
                                            for variant in results.variants})


def _recall(key: str, title: str, systems: Mapping[str, Mapping[str, Any]]) -> Table:
    groups = {name: details[f"{FACT_RECALL}_by_{key}"] for name, details in systems.items()}
    first = next(iter(groups.values()))
    rows = [[name, *(with_interval(group, FACT_RECALL) for group in own)] for name, own in groups.items()]
    return Table(["model", *(title.format(group[key]) for group in first)],
                 [*rows, ["tokens to the mention", *(f"{group['tokens']:.0f}" for group in first)],
                  ["facts in the group", *(str(group["facts"]) for group in first)]])


def stated(results: Results) -> Table:
    """What summaries state besides right facts, and where the wrong ones come from."""
    measures = (FACT_RECALL, FACT_PRECISION, WRONG_FROM_ARTICLE)
    return Table(["model", *(LABELS[name] for name in measures)],
                 [[system.name, *(with_interval(system.details, name) for name in measures)]
                  for system in (*results.variants, *results.baselines)])


def has_longer(results: Results) -> bool:
    """Whether there are further test sets beside that with moved facts."""
    return any(MOVED not in part for part in results.standard.details["further"].values())


def further(results: Results) -> Table:
    """Loss, ROUGE-1 and fact recall of every variant on the test set and on each longer one, the shortest first."""
    measures = (LOSS, ROUGE[0], FACT_RECALL)
    longer = [name for name, part in results.standard.details["further"].items() if MOVED not in part]
    rows = []
    for variant in results.variants:
        sets = {"test": variant.details, **{name: variant.details["further"][name] for name in longer}}
        for name, part in sets.items():
            cut = f"{part['cut']:.0%}" if "cut" in part else NOTHING
            rows.append([variant.name, name, *(with_interval(part, measure) for measure in measures), cut])
    return Table(["variant", "test set", *(LABELS[name] for name in measures), "articles cut"], rows, words=2)


def without_table(results: Results) -> str:
    """The variants without a position table, which can read longer articles."""
    return joined([variant.name for variant in results.variants if variant.profile["length_limit"] is None])
