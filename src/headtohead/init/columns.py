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
    left = _best(pairs)
    for side, what in (("article", "articles"), ("summary", "summaries")):
        if len(several := list(dict.fromkeys(getattr(pair, side) for pair in left))) > 1:
            raise DataError(f"{where}: cannot tell whether {' or '.join(map(repr, several))} holds the {what}; name it "
                            f"with --{side}. The columns are {_described(rows, names)}")
    [found] = left
    shares = f"{found.inside:.0%} of a summary's words stand in its article, {found.elsewhere:.0%} in another"
    lengths = f"{found.lengths[0]:,.0f} and {found.lengths[1]:,.0f} words (medians)"
    return Columns(found.article, found.summary, f"{lengths}; {shares.replace('%', ' %')}")


def _best(pairs: list[_Pair]) -> list[_Pair]:
    """Those whose columns are the articles and summaries by their names; several if that does not tell."""
    summaries = {pair.summary for pair in pairs}
    # What sums up another column is no article, whatever its name.
    pairs = [pair for pair in pairs if pair.article not in summaries] or pairs
    for side in ("article", "summary"):
        best = max(pair.named(side) for pair in pairs)
        pairs = [pair for pair in pairs if pair.named(side) == best]
        if len({pair.article for pair in pairs}) > 1:
            return pairs
    return [pair for pair in pairs if pair.summary.casefold() not in TITLES] or pairs


def _pairs(rows: Sequence[Mapping[str, object]], names: list[str]) -> list[_Pair]:
    """The columns of text of which the second is shorter than the first, and made of its words."""
    split = {}
    for name in names:
        cells = [cell if isinstance(cell := row.get(name), str) else "" for row in rows]
        if any(cells):
            split[name] = [words(cell.casefold()) for cell in cells]
    found = [_pair(article, summary, split) for article, summary in permutations(split, 2)]
    return [pair for pair in found if pair is not None]


def _pair(article: str, summary: str, split: Mapping[str, list[list[str]]]) -> _Pair | None:
    both = [(ours, theirs) for ours, theirs in zip(split[article], split[summary], strict=True)
            if theirs and len(theirs) < len(ours)]
    if len(both) < FILLED * len(split[article]):
        return None
    long, short = (median(len(pair[side]) for pair in both) for side in (0, 1))
    if short < LEAST_WORDS or short > SHORTER * long:
        return None
    articles = [set(ours) for ours, _ in both]
    following = articles[1:] + articles[:1]
    inside = mean(_share(theirs, own) for (_, theirs), own in zip(both, articles, strict=True))
    elsewhere = 0.0
    if len(both) > 1:
        elsewhere = mean(_share(theirs, other) for (_, theirs), other in zip(both, following, strict=True))
    if inside - elsewhere < SHARED:
        return None
    return _Pair(article, summary, (long, short), inside, elsewhere)


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
