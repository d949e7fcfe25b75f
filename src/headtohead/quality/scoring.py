"""Score one system's summaries: a few numbers for `dvc metrics diff`, and everything else for the report."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from headtohead.params import ENGLISH
from headtohead.quality import facts as fact_recall
from headtohead.quality.intervals import LEVEL, RESAMPLES, interval
from headtohead.quality.language import settings
from headtohead.quality.measures import FACT_RECALL, LOSS, available, measure_all
from headtohead.quality.metric import SummaryQuality
from headtohead.words import pieces

Row = Mapping[str, Any]
MAIN = "test"
PACKAGES = ("rouge-score", "sacrebleu", "evaluate", "nltk", "snowballstemmer", "py3langid", "sentencex", "numpy")


def score(rows: Sequence[Row], facts: Sequence[Row], seed: int,
          language: str = ENGLISH) -> tuple[dict[str, float], dict[str, Any]]:
    """Score summaries.

    Args:
        rows: {"id", "summary", "reference"} and, of a model, {"loss", "tokens"}: mean nats per reference token
            and their number. Rows of further test sets carry their name as "set"; "cut" may say how many tokens
            of the article the model could not be shown, "written_by" what computed its attention.
        facts: {"set", "id", "facts": [{"kind", "value", "distance"}]}; empty where the source knows none.
        seed: of the bootstrap.
        language: of the articles; one of `params.LANGUAGES`.

    Returns:
        Two dictionaries. The flat one: rouge1, rouge2, rougeL, rougeLsum, bleu (0..1), loss where the rows have
        one, fact_recall where facts are known. The details: the same with NAME_low and NAME_high;
        "fact_recall_by_distance" and "fact_recall_by_kind"; "articles", the columns of `measures.measure`;
        "summary_words" and "reference_words", their mean lengths, in scripts without spaces in letters; "written_by"
        if the rows have it; "scorer"; and "further", details of each further set.

    Raises:
        ValueError: a row without a needed key, an id twice in one set, or facts of an article that is not there.
    """
    sets = _by_set(rows)
    details = {name: _score_set(name, members, _facts_of(name, members, facts), seed, language)
               for name, members in sets.items()}
    main = details.pop(MAIN)
    flat = {name: main[name] for name in available(main["articles"])}
    return flat, {**main, "further": details, "scorer": _scorer(language)}


def _score_set(name: str, rows: Sequence[Row], facts: Mapping[str, Any], seed: int, language: str) -> dict[str, Any]:
    """Everything about the summaries of one test set."""
    ids = [row["id"] for row in rows]
    summaries, references = ([row[side] for row in rows] for side in ("summary", "reference"))
    metric = SummaryQuality(language, seed=seed).compute(predictions=summaries, references=references, by_article=True)
    articles = {"id": ids, **metric["articles"], **_losses(name, rows)}
    found = fact_recall.find(rows, facts) if facts else []
    articles |= fact_recall.columns(ids, found) if found else {}
    values = measure_all(available(articles), articles)
    return {**values, **_intervals(values, articles, seed),
            **{f"{FACT_RECALL}_by_{key}": fact_recall.recall_by(key, ids, found, seed)
               for key in ("distance", "kind") if found},
            "summary_words": _mean_words(summaries), "reference_words": _mean_words(references),
            **({"cut": sum(row["cut"] > 0 for row in rows) / len(rows)} if "cut" in rows[0] else {}),
            **({"written_by": rows[0]["written_by"]} if "written_by" in rows[0] else {}),
            "articles": articles}


def _mean_words(texts: Sequence[str]) -> float:
    return sum(len(pieces(text)) for text in texts) / len(texts)


def _intervals(values: Mapping[str, float], articles: Mapping[str, Any], seed: int) -> dict[str, float]:
    ends = {name: interval(name, articles, seed) for name in values}
    return {f"{name}_{side}": ends[name][i] for name in ends for i, side in enumerate(("low", "high"))}


def _losses(name: str, rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The columns `loss` and `tokens`, or none where no row has a loss."""
    if not any(LOSS in row for row in rows):
        return {}
    if without := [row["id"] for row in rows if LOSS not in row or "tokens" not in row]:
        raise ValueError(f"set {name!r}: row {without[0]!r} has no loss or no tokens, others have")
    return {key: [row[key] for row in rows] for key in (LOSS, "tokens")}


def _by_set(rows: Sequence[Row]) -> dict[str, list[Row]]:
    sets: dict[str, list[Row]] = {MAIN: []}
    for number, row in enumerate(rows, start=1):
        if missing := {"id", "summary", "reference"} - row.keys():
            raise ValueError(f"row {number} (id {row.get('id')!r}) lacks {', '.join(sorted(missing))}")
        sets.setdefault(row.get("set", MAIN), []).append(row)
    for name, members in sets.items():
        ids = [row["id"] for row in members]
        if not ids:
            raise ValueError(f"set {name!r} has no rows")
        if len(set(ids)) < len(ids):
            raise ValueError(f"set {name!r} has the id {next(i for i in ids if ids.count(i) > 1)!r} twice")
    return sets


def _facts_of(name: str, rows: Sequence[Row], facts: Sequence[Row]) -> dict[str, Any]:
    """The facts of every article of a set by its id; empty where the set has none at all."""
    known = {row["id"]: row["facts"] for row in facts if row["set"] == name}
    if unknown := known.keys() - {row["id"] for row in rows}:
        raise ValueError(f"set {name!r}: facts of {min(unknown)!r}, but no such row")
    return {row["id"]: known.get(row["id"], []) for row in rows} if known else {}


def _scorer(language: str) -> dict[str, Any]:
    return {**settings(language), "interval": f"{LEVEL:.0%} percentile bootstrap over articles, {RESAMPLES} resamples",
            "versions": {package: importlib.metadata.version(package) for package in PACKAGES}}
