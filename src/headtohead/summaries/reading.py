"""Articles to summarize as a stream: from text files, tables and standard input, one by one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from headtohead.articles.encodings import encodings_of
from headtohead.articles.files import NoColumn, Table, likely
from headtohead.articles.formats import KNOWN, TABLES, TEXT, format_of, opened
from headtohead.records import DataError, Record

PIPE = "-"  # the name of standard input
USUAL_COLUMN = "article"
# The readers' messages name keys of params.yaml; here the same is set by flags.
FLAGS = {"Set data.article: ": "Give --column ", "data.article": "--column", "data.encoding": "--encoding"}


def read_articles(files: list[str], column: str | None, encoding: str | None, pipe: BinaryIO) -> Iterator[Record]:
    """Every article of the files, in order, as {"id", "article"}.

    The id is column `id` or the row's number from 1, counted through all files; a text file's is its path.

    Args:
        files: text files, one article each, and tables; `-` is standard input, JSON Lines or one text.
        column: of the articles in tables; None finds it by its usual names.
        encoding: of the files; None detects it, and takes standard input for UTF-8.
        pipe: standard input.

    Raises:
        DataError: a file cannot be read, or a row is unreadable; says which and what to do.
    """
    count = 0
    try:
        for name in files:
            for row in _rows(name, column, encoding, pipe, count):
                yield row
                count += 1
    except DataError as error:
        message = str(error)
        for key, flag in FLAGS.items():
            message = message.replace(key, flag)
        raise DataError(message) from error


def check_files(files: list[str]) -> None:
    """Check that every file is there, in a known format, and none is read twice from a pipe."""
    for name in files:
        file = Path(name)
        if name != PIPE and not file.is_file():
            why = "is a folder; name the files in it" if file.is_dir() else "no such file"
            raise DataError(f"{name}: {why if not file.exists() or file.is_dir() else 'is no file; pipe it in as -'}")
        if name != PIPE and format_of(file) not in (TEXT, *TABLES):
            raise DataError(f"{name}: format {file.suffix or '(none)'} is unknown; there are {TEXT}, {KNOWN}")
    if files.count(PIPE) > 1:
        raise DataError("standard input (-) can be read only once")


def _rows(name: str, column: str | None, encoding: str | None, pipe: BinaryIO, before: int) -> Iterator[Record]:
    if name == PIPE:
        return _piped(pipe, column, encoding or "utf-8-sig", before)
    file = Path(name)
    if format_of(file) == TEXT:
        return _text(file, encoding)
    return _with_column(Table(file, column or USUAL_COLUMN, None, encoding), column).rows(before)


def _text(file: Path, encoding: str | None) -> Iterator[Record]:
    with opened(file) as data:
        text = TextIOWrapper(data, encodings_of([file], encoding)[file]).read().strip()
    yield {"id": str(file), "article": text}


@dataclass(frozen=True)
class Lines(Table):
    """JSON Lines from a pipe: there is no second look at them."""

    lines: Iterable[str] = ()

    @property
    def _format(self) -> str:
        return ".jsonl"

    @contextmanager
    def _opened(self, newline: str | None = None) -> Iterator[Any]:
        yield self.lines


def _piped(pipe: BinaryIO, column: str | None, encoding: str, before: int) -> Iterator[Record]:
    lines = _decoded(TextIOWrapper(pipe, encoding))
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("{"):
        table = Lines(Path("standard input"), column or USUAL_COLUMN, None, lines=[first])
        yield from replace(_with_column(table, column), lines=chain([first], lines)).rows(before)
    else:
        yield {"id": str(before + 1), "article": (first + "".join(lines)).strip()}


def _decoded(lines: TextIOWrapper) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(lines, 1):  # noqa: B007
            yield line
    except UnicodeDecodeError as error:
        raise DataError(f"standard input, after line {number}: is not {lines.encoding}; name its encoding in "
                        "--encoding") from error


def _with_column(table: Table, column: str | None) -> Table:
    """The table itself if its column is named or has its usual name, else with the column that has the articles."""
    if column is not None:
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
