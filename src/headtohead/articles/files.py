"""Articles from the user's own tables: CSV, TSV, JSON, JSON Lines, Parquet, Arrow. Rows are read one by one."""

import csv
import difflib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from headtohead.articles.encodings import encodings_of
from headtohead.articles.formats import BINARY, format_of, opened
from headtohead.records import DataError, Record

DELIMITERS = ",;\t|"
SEPARATOR = re.compile(r'"?sep=([^"])"?', re.IGNORECASE)  # a first line that tells Excel what separates cells
USUAL = {"article": ("article", "text", "document", "body", "content", "story", "dialogue"),
         "summary": ("highlights", "summary", "abstract", "target", "headline")}
NEAR = 0.6  # similarity of two names, at most 1, from which one may be a misspelling of the other
SHOWN = 20  # of a file's columns, in messages
BATCH = 256  # rows of a Parquet or Arrow file decoded at a time

csv.field_size_limit(sys.maxsize)  # articles may be longer than the module's 128 KB


class NoColumn(DataError):
    """A table lacks a column; `columns` are those that it has."""

    def __init__(self, message: str, columns: list[str]) -> None:
        super().__init__(message)
        self.columns = columns


@dataclass(frozen=True)
class Table:
    """One file of articles.

    Args:
        article, summary: the columns that hold the texts. Without a summary, there are only articles; without both,
            the columns are still to be found, by `whole_rows`.
        encoding: Python's name for it; None detects it.
    """

    file: Path
    article: str | None
    summary: str | None
    encoding: str | None = None

    def rows(self, before: int = 0) -> Iterator[Record]:
        """Every row as {"id", "article", "summary"}, texts stripped; the id is column `id` or the row's number from 1.

        Without a column of summaries, as {"id", "article"}.

        Args:
            before: how many rows the table's earlier parts have.

        Raises:
            DataError: the file cannot be read, a column is missing, or a row is unreadable; says which and why.
        """
        for number, row in enumerate(self.whole_rows(), 1):
            texts = {key: self._text(row, column, number) for key, column in self._wanted.items()}
            yield {"id": self._id(row, before + number), **texts}

    def whole_rows(self) -> Iterator[dict[str, Any]]:
        """Every row as the file has it, with all of its columns if none is named. Raises as `rows` does."""
        read = {".csv": self._csv, ".tsv": self._csv, ".jsonl": self._json_lines, ".json": self._json,
                ".parquet": self._parquet, ".arrow": self._arrow}[self._format]
        yield from read()

    @cached_property
    def read_as(self) -> str:
        """How the file is understood, in words: "CSV, cp1252, separated by ;"."""
        if self._format in BINARY:
            return self._format[1:].capitalize()
        separated = f", separated by {self._delimiter}" if self._format == ".csv" else ""
        name = "JSON Lines" if self._format == ".jsonl" else self._format[1:].upper()
        return f"{name}, {self._encoding}{separated}".replace("\t", "tab")

    @property
    def _wanted(self) -> dict[str, str]:
        columns = {"article": self.article, "summary": self.summary}
        return {key: column for key, column in columns.items() if column is not None}

    @property
    def _format(self) -> str:
        return format_of(self.file)

    @cached_property
    def _encoding(self) -> str:
        with opened(self.file) as data:
            if not data.read(1):
                raise DataError(f"{self.file} is empty")
        return encodings_of([self.file], self.encoding)[self.file]

    @contextmanager
    def _opened(self, newline: str | None = None) -> Iterator[TextIO]:
        with opened(self.file) as data:
            yield TextIOWrapper(data, self._encoding, newline=newline)

    @cached_property
    def _separator(self) -> str | None:
        """What a first line `sep=;` names; None if there is no such line."""
        with self._opened() as lines:
            named = SEPARATOR.fullmatch(lines.readline().rstrip("\n"))
        return named and named[1]

    @cached_property
    def _delimiter(self) -> str:
        """The named delimiter; else one with which the first line has the wanted columns; else one with the most."""
        if self._separator:
            return self._separator
        if self._format == ".tsv":
            return "\t"
        with self._opened(newline="") as lines:
            header = lines.readline()
        named = {d: _stripped(next(csv.reader([header], delimiter=d), [])) for d in DELIMITERS}
        return max(DELIMITERS, key=lambda d: (set(self._wanted.values()) <= set(named[d]), len(named[d])))

    def _csv(self) -> Iterator[dict[str, Any]]:
        with self._opened(newline="") as lines:
            reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
            if self._separator:
                next(reader)
            header, number = _stripped(self._next_row(reader, 0) or []), 0
            self._check_columns(header)
            while (cells := self._next_row(reader, number + 1)) is not None:
                if cells:  # an empty line is no row
                    number += 1
                    yield self._matched(header, cells, number, reader.line_num)

    def _next_row(self, reader: Any, number: int) -> list[str] | None:
        try:
            return next(reader, None)
        except csv.Error as error:
            cut_off = " (the file is cut off, or a quote is never closed)" if "end of data" in str(error) else ""
            raise DataError(f"{self.file}, row {number} (line {reader.line_num}): {error}{cut_off}; quotes inside a "
                            "quoted cell must be doubled") from error

    def _matched(self, header: list[str], cells: list[str], number: int, line: int) -> dict[str, Any]:
        if len(cells) < len(header) or any(cells[len(header):]):
            raise DataError(f"{self.file}, row {number} (ends on line {line}): has {len(cells)} cells, and the header "
                            f"has {len(header)}; the file is cut off there, or a cell with a separator or line break "
                            "lacks its quotes")
        return dict(zip(header, cells, strict=False))

    def _json_lines(self) -> Iterator[dict[str, Any]]:
        with self._opened() as lines:
            yield from self._objects((self._parsed(line, f"line {number}"), f"line {number}")
                                     for number, line in enumerate(lines, 1) if line.strip())

    def _json(self) -> Iterator[dict[str, Any]]:
        """A list of objects, one such list within an object, or JSON Lines under another suffix."""
        with self._opened() as whole:
            text = whole.read()
        first, _, rest = text.partition("\n")
        if rest.strip() and _is_object(first):
            yield from self._json_lines()
            return
        value = self._parsed(text, "its text")
        lists = [v for v in value.values() if isinstance(v, list)] if isinstance(value, dict) else [value]
        if len(lists) != 1 or not isinstance(lists[0], list):
            raise DataError(f"{self.file}: a JSON file must hold one list of objects such as "
                            f"[{json.dumps(dict.fromkeys(self._wanted.values() or USUAL, '...'))}]")
        yield from self._objects((row, f"row {number}") for number, row in enumerate(lists[0], 1))

    def _parsed(self, text: str, where: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{self.file}, {where}: is not JSON, or cut off: {error.msg}, at character "
                            f"{error.pos + 1}") from error
        except RecursionError as error:
            raise DataError(f"{self.file}, {where}: is not JSON of articles: lists within lists without end") from error

    def _objects(self, values: Iterable[tuple[Any, str]]) -> Iterator[dict[str, Any]]:
        """The values that must be objects, of which the first has the wanted columns."""
        for position, (value, where) in enumerate(values):
            if not isinstance(value, dict):
                raise DataError(f"{self.file}, {where}: is not an object with columns, but {str(value)[:60]!r}")
            if not position:
                self._check_columns(value)
            yield value

    def _parquet(self) -> Iterator[dict[str, Any]]:
        import pyarrow
        from pyarrow import parquet
        try:
            with parquet.ParquetFile(self.file) as file:
                for batch in file.iter_batches(BATCH, columns=self._columns(file.schema_arrow.names)):
                    yield from batch.to_pylist()
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.file} cannot be read as Parquet (damaged, cut off, or another format): "
                            f"{error}") from error

    def _arrow(self) -> Iterator[dict[str, Any]]:
        """A stream, as `datasets` saves it."""
        import pyarrow
        try:
            with pyarrow.memory_map(str(self.file)) as file, pyarrow.ipc.open_stream(file) as batches:
                columns = self._columns(batches.schema.names)
                for batch in batches:
                    for start in range(0, len(batch), BATCH):
                        yield from batch.select(columns).slice(start, BATCH).to_pylist()
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.file} cannot be read as Arrow (damaged, cut off, or not as `datasets` saves it): "
                            f"{error}") from error

    def _columns(self, names: list[str]) -> list[str]:
        """The columns that are read."""
        self._check_columns(names)
        return [name for name in names if not self._wanted or name in ("id", *self._wanted.values())]

    def _check_columns(self, columns: Iterable[str]) -> None:
        names = list(columns)
        for key, column in self._wanted.items():
            if names.count(column) > 1:
                raise DataError(f"{self.file} has {names.count(column)} columns named {column!r} (data.{key})")
            if column not in names:
                shown = ", ".join(name[:40] for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
                near = likely(key, names)
                raise NoColumn(f"{self.file} has no column {column!r} (data.{key}); its columns are {shown}"
                               + (f". Is it {near!r}? Set data.{key}: {near}" if near else ""), names)

    def _text(self, row: dict[str, Any], column: str, number: int) -> str:
        cell = row.get(column)
        if cell is None:
            return ""
        if not isinstance(cell, str):
            raise DataError(f"{self.file}, row {number}: column {column!r} holds {type(cell).__name__} "
                            f"{str(cell)[:40]!r}, and must hold text")
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{self.file}, row {number}: column {column!r} holds half of a character "
                            f"({error.object[error.start]!r})") from error
        return cell.strip()

    @staticmethod
    def _id(row: dict[str, Any], number: int) -> str:
        key = row.get("id")
        return str(number) if key is None or key == "" else str(key)


def _stripped(header: list[str]) -> list[str]:
    return [name.strip() for name in header]


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (json.JSONDecodeError, RecursionError):
        return False


def likely(key: str, columns: list[str]) -> str | None:
    """The column that may have been meant, by its usual names, then by spelling; the first if there are several."""
    names = [column.casefold().strip() for column in columns]
    usual = [names.index(name) for name in USUAL[key] if name in names]
    likeness = [difflib.SequenceMatcher(None, key, name).ratio() for name in names]
    near = [place for place, ratio in enumerate(likeness) if ratio == max(likeness) > NEAR]
    return next((columns[place] for place in (*usual, *near)), None)
