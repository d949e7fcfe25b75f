"""All tasks on one screen, and a log of each; where there is no terminal, a line when one ends."""

import time
from pathlib import Path

from rich.live import Live
from rich.table import Table
from rich.text import Text

from headtohead.progress import console, plain_table

LAST_LINES = 5  # of a failed task's log


class Screen:
    """What is shown while `total` tasks run; their logs are written to `logs`."""

    def __init__(self, total: int, logs: Path) -> None:
        self._total, self._logs, self._done = total, logs, 0
        self._running: dict[str, _Task] = {}
        self._live = Live(console=console, auto_refresh=False, transient=True)
        logs.mkdir(parents=True, exist_ok=True)

    def tell(self, stage: str, kind: str, text: str) -> None:
        """Take news from a task: where it began, what it said, or how far it is."""
        if kind == "began":
            if again := stage in self._running:
                self._print(f"{stage}: was lost; tried again on {text}")
            self.log(stage).open("a" if again else "w").close()
            self._running[stage] = _Task(text, time.monotonic())
        elif stage in self._running:
            self._running[stage].line = (text.strip().splitlines() or [""])[-1]
        if kind == "said":
            with self.log(stage).open("a", encoding="utf-8") as log:
                log.write(text)

    def log(self, stage: str) -> Path:
        return self._logs / f"{stage}.log"

    def succeeded(self, stage: str) -> None:
        self._done += 1
        if task := self._running.pop(stage, None):
            self._print(f"{stage}: done in {time.monotonic() - task.began:,.0f} s on {task.where} "
                        f"({self._done} of {self._total})")

    def failed(self, stage: str, reason: str) -> None:
        self._running.pop(stage, None)
        log = self.log(stage)
        last = log.read_text(encoding="utf-8").splitlines()[-LAST_LINES:] if log.exists() else []
        self._print("\n".join([f"{stage}: {reason}; its log is {log}", *(f"    {line}" for line in last)]))

    def draw(self) -> None:
        self._live.update(self._table(), refresh=console.is_terminal)

    def _table(self) -> Table:
        table = plain_table()
        for title in ("stage", "where", "s", f"{self._done} of {self._total} done"):
            table.add_column(title, no_wrap=True, justify="right" if title == "s" else "left")
        for stage, task in self._running.items():
            table.add_row(stage, task.where, f"{time.monotonic() - task.began:,.0f}", Text(task.line))
        return table

    def _print(self, text: str) -> None:
        console.print(Text(text), highlight=False)

    def __enter__(self) -> "Screen":
        if console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.is_terminal:
            self._live.stop()


class _Task:
    def __init__(self, where: str, began: float) -> None:
        self.where, self.began, self.line = where, began, ""
