"""The formats of files, by name, and their bytes, compressed with gzip or not."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from headtohead.records import DataError

TEXT = ".txt"  # one text, not a table
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow")
BINARY = (".parquet", ".arrow")
KNOWN = f"{', '.join(TABLES)}; all but {' and '.join(BINARY)} may end in .gz too"


def format_of(file: Path) -> str:
    """The suffix that says how a file is read, in lower case: .csv of news.CSV and of news.csv.gz."""
    inner = file.with_suffix("").suffix.lower()
    return inner if _packed(file) and inner in (*TABLES, TEXT) and inner not in BINARY else file.suffix.lower()


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked.

    Raises:
        DataError: it cannot be opened or read, or its compressed content is damaged or cut off.
    """
    try:
        with gzip.open(file) if _packed(file) else file.open("rb") as data:
            yield cast(BinaryIO, data)
    except (OSError, EOFError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{file} cannot be read: {why}") from error


def _packed(file: Path) -> bool:
    return file.suffix.lower() == ".gz"
