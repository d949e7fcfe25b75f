"""Which rows are usable articles: those with an article and a summary that do not repeat an earlier row."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from headtohead.records import DataError, Record
from headtohead.words import words

REASONS = ("without text", "exact duplicates", "near duplicates", "summary longer than article")
LEAD = 150  # letters and digits at the start of an article that two stories do not share by chance
FIRST = re.compile(r"[^\W_]")  # the letter or digit with which an article begins, after rules and bullets
SHINGLE = 4  # words; in scripts without spaces letters
SKETCH = 64  # smallest shingle hashes kept of each article
LOOKUP = 4  # how many of these are used to find similar articles
SHARED = 2  # how many of those two near duplicates share: all but one pair in 250 do
CROWD = 20  # articles with one such hash: more than that share a standing phrase, not a story
ALIKE = 0.9  # estimated share of common shingles from which two articles are near duplicates

Hashes = NDArray[np.uint64]
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)


@dataclass
class Tally:
    """What happened to one input's rows. `dropped` counts them by reason; `used` went into a split."""

    name: str
    read_as: str
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    used: int = 0

    @property
    def kept(self) -> int:
        return self.rows - self.dropped.total()

    def row(self) -> dict[str, str | int]:
        """All of it, every reason too, as one row of a table."""
        dropped = {reason: self.dropped[reason] for reason in REASONS}
        return {"input": self.name, "read as": self.read_as, "rows": self.rows, **dropped, "used": self.used}


class Cleaner:
    """Remembers every article that it has kept, over all inputs, so that no two splits share one.

    Near duplicates begin with the same 150 letters and digits, or share 9 in 10 of their four-word sequences, as
    estimated from the 64 with the smallest hashes (Broder 1997, "On the resemblance and containment of documents").
    """

    def __init__(self) -> None:
        self._texts: set[int] = set()
        self._leads: set[int] = set()
        self._sketches: list[Hashes] = []
        self._having: defaultdict[int, list[int]] = defaultdict(list)

    def clean(self, rows: Iterable[Record], tally: Tally) -> Iterator[tuple[int, Record]]:
        """The rows to keep, with their positions from 0; `tally` counts all.

        Raises:
            DataError: two different articles have one id.
        """
        ids: set[int] = set()
        for position, row in enumerate(rows):
            tally.rows += 1
            if reason := self._reason_against(row):
                tally.dropped[reason] += 1
                continue
            if (key := hash(row["id"])) in ids:
                raise DataError(f"{tally.name}, row {position + 1}: another article has the id {row['id']!r} too; "
                                "make the column `id` unique or rename it, and rows are numbered")
            ids.add(key)
            yield position, row

    def _reason_against(self, row: Record) -> str | None:
        article, summary = row["article"], row["summary"]
        begin = FIRST.search(article)
        lead = re.sub(r"[\W_]+", "", article[begin.start():][:2 * LEAD].casefold())[:LEAD] if begin else ""
        if not lead or not summary:
            return "without text"
        if len(summary) > len(article):
            return "summary longer than article"
        if not _is_new(hash(" ".join(article.split())), self._texts):
            return "exact duplicates"
        hashes = sketch(article)
        if not _is_new(hash(lead), self._leads) or self._resembles_one(hashes):
            return "near duplicates"
        self._remember(hashes)
        return None

    def _resembles_one(self, hashes: Hashes) -> bool:
        shared = Counter(i for key in hashes[:LOOKUP].tolist() for i in self._having.get(key, ()))
        return any(resemblance(hashes, self._sketches[i]) >= ALIKE
                   for i, count in shared.items() if count >= min(SHARED, len(hashes)))

    def _remember(self, hashes: Hashes) -> None:
        for key in hashes[:LOOKUP].tolist():
            if len(self._having[key]) < CROWD:
                self._having[key].append(len(self._sketches))
        self._sketches.append(hashes)


def _is_new(key: int, seen: set[int]) -> bool:
    before = len(seen)
    seen.add(key)
    return len(seen) > before


def sketch(text: str) -> Hashes:
    """The smallest hashes of the text's four-word sequences, sorted; the same in every process."""
    hashes = np.array([crc32(word.encode()) for word in words(text.casefold())], np.uint64)
    size = min(SHINGLE, len(hashes))
    mixed = (np.lib.stride_tricks.sliding_window_view(hashes, size) * _ODD[:size]).sum(1, dtype=np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * _ODD[0]
    return np.unique(mixed ^ (mixed >> np.uint64(29)))[:SKETCH].copy()  # a view would keep all of them


def resemblance(a: Hashes, b: Hashes) -> float:
    """Estimated |shingles in both| / |shingles in either|."""
    smallest = np.union1d(a, b)[:SKETCH]
    return float(np.isin(smallest, np.intersect1d(a, b)).mean())
