"""Progress bars for people; nothing where there is no terminal."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True)


class Bar:
    """One progress bar over `total` pieces of work, of which `done` are done already."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task(title, total=total, completed=done, note="")
        self._progress.start()

    def advance(self, by: int = 1) -> None:
        self._progress.advance(self._task, by)

    def note(self, text: str) -> None:
        """Show a few words beside the bar."""
        self._progress.update(self._task, note=text)

    def close(self) -> None:
        self._progress.stop()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
