"""Articles to summarize as a stream: from text files, tables and standard input, one by one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from headtohead.articles.encodings import encodings_of
from headtohead.articles.files import NoColumn, Table, likely
from headtohead.articles.formats import KNOWN, TABLES, TEXT, format_of, opened
from headtohead.records import DataError, Record

AnyTable = TypeVar("AnyTable", bound=Table)
PIPE = "-"  # the name of standard input
USUAL = "article"  # the column that is looked for first
# The readers' messages name keys of params.yaml; here the same is set by flags.
FLAGS = {"Set data.article: ": "Give --column ", "data.article": "--column", "data.encoding": "--encoding"}


@dataclass(frozen=True)
class Sources:
    """Files in the order in which they were named; `-` is standard input.

    Args:
        column: of the articles in tables; None finds it by its usual names.
        encoding: of the files; None detects it, and takes standard input for UTF-8.

    Raises:
        DataError: a file is not there, or in no known format.
    """

    files: list[str]
    column: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        for name in self.files:
            file = Path(name)
            if name == PIPE:
                continue
            if not file.is_file():
                why = ("is a folder; name the files in it" if file.is_dir() else
                       "can be read only once; pipe it in" if file.exists() else "no such file")
                raise DataError(f"{name}: {why}")
            if format_of(file) not in (TEXT, *TABLES):
                raise DataError(f"{name}: format {file.suffix or '(none)'} is unknown; there are {TEXT}, {KNOWN}")

    @property
    def once(self) -> bool:
        """Whether they can be read only once."""
        return PIPE in self.files

    def rows(self, pipe: BinaryIO) -> Iterator[Record]:
        """Every article as {"id", "article"}.

        The id is column `id` or the row's number from 1, counted through all files; a text file's is its path.

        Raises:
            DataError: a file cannot be read, or a row is unreadable; says which and what to do.
        """
        count = 0
        try:
            for name in self.files:
                for row in self._rows(name, pipe, count):
                    yield row
                    count += 1
        except DataError as error:
            message = str(error)
            for key, flag in FLAGS.items():
                message = message.replace(key, flag)
            raise DataError(message) from error

    def _rows(self, name: str, pipe: BinaryIO, before: int) -> Iterator[Record]:
        if name == PIPE:
            return self._piped(pipe, before)
        file = Path(name)
        if format_of(file) == TEXT:
            return self._text(file)
        return self._with_column(Table(file, self.column or USUAL, None, self.encoding)).rows(before)

    def _text(self, file: Path) -> Iterator[Record]:
        with opened(file) as data:
            text = TextIOWrapper(data, encodings_of([file], self.encoding)[file]).read()
        yield {"id": str(file), "article": text.strip()}

    def _piped(self, pipe: BinaryIO, before: int) -> Iterator[Record]:
        """JSON Lines if the first line begins an object, else one text."""
        lines = _decoded(TextIOWrapper(pipe, self.encoding or "utf-8-sig"))
        first = next((line for line in lines if line.strip()), "")
        if first.lstrip().startswith("{"):
            table = self._with_column(Lines(Path("standard input"), self.column or USUAL, None, lines=[first]))
            yield from replace(table, lines=chain([first], lines)).rows(before)
        elif first:
            yield {"id": str(before + 1), "article": (first + "".join(lines)).strip()}

    def _with_column(self, table: AnyTable) -> AnyTable:
        """The table itself if its column is named or has its usual name, else with the column that has the articles."""
        if self.column is not None:
            return table
        try:
            next(table.rows(), None)
        except NoColumn as missing:
            columns = [name for name in missing.columns if name != "id"]
            found = columns[0] if len(columns) == 1 else likely("article", columns)
            if found is None:
                raise
            return replace(table, article=found)
        return table


@dataclass(frozen=True)
class Lines(Table):
    """JSON Lines from a pipe, which is read only once."""

    lines: Iterable[str] = ()

    @property
    def _format(self) -> str:
        return ".jsonl"

    @contextmanager
    def _opened(self, newline: str | None = None) -> Iterator[Any]:
        yield self.lines


def _decoded(lines: TextIOWrapper) -> Iterator[str]:
    number = 0
    try:
        for line in lines:
            number += 1
            yield line
    except UnicodeDecodeError as error:
        raise DataError(f"standard input, line {number + 1} or a later one: is not {lines.encoding}; name its encoding "
                        "in data.encoding") from error
