"""Score summaries: of one training, with all that later comparisons need, and of a variant's trainings together."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from headtohead.params import ENGLISH
from headtohead.quality.facts import find, recall_by, recall_columns, value_columns
from headtohead.quality.language import settings
from headtohead.quality.measures import BLEU, FACT_RECALL, LOSS, ROUGE, available, over_trainings
from headtohead.quality.metric import SummaryQuality
from headtohead.words import pieces

Row = Mapping[str, Any]
Details = Mapping[str, Any]
MAIN = "test"
FLAT = (*ROUGE, BLEU, LOSS, FACT_RECALL)
TOKENS_A_PASS = "tokens_a_pass"
INTERVAL = "95% t interval over articles, and over trainings if there are several"
PACKAGES = ("rouge-score", "sacrebleu", "evaluate", "nltk", "snowballstemmer", "py3langid", "sentencex", "numpy",
            "scipy")


def score(rows: Sequence[Row], facts: Sequence[Row], articles: Mapping[str, Mapping[str, Row]],
          language: str = ENGLISH) -> dict[str, Any]:
    """Score the summaries of one training.

    Args:
        rows: {"id", "summary", "reference"} and, of a model, {"loss", "tokens"}: mean nats per reference token
            and their number. Rows of further test sets carry their name as "set"; "cut" may say how many tokens
            of the article the model could not be shown, "written_by" what computed its attention, "later_tokens" and
            "passes" how many tokens prompt lookup writes in how many passes.
        facts: {"set", "id", "facts": [{"kind", "value", "distance"}]}; empty if the source knows none.
        articles: by set and id, as `reading.read_articles` gives them: "references" are taken in place of a row's own,
            and where facts are known, "article" tells copied values from made-up ones. May lack any.
        language: of the articles; one of `params.LANGUAGES`.

    Returns:
        The details: rouge1, rouge2, rougeL, rougeLsum, bleu (0..1), loss if the rows have one, and if facts are known
        fact_recall, fact_precision (the share of stated values that are the story's own) and wrong_from_article (the
        share of wrong ones that the article states), the last two unless there is nothing to take a share of. Each has
        NAME_low, NAME_high and NAME_spread (`measures.over_trainings`). "fact_recall_by_distance", ".._by_kind" and,
        if facts were moved, ".._by_position": lists of `facts.recall_by`. "summary_words" and "reference_words", their
        mean lengths, in scripts without spaces in letters; "cut", the share of articles that were, "written_by" and
        "tokens_a_pass" if the rows have them. "articles", the columns of `measures.by_article`, and "by_fact", those
        of `facts.find`; "further", the same of each further set; and "scorer".

    Raises:
        ValueError: a row without a needed key, an id twice in one set, or facts of an article that is not there.
    """
    found = {name: _score_set(name, members, _facts_of(name, members, facts), articles.get(name, {}), language)
             for name, members in _by_set(rows).items()}
    return {**found.pop(MAIN), "further": found, "scorer": _scorer(language)}


def over_seeds(trainings: Sequence[Details]) -> tuple[dict[str, float], dict[str, Any]]:
    """Bring the trainings of one variant together.

    Args:
        trainings: as `score` returns them, of the same articles.

    Returns:
        Two dictionaries. The flat one: the means of rouge1, rouge2, rougeL, rougeLsum, bleu, and of loss and
        fact_recall if they are known; and "seeds", how many trainings there are. The details: as of one training, means
        with intervals over trainings and articles, without "articles" and "by_fact".

    Raises:
        ValueError: the trainings are not of the same articles in the same order.
    """
    further = {name: _together([training["further"][name] for training in trainings])
               for name in trainings[0]["further"]}
    details = _together(trainings)
    flat = {name: details[name] for name in FLAT if name in details}
    return {**flat, "seeds": len(trainings)}, {**details, "further": further, "scorer": trainings[0]["scorer"]}


def _score_set(name: str, rows: Sequence[Row], facts: Mapping[str, Any], articles: Mapping[str, Row],
               language: str) -> dict[str, Any]:
    """Everything about the summaries of one test set by one training."""
    ids = [row["id"] for row in rows]
    summaries = [row["summary"] for row in rows]
    references = [articles.get(row["id"], {}).get("references", [row["reference"]]) for row in rows]
    metric = SummaryQuality(language).compute(predictions=summaries, references=references, by_article=True)
    columns = {"id": ids, **metric["articles"], **_losses(name, rows)}
    by_fact = find(rows, facts) if facts else None
    if by_fact is not None:
        columns |= recall_columns(ids, by_fact)
        if articles:
            columns |= value_columns(summaries, references, [articles[key]["article"] for key in ids])
    found = {"summary_words": _mean_words(summaries),
             "reference_words": _mean_words([row["reference"] for row in rows]),
             **({"cut": sum(row["cut"] > 0 for row in rows) / len(rows)} if "cut" in rows[0] else {}),
             **({"written_by": rows[0]["written_by"]} if "written_by" in rows[0] else {}),
             **({TOKENS_A_PASS: _tokens_a_pass(rows)} if "passes" in rows[0] else {}),
             "articles": columns, **({"by_fact": by_fact} if by_fact is not None else {})}
    return {**_together([found]), **found}


def _together(trainings: Sequence[Details]) -> dict[str, Any]:
    """The scores of one or more trainings on one test set."""
    columns, first = [training["articles"] for training in trainings], trainings[0]
    ids = first["articles"]["id"]
    if any(articles["id"] != ids for articles in columns):
        raise ValueError("trainings can only be brought together on the same articles in the same order")
    result: dict[str, Any] = {}
    for name in available(columns[0]):
        if all(name in available(articles) for articles in columns):
            result |= over_trainings(name, columns)
    if "by_fact" in first:
        by_fact = [training["by_fact"] for training in trainings]
        result |= {f"{FACT_RECALL}_by_{key}": recall_by(key, ids, by_fact)
                   for key in ("distance", "kind", "position") if key in by_fact[0]}
    result |= {key: float(np.mean([training[key] for training in trainings]))
               for key in ("summary_words", "reference_words", "cut", TOKENS_A_PASS) if key in first}
    if "written_by" in first:
        result["written_by"] = " and ".join(dict.fromkeys(training["written_by"] for training in trainings))
    return result


def _tokens_a_pass(rows: Sequence[Row]) -> float:
    """By prompt lookup; 1 if no summary has a second token."""
    return sum(row["later_tokens"] for row in rows) / max(1, sum(row["passes"] for row in rows)) or 1.0


def _mean_words(texts: Sequence[str]) -> float:
    return sum(len(pieces(text)) for text in texts) / len(texts)


def _losses(name: str, rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The columns `loss` and `tokens`; empty if no row has a loss."""
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
    """The facts of every article of a set by its id; empty if the set has none."""
    known = {row["id"]: row["facts"] for row in facts if row["set"] == name}
    if unknown := known.keys() - {row["id"] for row in rows}:
        raise ValueError(f"set {name!r}: facts of {min(unknown)!r}, but no such row")
    return {row["id"]: known.get(row["id"], []) for row in rows} if known else {}


def _scorer(language: str) -> dict[str, Any]:
    return {**settings(language), "interval": INTERVAL,
            "versions": {package: importlib.metadata.version(package) for package in PACKAGES}}
