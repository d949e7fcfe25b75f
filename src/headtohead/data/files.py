"""Articles from the user's own CSV, JSON Lines and Parquet files."""

from pathlib import Path

import pandas as pd

from headtohead.data.records import DataError, Record


def read_table(file: Path, article: str, summary: str) -> list[Record]:
    """All rows of one file; column `id` is kept where there is one, else rows are numbered from 1.

    Raises:
        DataError: the file cannot be read, or a column is missing; the message lists those there are.
    """
    try:
        table = _read(file)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise DataError(f"{file} cannot be read as {file.suffix[1:]}: {error}") from error
    for key, column in (("article", article), ("summary", summary)):
        if column not in table.columns:
            raise DataError(f"{file} has no column {column!r} (data.{key}); "
                            f"its columns are {', '.join(map(str, table.columns))}")
    ids = table["id"] if "id" in table.columns else pd.RangeIndex(1, len(table) + 1)
    rows = zip(ids, table[article], table[summary], strict=True)
    return [{"id": str(key), "article": _text(a), "summary": _text(s)} for key, a, s in rows]


def _read(file: Path) -> pd.DataFrame:
    if file.suffix == ".csv":
        return pd.read_csv(file, dtype=str, keep_default_na=False)
    if file.suffix == ".jsonl":
        return pd.read_json(file, lines=True, dtype=False)
    return pd.read_parquet(file)


def _text(cell: object) -> str:
    return cell.strip() if isinstance(cell, str) else ""  # what is no text counts as empty
