"""Articles in separate text files, each with its summary in another file."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import TextIOWrapper
from itertools import takewhile
from pathlib import Path

from headtohead.articles.encodings import encodings_of
from headtohead.articles.formats import opened
from headtohead.records import Record


@dataclass(frozen=True)
class Texts:
    """Text files: an article, its summary, the next article and so on.

    Args:
        encoding: Python's name for it; None detects it, file by file.
    """

    files: list[Path]
    encoding: str | None = None

    def rows(self, before: int = 0) -> Iterator[Record]:
        """Every pair as {"id", "article", "summary"}, texts stripped; the id is the path that the two share.

        Raises:
            DataError: a file cannot be read, or is in no encoding that is known; says which and why.
        """
        for article, summary in zip(self.files[::2], self.files[1::2], strict=True):
            yield {"id": _shared(article, summary), "article": self._text(article), "summary": self._text(summary)}

    @cached_property
    def read_as(self) -> str:
        """How the files are understood, in words: "text files, utf-8"."""
        return f"text files, {' and '.join(sorted(set(self._encodings.values())))}"

    @cached_property
    def _encodings(self) -> dict[Path, str]:
        return encodings_of(self.files, self.encoding)

    def _text(self, file: Path) -> str:
        with opened(file) as data:
            return TextIOWrapper(data, self._encodings[file]).read().strip()


def _shared(article: Path, summary: Path) -> str:
    """The common end of two paths: sport/001.txt of articles/sport/001.txt and summaries/sport/001.txt."""
    ends = zip(reversed(article.parts), reversed(summary.parts), strict=False)
    return "/".join(reversed([ours for ours, theirs in takewhile(lambda pair: pair[0] == pair[1], ends)]))
