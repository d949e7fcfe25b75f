"""Reading predictions, checked against their articles."""

from pathlib import Path
from typing import Any

from headtohead.paths import SUBSET
from headtohead.records import DataError, Record, read_jsonl


def read_predictions(path: Path, subset: Path = SUBSET) -> list[Record]:
    """Predictions of the test set, or of further sets that "set" names, checked against `subset`/SET.jsonl.

    Raises:
        DataError: a file is missing, a row is without id, summary or reference, or a set's ids are not those of its
            articles, once each and in their order; names the file and the row.
    """
    sets: dict[str, list[Any]] = {}
    rows = list(read_jsonl(path))
    for number, row in enumerate(rows, start=1):
        if missing := {"id", "summary", "reference"} - row.keys():
            raise DataError(f"{path}:{number}: no {', '.join(sorted(missing))}")
        sets.setdefault(row.get("set", "test"), []).append(row["id"])
    for name, ids in sets.items():
        _compare(path, name, ids, [row["id"] for row in read_jsonl(subset / f"{name}.jsonl")])
    return rows


def read_articles(subset: Path = SUBSET) -> dict[str, dict[str, Record]]:
    """The articles of every test set, by its name and their ids."""
    return {file.stem: {row["id"]: row for row in read_jsonl(file)} for file in sorted(subset.glob("test*.jsonl"))}


def _compare(path: Path, name: str, ids: list[Any], articles: list[Any]) -> None:
    for number, (given, wanted) in enumerate(zip(ids, articles, strict=False), start=1):
        if given != wanted:
            raise DataError(f"{path}: set {name!r}, row {number}: id {given!r}, but the article there is {wanted!r}")
    if len(ids) != len(articles):
        raise DataError(f"{path}: set {name!r} has {len(ids)} rows for {len(articles)} articles")
