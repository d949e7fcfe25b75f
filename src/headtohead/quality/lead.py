"""Lead-3: an article's first three sentences, the baseline that news summarizers must beat."""

import re

ABBREVIATIONS = ("Mr|Mrs|Ms|Dr|Prof|Sen|Rep|Gov|Gen|Col|Lt|Sgt|Capt|St|Jr|Sr|Inc|Corp|Ltd|Co|vs|No|"
                 "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec")

# A stop, perhaps closing quotes or brackets, white space, and something that may begin a sentence: a capital or a
# digit, and any letter in a text without capitals. The escapes are typographic quotes.
_BOUNDARY = r"""[.!?]["'\u201d\u2019)\]]*\s+(?=["'\u201c\u2018(\[]?[A-Z0-9])"""
# What a full stop follows without ending a sentence: an abbreviation, or initials as in "J. R. Smith" and "U.S."
_INNER = rf"\b(?:{ABBREVIATIONS}|[A-Z](?:\.[A-Z])*)\.$"


def sentences(text: str) -> list[str]:
    """`text` in sentences, without the newlines in it; an empty line always ends one."""
    return [sentence for paragraph in re.split(r"\n\s*\n", text) for sentence in _split(" ".join(paragraph.split()))]


def lead3(article: str) -> str:
    """The first three sentences, one a line, as the reference summaries have them."""
    return "\n".join(sentences(article)[:3])


def _split(paragraph: str) -> list[str]:
    found, begin = [], 0
    case = re.IGNORECASE if paragraph.islower() else re.NOFLAG
    for stop in re.finditer(_BOUNDARY, paragraph, case):
        sentence = paragraph[begin:stop.end()].rstrip()
        if not re.search(_INNER, sentence, case):
            found.append(sentence)
            begin = stop.end()
    return [*found, *filter(None, [paragraph[begin:]])]
