"""Progress bars for people; where there is no terminal, a line with the rate at the end of work that has one."""

import time

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

console = Console(stderr=True)
if not console.is_terminal:
    console.width = 140  # a log file need not wrap


def print_table(rows: list[dict[str, str | int]]) -> None:
    """Rows of one shape as a table, words to the left and numbers to the right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title, value in rows[0].items():
        table.add_column(title, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in row.values()))
    console.print(table)


class Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.1f}/s")


class Bar:
    """One progress bar over `total` pieces of work (None: it shows when it ends), of which `done` are done already.

    Args:
        thread: whether it redraws itself all the time; without one, as a process that forks needs it, at each note.
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
        self._progress.start()

    def advance(self, by: int = 1) -> None:
        self._progress.advance(self._task, by)

    def note(self, text: str) -> None:
        """Show a few words beside the bar."""
        self._progress.update(self._task, note=text, refresh=not self._thread)

    def tell_rate(self, what: str) -> None:
        """One line that stays: how many were done, in what time, and how many a second."""
        seconds = time.monotonic() - self._started
        count = int(self._progress.tasks[0].completed) - self._before
        console.print(f"{self._title}: {count:,} {what} in {seconds:,.1f} s, {count / seconds:,.0f} a second")

    def close(self) -> None:
        self._progress.stop()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
