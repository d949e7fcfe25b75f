"""Fact recall: the share of an article's facts whose value its summary states, also by distance and by kind."""

from collections.abc import Mapping, Sequence
from typing import Any

import regex

from headtohead.quality.intervals import interval
from headtohead.quality.measures import FACT_RECALL, measure_all
from headtohead.words import SPACED, UNSPACED

# Tokens between a fact in the article and its mention in the reference: where each group begins.
DISTANCES = (0, 32, 64, 96, 128, 256, 512)


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


def find(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One row a fact, {"id", "kind", "distance", "found"}, of every summary; `facts` by article id."""
    return [{"id": row["id"], "kind": fact["kind"], "distance": group(fact["distance"]),
             "found": states(row["summary"], fact["value"])}
            for row in rows for fact in facts[row["id"]]]


def columns(ids: Sequence[str], found: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Facts and found facts of each article, in the order of `ids`; an article may have none."""
    total, hits = dict.fromkeys(ids, 0), dict.fromkeys(ids, 0)
    for fact in found:
        total[fact["id"]] += 1
        hits[fact["id"]] += fact["found"]
    return {"facts": list(total.values()), "facts_found": list(hits.values())}


def recall_by(key: str, ids: Sequence[str], found: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Fact recall of each group ("distance" or "kind") with its count and interval; whole articles are resampled."""
    rows = []
    for name in sorted({fact[key] for fact in found}, key=_order):
        counts = columns(ids, [fact for fact in found if fact[key] == name])
        articles = {"id": ids, **counts}
        low, high = interval(FACT_RECALL, articles, seed)
        rows.append({key: name, "facts": sum(counts["facts"]), **measure_all([FACT_RECALL], articles),
                     "fact_recall_low": low, "fact_recall_high": high})
    return rows


def _order(name: str) -> tuple[int, str]:
    """Groups of distances by where they begin, kinds by name."""
    begin = regex.match(r"\d+", name)
    return (int(begin.group()) if begin else 0, name)
