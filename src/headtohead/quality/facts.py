"""Which of an article's facts its summary states, also by distance, kind and position; and what else it states."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import regex

from headtohead.articles.newswire import stated
from headtohead.quality.measures import FACT_RECALL, over_trainings
from headtohead.words import SPACED, UNSPACED

# Tokens between a fact in the article and its mention in the reference: where each group begins.
DISTANCES = (0, 32, 64, 96, 128, 256, 512)

Facts = Mapping[str, Sequence[Any]]  # columns: a value for each fact


def mention(value: str) -> str:
    """A pattern of `regex` V1 for `value` as words of its own: "12" is not in "120", "1,200" or "12.5".

    A script without spaces shows no end of a word: there its letters are enough.
    """
    before = "" if regex.match(UNSPACED, value, regex.V1) else rf"(?<!{SPACED})(?<!\d[.,])"
    after = r"(?!\p{M})" if regex.search(rf"{UNSPACED}\p{{M}}*$", value, regex.V1) else rf"(?!{SPACED})(?![.,]\d)"
    return before + r"\s+".join(map(regex.escape, value.split())) + after


def states(summary: str, value: str) -> bool:
    """True where `summary` mentions `value`."""
    return regex.search(mention(value), summary, regex.V1) is not None


def group(distance: int) -> str:
    """The name of the group of distances, in tokens, that `distance` falls into: "32-63", or "512+"."""
    begin = max(edge for edge in DISTANCES if edge <= distance)
    following = DISTANCES[DISTANCES.index(begin) + 1:]
    return f"{begin}-{following[0] - 1}" if following else f"{begin}+"


def find(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[Any]]:
    """Every fact of every article, by columns: id, kind, distance (tokens), position if they have one, and found.

    Args:
        rows: {"id", "summary"}.
        facts: by article id; an article may have none.
    """
    every = [(row, fact) for row in rows for fact in facts[row["id"]]]
    known = [key for key in ("kind", "distance", "position") if all(key in fact for _, fact in every)]
    return {"id": [row["id"] for row, _ in every], **{key: [fact[key] for _, fact in every] for key in known},
            "found": [states(row["summary"], fact["value"]) for row, fact in every]}


def recall_columns(ids: Sequence[str], facts: Facts, which: Iterable[int] | None = None) -> dict[str, list[int]]:
    """Facts and found facts of each article, in the order of `ids`: of all `facts`, or of those in the rows `which`."""
    total, hits = dict.fromkeys(ids, 0), dict.fromkeys(ids, 0)
    for row in range(len(facts["id"])) if which is None else which:
        total[facts["id"][row]] += 1
        hits[facts["id"][row]] += facts["found"][row]
    return {"facts": list(total.values()), "facts_found": list(hits.values())}


def value_columns(summaries: Sequence[str], references: Sequence[Sequence[str]], articles: Sequence[str]
                  ) -> dict[str, list[int]]:
    """How many values of the bundled reports each summary states, how many of them are right, and how many copied.

    Right are those that a reference states; copied are wrong ones that the article states.
    """
    columns: dict[str, list[int]] = {"values": [], "values_right": [], "values_copied": []}
    for summary, texts, article in zip(summaries, references, articles, strict=True):
        values = stated(summary)
        wrong = values - set().union(*map(stated, texts))
        columns["values"].append(len(values))
        columns["values_right"].append(len(values) - len(wrong))
        columns["values_copied"].append(len(wrong & stated(article)))
    return columns


def recall_by(key: str, ids: Sequence[str], trainings: Sequence[Facts]) -> list[dict[str, Any]]:
    """Fact recall of each group of facts.

    Args:
        key: what groups them: "distance", "kind" or "position".
        ids: of all articles.
        trainings: the facts as `find` gives them, the same ones in the same order for each training.

    Returns:
        A row a group: its name as `key`, "facts" (how many), "tokens" (their mean distance), and fact_recall as
        `measures.over_trainings` has it.
    """
    members: dict[Any, list[int]] = {}
    for row, value in enumerate(trainings[0][key]):
        members.setdefault(group(value) if key == "distance" else value, []).append(row)
    return [{key: name, "facts": len(which), "tokens": float(np.mean([trainings[0]["distance"][row] for row in which])),
             **over_trainings(FACT_RECALL, [recall_columns(ids, facts, which) for facts in trainings])}
            for name, which in sorted(members.items(), key=lambda member: _order(str(member[0])))]


def _order(name: str) -> tuple[int, str]:
    """Groups of distances by where they begin, positions by number, kinds by name."""
    begin = regex.match(r"\d+", name)
    return (int(begin.group()) if begin else 0, name)
