"""Progress bars in a terminal; elsewhere, one line with the rate at the end, where a rate makes sense. And tables."""

import math
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

PROGRESS = Path(".cache/progress.txt")  # if it is there, a bar writes to it: `h2h run` shows those of all tasks
console = Console(stderr=True)
if not console.is_terminal:
    console.width = 140  # a log file need not wrap


def output() -> Console:
    """Standard output, as wide as the terminal; a file need not wrap."""
    found = Console(highlight=False, markup=False)
    found.width = found.width if found.is_terminal else 200
    return found


def plain_table(close: bool = False) -> Table:
    """A table without lines; `close` leaves one space between columns."""
    return Table(box=None, header_style="bold", pad_edge=False, collapse_padding=close)


def print_table(rows: list[dict[str, str | int]]) -> None:
    """Rows with the same keys as a table, words aligned left and numbers right."""
    table = plain_table()
    for title, value in rows[0].items():
        table.add_column(title, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in row.values()))
    console.print(table)


class Rate(ProgressColumn):
    """How many per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.1f}/s")


class Bar:
    """A progress bar over `total` pieces of work (None: not known in advance), of which `done` are already done.

    Args:
        thread: whether a thread redraws it continuously; a process that forks must not have one, and redraws at notes.
    """

    def __init__(self, title: str, total: int | None, done: int = 0, thread: bool = True) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(),
            TimeElapsedColumn() if total is None else TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=console, auto_refresh=thread,
            disable=not console.is_terminal)
        self._thread = thread
        self._title, self._task = title, self._progress.add_task(title, total=total, completed=done, note="")
        self._started, self._before = time.monotonic(), done
        self._told = self._started if PROGRESS.exists() else math.inf
        self._progress.start()

    def advance(self, by: int = 1) -> None:
        self._progress.advance(self._task, by)
        self._tell()

    def note(self, text: str) -> None:
        """Show a few words beside the bar."""
        self._progress.update(self._task, note=text, refresh=not self._thread)
        self._tell()

    def _tell(self) -> None:
        """Write how far it is to `PROGRESS`, once a second at most."""
        if time.monotonic() - self._told >= 1:
            self._told, task = time.monotonic(), self._progress.tasks[0]
            total = "" if task.total is None else f" of {int(task.total):,}"
            with suppress(OSError):  # nothing depends on it
                PROGRESS.write_text(f"{self._title}: {int(task.completed):,}{total} {task.fields['note']}",
                                    encoding="utf-8")

    def tell_rate(self, what: str) -> None:
        """Print one line: how many were done, in what time, and how many per second."""
        seconds = time.monotonic() - self._started
        count = int(self._progress.tasks[0].completed) - self._before
        console.print(f"{self._title}: {count:,} {what} in {seconds:,.1f} s, {count / seconds:,.0f} per second")

    def close(self) -> None:
        self._progress.stop()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
