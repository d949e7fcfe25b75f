"""Summaries as JSON Lines: on standard output, or in a file that a killed run goes on with."""

import fcntl
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from headtohead.records import DataError, Record

BEGINNING = b'{"id": "'  # of every row
OTHER = "give another --output, or remove this one"
Expected = Callable[[Record, Record], str | None]  # what is wrong with a row for an article; None if nothing is


class Output(Protocol):
    """Where rows go."""

    def there(self, articles: list[Record]) -> list[Record]:
        """The rows of the first of these articles that have been summarized already."""

    def write(self, rows: list[Record]) -> None: ...

    def close(self) -> None:
        """To be called after the last article."""


class Terminal:
    """Standard output."""

    def there(self, articles: list[Record]) -> list[Record]:
        return []

    def write(self, rows: list[Record]) -> None:
        sys.stdout.buffer.write(_lines(rows))
        sys.stdout.buffer.flush()

    def close(self) -> None:
        pass


class Nowhere(Terminal):
    """No rows at all: the summaries are shown otherwise."""

    def write(self, rows: list[Record]) -> None:
        pass


class Resumable:
    """A file whose rows are kept if they are what would be written now, and which goes on after them.

    Nothing in it is touched before the first new row. Then what a kill left of a last line is dropped.

    Raises:
        DataError: another process writes it.
    """

    def __init__(self, path: Path, wrong: Expected) -> None:
        self._path, self._wrong = path, wrong
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{path}: another process is writing it") from error
        self._before: BinaryIO | None = path.open("rb")  # until the first new row
        self._row, self._end = 0, 0  # of what is there and right

    def there(self, articles: list[Record]) -> list[Record]:
        rows: list[Record] = []
        for article in articles:
            line = self._before.readline() if self._before else b""
            if not line.endswith(b"\n"):
                self._check_torn(line)
                break
            rows.append(self._checked(line, article))
            self._row, self._end = self._row + 1, self._end + len(line)
        return rows

    def write(self, rows: list[Record]) -> None:
        lines = _lines(rows)
        try:
            self._cut()
            left = memoryview(lines)
            while left:
                left = left[self._file.write(left):]
        except OSError as error:
            raise DataError(f"{self._path} cannot be written: {error.strerror}; its {self._row:,} rows stay, and the "
                            "same command goes on after them") from error
        self._row, self._end = self._row + len(rows), self._end + len(lines)

    def close(self) -> None:
        rest = self._before.readline() if self._before else b""
        if rest.endswith(b"\n"):
            raise DataError(f"{self._path} has more than {self._row:,} rows, and there are no more articles; "
                            f"{OTHER}")
        self._check_torn(rest)
        self._cut()
        self._file.close()

    def _cut(self) -> None:
        """Drop what is behind the last whole row."""
        if self._before:
            self._before.close()
            self._before = None
        self._file.seek(self._end)
        self._file.truncate()

    def _checked(self, line: bytes, article: Record) -> Record:
        try:
            row = json.loads(line)
            wrong = self._wrong(row, article)
        except (ValueError, LookupError, TypeError, AttributeError):
            wrong = "is no summary as `h2h summarize` writes it"
        if wrong:
            raise DataError(f"{self._path}, line {self._row + 1}: {wrong}; {OTHER}")
        return row

    def _check_torn(self, line: bytes) -> None:
        if not (line.startswith(BEGINNING) or BEGINNING.startswith(line)):
            raise DataError(f"{self._path}, line {self._row + 1}: is no summary as `h2h summarize` writes it; {OTHER}")


def _lines(rows: list[Record]) -> bytes:
    """Half of a character, which an id may hold, stays in JSON's own notation."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")
