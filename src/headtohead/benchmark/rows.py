"""The benchmark's files: bench.json, a list of rows, and about.json, what they were measured with."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from headtohead.benchmark.plan import Task
from headtohead.records import DataError

Row = dict[str, Any]
Key = tuple[Any, ...]

ROWS, ABOUT = "bench.json", "about.json"
COLUMNS = ("work", "variant", "implementation", "batch", "length", "new_tokens", "dtype", "median", "p10", "p90",
           "unit", "repeats")


def key_of(row: Row) -> Key:
    """What tells rows apart."""
    return (row.get("model"), *(row[name] for name in COLUMNS[:6]), row.get("beams", 1), row["dtype"])


def key_of_task(task: Task, dtype: str) -> Key:
    """`key_of` of the row that the task gives."""
    point = task.point
    return (task.model.name, point.work, task.variant, task.implementation, point.batch, point.length,
            point.new_tokens, point.beams, dtype)


def size_in_words(row: Row) -> str:
    """"10 x 412 + 100"."""
    out = f" + {row['new_tokens']}" if row["new_tokens"] else ""
    return f"{row['batch']} x {row['length']:,}{out}"


def read_rows(folder: Path) -> list[Row]:
    """The rows of FOLDER/bench.json.

    Raises:
        DataError: it is missing, no JSON, or no list of such rows; the message names it and says what to do.
    """
    rows = _read(folder / ROWS)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _unusable(folder / ROWS, "is no list of objects")
    for number, row in enumerate(rows, 1):
        if missing := [name for name in COLUMNS if name not in row]:
            raise _unusable(folder / ROWS, f"row {number} has no {', '.join(missing)}")
    return rows


def read_about(folder: Path) -> Row:
    """FOLDER/about.json.

    Raises:
        DataError: it is missing or no JSON object; the message names it and says what to do.
    """
    about = _read(folder / ABOUT)
    if not isinstance(about, dict):
        raise _unusable(folder / ABOUT, "is no object")
    return about


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Replace FOLDER/bench.json, one row a line; a run that is killed meanwhile leaves the earlier one."""
    lines = ",\n ".join(json.dumps(row) for row in rows)
    _replace(folder / ROWS, f"[{lines}]\n")


def write_about(folder: Path, about: Row) -> None:
    """Replace FOLDER/about.json."""
    _replace(folder / ABOUT, json.dumps(about, indent=2) + "\n")


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; `h2h bench {path.parent}` makes it on a machine with a GPU") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise _unusable(path, f"is no JSON: {error}") from error


def _unusable(path: Path, why: str) -> DataError:
    return DataError(f"{path} {why}; restore it, or remove it to measure everything again")
