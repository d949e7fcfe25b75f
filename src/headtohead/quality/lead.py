"""Lead-3: an article's first three sentences, the baseline that news summarizers must beat."""

import re
from collections.abc import Iterable

import regex
import sentencex

from headtohead.params import ENGLISH

ABBREVIATIONS = ("Mr|Mrs|Ms|Dr|Prof|Sen|Rep|Gov|Gen|Col|Lt|Sgt|Capt|St|Jr|Sr|Inc|Corp|Ltd|Co|vs|No|"
                 "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec")

# A stop, perhaps closing quotes or brackets, white space, and something that may begin a sentence: a capital or a
# digit, and any letter in a text without capitals. The escapes are typographic quotes.
_BOUNDARY = r"""[.!?]["'\u201d\u2019)\]]*\s+(?=["'\u201c\u2018(\[]?[A-Z0-9])"""
# What a full stop follows without ending a sentence: an abbreviation, or initials as in "J. R. Smith" and "U.S."
_INNER = rf"\b(?:{ABBREVIATIONS}|[A-Z](?:\.[A-Z])*)\.$"

# sentencex splits after initials, as in "M. Dupont", and before what goes on with a small letter or a dash and one.
_INITIAL = regex.compile(r"(?<!\p{L})\p{Lu}\.\s*$")
_GOES_ON = regex.compile(r"[\u2013\u2014]?\s*\p{Ll}")
# It does not split at Khmer stops; in Thai and Lao, which write no stops, so that a phrase ends at a space between
# letters (but not beside the sign of repetition); and in German and Danish before a number, where five small letters
# before the stop are no abbreviation.
_THAI_LAO = r"[[\p{Thai}\p{Lao}]&&[\p{L}\p{M}]--[\u0e46\u0ec6]]"
_MISSED = regex.compile(rf"(?<=[\u17d4\u17d5])\s*(?=\S)|(?<={_THAI_LAO})\s+(?={_THAI_LAO})"
                        r"|(?<=\p{Ll}{5}[.!?])\s+(?=\d)", regex.V1)


def sentences(text: str, language: str = ENGLISH) -> list[str]:
    """The sentences of `text`, without newlines; an empty line always ends one."""
    split = _english if language == ENGLISH else _other
    return [sentence for paragraph in re.split(r"\n\s*\n", text)
            for sentence in split(" ".join(paragraph.split()), language)]


def lead3(article: str, language: str = ENGLISH) -> str:
    """The first three sentences, one per line, as in the reference summaries."""
    return "\n".join(sentences(article, language)[:3])


def _english(paragraph: str, _: str) -> list[str]:
    found, begin = [], 0
    case = re.IGNORECASE if paragraph.islower() else re.NOFLAG
    for stop in re.finditer(_BOUNDARY, paragraph, case):
        sentence = paragraph[begin:stop.end()].rstrip()
        if not re.search(_INNER, sentence, case):
            found.append(sentence)
            begin = stop.end()
    return [*found, *filter(None, [paragraph[begin:]])]


def _other(paragraph: str, language: str) -> list[str]:
    found: list[str] = []
    for segment in _segments(paragraph, language):
        goes_on = _GOES_ON.match(segment) and not paragraph.islower()
        if found and (goes_on or _INITIAL.search(found[-1])):
            found[-1] += segment
        else:
            found.append(segment)
    return [sentence.strip() for sentence in found]


def _segments(paragraph: str, language: str) -> Iterable[str]:
    return (part for segment in sentencex.segment(language, paragraph) for part in _MISSED.split(segment))
