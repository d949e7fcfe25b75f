"""One article with its reference summary, and the JSON Lines files that hold them."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]  # {"id": str, "article": str, "summary": str}, and from newswire "facts"


class DataError(ValueError):
    """Input that cannot be used; the message names the file, row or column and what to do."""


def read_jsonl(path: Path) -> Iterator[Record]:
    """The objects of a JSON Lines file, one by one.

    Raises:
        DataError: the file is missing, or a line is no JSON object; the message names file and line.
    """
    if not path.exists():
        raise DataError(f"{path} is missing; `dvc repro` makes it")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: is not JSON: {error}") from error


def write_jsonl(path: Path, rows: Iterable[Record]) -> None:
    """Write objects as JSON Lines, making the folder; for none at all a blank line, as DVC warns of empty files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if not out.tell():
            out.write("\n")


def near_duplicate_key(article: str) -> str:
    """What near duplicates share: the first 150 characters, without case, punctuation and white space."""
    return re.sub(r"[\W_]+", "", article[:300].casefold())[:150]


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
