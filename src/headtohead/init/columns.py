"""Which column holds the articles and which their summaries, judged by names, by lengths, and by what they share."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import mean, median

from headtohead.articles.files import USUAL
from headtohead.records import DataError
from headtohead.words import words

TITLES = ("headline", "headlines", "title")  # these sum up an article, too: taken only if nothing else does
NAMES = {"article": {*USUAL["article"], "articles", "source", "report", "transcript", "full"},
         "summary": {*USUAL["summary"], "summaries", "tldr", "synopsis", "gist", "teaser"} - {*TITLES}}
FILLED = 0.9  # least share of the rows in which both texts are there and the summary is the shorter one
SHORTER = 0.6  # at most so many times as many words as the article
LEAST_WORDS = 4
SHARED = 0.15  # how much more of a summary's words stand in its own article than in the next one
SHOWN = 12  # columns in a message


@dataclass(frozen=True)
class Columns:
    """The two columns, and why it is these."""

    article: str
    summary: str
    why: str


@dataclass(frozen=True)
class _Pair:
    """Two columns of which the second may sum up the first.

    Args:
        lengths: median words of both.
        inside: share of the summary's words that stand in its article; `elsewhere`, in the next row's article.
    """

    article: str
    summary: str
    lengths: tuple[float, float]
    inside: float
    elsewhere: float

    def named(self, side: str) -> int:
        """How clearly the column's name says what it is: 2, its whole name; 1, a word of it; 0, not at all."""
        name = getattr(self, side).casefold().strip()
        return 2 if name in NAMES[side] else int(bool(NAMES[side].intersection(re.split(r"[\W_]+", name))))


def find(rows: Sequence[Mapping[str, object]], article: str | None, summary: str | None, where: str) -> Columns:
    """The columns with the articles and their summaries.

    Args:
        rows: some of the input's.
        article, summary: what the user says, if anything.
        where: the input, in messages.

    Raises:
        DataError: a named column is missing, no two columns fit, or several do; names those and the option to give.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    for option, name in (("--article", article), ("--summary", summary)):
        if name is not None and name not in names:
            raise DataError(f"{where} has no column {name!r} ({option}); its columns are {_listed(names)}")
    if article is not None and summary is not None:
        if article == summary:
            raise DataError(f"{where}: --article and --summary both name {article!r}; give each its own column")
        return Columns(article, summary, "as you say")
    pairs = [pair for pair in _pairs(rows, names)
             if article in (None, pair.article) and summary in (None, pair.summary)]
    if not pairs:
        raise DataError(f"{where}: cannot tell which columns hold articles and summaries; no text column is shorter "
                        f"than another and made of its words. Name them with --article and --summary; the columns are "
                        f"{_described(rows, names)}")
    summaries = {pair.summary for pair in pairs}
    if longest := [pair for pair in pairs if pair.article not in summaries]:
        pairs = longest  # what sums up another column is no article, whatever its name
    for side, chosen in (("article", article), ("summary", summary)):
        best = max(pair.named(side) for pair in pairs)
        pairs = [pair for pair in pairs if pair.named(side) == best]
        if side == "summary" and len({pair.summary for pair in pairs}) > 1:
            pairs = [pair for pair in pairs if pair.summary.casefold() not in TITLES] or pairs
        if chosen is None and len(several := list(dict.fromkeys(getattr(pair, side) for pair in pairs))) > 1:
            raise DataError(f"{where}: cannot tell whether {' or '.join(map(repr, several))} holds the "
                            f"{'articles' if side == 'article' else 'summaries'}; name it with --{side}. The columns "
                            f"are {_described(rows, names)}")
    [found] = pairs
    return Columns(found.article, found.summary, (
        f"{found.lengths[0]:,.0f} and {found.lengths[1]:,.0f} words (medians); {found.inside:.0%} of a summary's words "
        f"stand in its article, {found.elsewhere:.0%} in another").replace("%", " %"))


def _pairs(rows: Sequence[Mapping[str, object]], names: list[str]) -> list[_Pair]:
    texts = {name: [cell if isinstance(cell := row.get(name), str) else "" for row in rows] for name in names}
    texts = {name: cells for name, cells in texts.items() if any(cells)}
    split = {name: [words(cell.casefold()) for cell in cells] for name, cells in texts.items()}
    found = []
    for article, summary in permutations(texts, 2):
        both = [(ours, theirs) for ours, theirs in zip(split[article], split[summary], strict=True)
                if theirs and len(theirs) < len(ours)]
        if len(both) < FILLED * len(rows):
            continue
        long, short = (median(len(pair[side]) for pair in both) for side in (0, 1))
        if short < LEAST_WORDS or short > SHORTER * long:
            continue
        sets = [set(ours) for ours, _ in both]
        inside = mean(_share(theirs, own) for (_, theirs), own in zip(both, sets, strict=True))
        elsewhere = mean(_share(theirs, other) for (_, theirs), other in
                         zip(both, sets[1:] + sets[:1], strict=True)) if len(both) > 1 else 0.0
        if inside - elsewhere >= SHARED:
            found.append(_Pair(article, summary, (long, short), inside, elsewhere))
    return found


def _share(found: list[str], within: set[str]) -> float:
    return sum(word in within for word in found) / len(found)


def _described(rows: Sequence[Mapping[str, object]], names: list[str]) -> str:
    """The columns, those of text with their lengths."""
    said = []
    for name in names:
        texts = [cell for row in rows if isinstance(cell := row.get(name), str) and cell.strip()]
        count = round(median(len(words(text)) for text in texts)) if texts else 0
        said.append(f"{name[:40]} ({count:,} {'word' if count == 1 else 'words'})" if count else name[:40])
    return _listed(said)


def _listed(names: list[str]) -> str:
    return ", ".join(name[:60] for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
