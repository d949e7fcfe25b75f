"""One article with its reference summary, and the JSON Lines files that hold them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]  # {"id": str, "article": str, "summary": str}, and from newswire "facts" and "references"


class DataError(ValueError):
    """Input that cannot be used; the message names the file, row or column and what to do."""


def read_jsonl(path: Path) -> Iterator[Record]:
    """The objects of a JSON Lines file, one by one.

    Raises:
        DataError: the file is missing, or a line is not JSON; the message names file and line.
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


def count_rows(path: Path) -> int:
    """How many lines a JSON Lines file has."""
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


def write_jsonl(path: Path, rows: Iterable[Record]) -> int:
    """Write objects as JSON Lines, creating the folder; without any, a blank line, because DVC warns about empty files.

    Returns:
        How many there were.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
        if not count:
            out.write("\n")
    return count


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
