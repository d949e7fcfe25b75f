"""Tables as data, with plain text in cells, laid out by the template; and how numbers are written in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10
from typing import Any, Self

NOTHING = "-"
LABELS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum", "bleu": "BLEU",
          "loss": "loss", "fact_recall": "fact recall", "fact_precision": "fact precision",
          "wrong_from_article": "wrong, from the article"}
MOST_DIGITS = 6


class Marked(str):
    """A text in parts, some of them in bold."""

    parts: Sequence[tuple[str, bool]]

    def __new__(cls, parts: Sequence[tuple[str, bool]]) -> Self:
        text = super().__new__(cls, "".join(part for part, _ in parts))
        text.parts = parts
        return text


@dataclass(frozen=True)
class Table:
    """`header` and `rows` of plain text. The first `words` columns hold words, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


def short(number: float | None) -> str:
    """Three significant digits, or all digits of the whole part; a dash for what did not fit in memory."""
    if number is None:
        return NOTHING
    digits = 2 - floor(log10(abs(number))) if number else 0
    return f"{number:,.{max(0, digits)}f}"


def signed(difference: float, low: float, high: float) -> str:
    """"+0.031 (+0.012 to +0.050)", with enough digits that nothing but zero is shown as zero."""
    digits = _digits(3, (difference, low, high), 0.0)
    texts = [f"{value:+.{digits}f}" for value in (difference, low, high)]
    return bracketed(*texts) if isfinite(low) else texts[0]


def times(value: float, low: float, high: float, claimed: bool) -> str:
    """"0.52 (0.51 to 0.53)" for a ratio; if it is claimed, with enough digits that nothing but one is shown as one."""
    digits = _digits(2, (value, low, high), 1.0) if claimed else 2
    return bracketed(*(f"{number:.{digits}f}" for number in (value, low, high)))


def _digits(least: int, values: Sequence[float], neutral: float) -> int:
    """Enough that no value is rounded to `neutral`; what `MOST_DIGITS` cannot distinguish from it counts as equal."""
    off = [abs(value - neutral) for value in values if isfinite(value)]
    smallest = min((value for value in off if value >= 10.0 ** -MOST_DIGITS), default=1.0)
    return max(least, -floor(log10(smallest)))


def give_or_take(values: dict[str, Any], name: str) -> str:
    """"0.881 ±0.012": with half of its interval."""
    if values.get(name) is None:
        return NOTHING
    return f"{values[name]:.3f}\u00a0±{(values[f'{name}_high'] - values[f'{name}_low']) / 2:.3f}"


def with_interval(values: dict[str, Any], name: str) -> str:
    """"0.881 (0.869 to 0.893)"."""
    if name not in values:
        return NOTHING
    return bracketed(*(f"{values[name + end]:.3f}" for end in ("", "_low", "_high")))


def bracketed(number: str, low: str, high: str) -> str:
    """With no-break spaces inside the brackets: in a narrow column the interval wraps to a new line as a whole."""
    return f"{number} ({low}\u00a0to\u00a0{high})"


def spans(values: Sequence[int]) -> list[str]:
    """"13", "14", "20 to 29": whole numbers in order, four or more in a row by their ends."""
    rows: list[list[int]] = []
    for value in sorted(values):
        if rows and value == rows[-1][-1] + 1:
            rows[-1].append(value)
        else:
            rows.append([value])
    return [text for row in rows for text in ([f"{row[0]} to {row[-1]}"] if len(row) > 3 else map(str, row))]


def joined(names: Sequence[str]) -> str:
    """"a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
