"""`h2h summarize`: everything that it tells, and the order in which it works."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from headtohead.progress import Bar, console
from headtohead.records import DataError, Record
from headtohead.stage import keep_freed_memory
from headtohead.summaries.reading import PIPE, Sources
from headtohead.summaries.routing import AUTO, rule_for
from headtohead.summaries.settings import Wishes, settings_of
from headtohead.summaries.writing import Nowhere, Output, Resumable, Terminal

if TYPE_CHECKING:
    from headtohead.summaries.run import Summarizer


@dataclass
class Tally:
    """What became of the articles.

    Args:
        routed: whether each article's length decided on its model.
    """

    routed: bool = False
    articles: int = 0
    cut: int = 0
    most: float = 0.0  # the largest share that was cut
    empty: int = 0
    models: Counter[str] = field(default_factory=Counter)

    def add(self, rows: list[Record]) -> None:
        for row in rows:
            self.articles += 1
            self.cut += row["cut"] > 0
            self.most = max(self.most, row["cut_share"])
            self.empty += not row["tokens"]
            if row["model"]:
                self.models[row["model"]] += 1

    def told(self) -> list[str]:
        """What there is to say about them, in lines."""
        divided = sorted(self.models.items()) if self.routed else []
        lines = [f"{model}: {count:,} articles" for model, count in divided]
        if self.cut:
            lines.append(f"cut to fit: {self.cut:,}, by up to {100 * self.most:.0f} % of their tokens")
        if self.empty:
            lines.append(f"without text: {self.empty:,}, which have an empty summary")
        return lines


def run(sources: Sources, model: str, latency: float | None, output: Path | None, aloud: bool, wishes: Wishes) -> None:
    """Summarize all articles of the sources.

    Args:
        model: its folder, or "auto".
        latency: with "auto", the most time that an article may take, in ms.
        output: the file to write, or to go on with; None writes to standard output.
        aloud: show each summary on standard output while it is written.

    Raises:
        DataError: whatever cannot be used or written; what is in `output` stays, and is gone on with.
    """
    if sources.files == [PIPE] and sys.stdin.isatty():
        raise DataError("no articles: name files, or pipe them in")
    rule = rule_for(model, latency)
    say(f"{model}: {settings_of(Path(rule(1)), wishes)}")
    total = None if sources.once else sum(1 for _ in sources.rows(sys.stdin.buffer))  # finds broken rows before work
    keep_freed_memory()
    from transformers.utils.logging import disable_progress_bar

    from headtohead.attention.job import BackendError
    from headtohead.models.gpt2 import ModelError
    from headtohead.summaries.run import Summarizer
    disable_progress_bar()  # of weights being loaded
    try:
        summarizer = Summarizer(rule, wishes)
        place = Resumable(output, summarizer.wrong) if output else Nowhere() if aloud else Terminal()
        _summarize(summarizer, sources, place, total, aloud, Tally(routed=model == AUTO))
    except (ModelError, BackendError) as error:
        raise DataError(str(error)) from error


def _summarize(summarizer: "Summarizer", sources: Sources, output: Output, total: int | None, aloud: bool,
               tally: Tally) -> None:
    began, kept = time.monotonic(), 0
    visible = not aloud and not (isinstance(output, Terminal) and sys.stdout.isatty())
    bar: AbstractContextManager[Bar | None] = Bar("summaries", total) if visible else nullcontext()
    with bar as shown:
        on_done: Callable[[int], None] = shown.advance if shown else lambda count: None
        for window in summarizer.windows(sources.rows(sys.stdin.buffer), alone=aloud):
            there = output.there(window)
            kept += len(there)
            tally.add(there)
            if len(there) == len(window):
                on_done(len(window))
            elif aloud:
                _show("\n" if tally.articles > kept else "")
                row = summarizer.aloud(window[0], _show)
                _show("\n")
                output.write([row])
                tally.add([row])
            else:  # a window that was begun is done again as a whole, in the same batches
                rows = summarizer.rows(window, on_done)[len(there):]
                output.write(rows)
                tally.add(rows)
    output.close()
    before = f" ({kept:,} were there already)" if kept else ""
    say(f"summaries: {tally.articles:,}{before} in {time.monotonic() - began:,.1f} s", *tally.told())


def _show(text: str) -> None:
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


def say(*lines: str) -> None:
    """Tell something beside the summaries."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
