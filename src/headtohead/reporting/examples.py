"""Articles of the test set with every variant's summary."""

from collections.abc import Sequence
from difflib import SequenceMatcher

import regex

from headtohead.quality.facts import mention, states
from headtohead.records import Record
from headtohead.reporting.results import Results
from headtohead.reporting.tables import Marked, Table
from headtohead.words import pieces


def article_text(article: Record, results: Results) -> str:
    """The article, with its facts in bold if they are known."""
    text: str = article["article"]
    return facts_marked(text, [fact["value"] for fact in article["facts"]]) if results.has_facts else text


def side_by_side(article: Record, results: Results) -> Table:
    """The reference and every variant's summary of one article.

    Bold marks the facts if they are known, else the words that standard's summary does not have.
    """
    summaries = {variant.name: variant.summaries[article["id"]] for variant in results.variants}
    if results.has_facts:
        values = [fact["value"] for fact in article["facts"]]
        rows = [[name, facts_marked(text, values), _stated(text, values)]
                for name, text in {"reference": article["summary"], **summaries}.items()]
        return Table(["", "summary", "facts stated"], rows, words=3)
    rows = [["reference", article["summary"]],
            *([name, changes_marked(text, summaries["standard"])] for name, text in summaries.items())]
    return Table(["", "summary"], rows, words=2)


def facts_marked(text: str, values: Sequence[str]) -> Marked:
    """`text` with the values that it states in bold."""
    mentions = "|".join(mention(value) for value in values if states(text, value))
    parts = regex.split(f"({mentions})", text, flags=regex.V1) if mentions else [text]
    return Marked([(part, i % 2 == 1) for i, part in enumerate(parts)])


def changes_marked(text: str, standard: str) -> Marked:
    """`text` with the words in bold that `standard` does not have at the same place."""
    spans = pieces(text)
    words, others = ([whole[begin:end] for begin, end in pieces(whole)] for whole in (text, standard))
    parts: list[tuple[str, bool]] = []
    done = 0
    for change, _, _, first, last in SequenceMatcher(None, others, words, autojunk=False).get_opcodes():
        if first < last:
            begin, end = spans[first][0], spans[last - 1][1]
            parts += [(text[done:begin], False), (text[begin:end], change != "equal")]
            done = end
    return Marked(parts)


def _stated(text: str, values: Sequence[str]) -> str:
    """"4 of 5; missing: 120"."""
    missing = [value for value in values if not states(text, value)]
    return f"{len(values) - len(missing)} of {len(values)}{'; missing: ' if missing else ''}{', '.join(missing)}"


