"""The report's tables as data: plain text in cells, laid out by the template."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import floor, log10
from typing import Any, Self

import regex

from headtohead.quality.facts import mention, states
from headtohead.records import Record
from headtohead.reporting.results import Results, System, Variant
from headtohead.words import pieces

NOTHING = "-"
WORKS = ("forward", "first_token", "generate", "attention", "train_step")
LABELS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "bleu": "BLEU", "fact_recall": "fact recall"}

# "Reducing Inference Time in GPT Models", Tables I and II: A100 40 GB, batch 1, 512 tokens claimed.
STUDY = {
    "standard": {"rouge1": 0.1806, "rouge2": 0.0804, "rougeL": 0.1215, "bleu": 0.0263, "ms": 96.22, "mb": 9465.81},
    "flash": {"rouge1": 0.1608, "rouge2": 0.0691, "rougeL": 0.1076, "bleu": 0.0221, "ms": 73.42, "mb": 8867.81},
    "flash_alibi": {"rouge1": 0.1975, "rouge2": 0.0868, "rougeL": 0.1320, "bleu": 0.0295, "ms": 87.08, "mb": 8865.81},
    "flash_sparse": {"rouge1": 0.1943, "rouge2": 0.0856, "rougeL": 0.1303, "bleu": 0.0282, "ms": 86.86, "mb": 8877.81},
}


class Marked(str):
    """A text in parts, some of them strong."""

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


def compared(variants: Sequence[Variant]) -> Table:
    """The main comparison, one row a variant."""
    measures = [name for name in ("rouge1", "rougeL", "bleu", "fact_recall") if name in variants[0].quality]
    header = ["variant", *(LABELS[name] for name in measures), "words",
              "forward ms", "generate ms", "tokens/s", "peak MB", "train step ms"]
    speeds = ("forward_ms", "generate_ms", "tokens_per_s", "peak_memory_mb", "train_step_ms")
    return Table(header, [[variant.name, *(_give_or_take(variant, name) for name in measures),
                           f"{variant.details['summary_words']:.1f}",
                           *(short(variant.efficiency[name]) for name in speeds)] for variant in variants])


def study_quality(results: Results) -> Table:
    """The study's Table I: ours with its interval, and the study's."""
    measures = ("rouge1", "rouge2", "rougeL", "bleu")
    header = ["model", *(title for name in measures for title in (LABELS[name], "study's"))]
    rows = [[system.name, *(cell for name in measures for cell in
                            (_with_interval(system.details, name), _study(system.name, name, "{:.4f}")))]
            for system in [*results.variants, *results.baselines]]
    return Table(header, rows)


def study_efficiency(results: Results) -> Table:
    """The study's Table II: median forward latency with its range, and peak memory, ours and the study's."""
    header = ["model", "forward ms (p10 to p90)", "study's inference ms", "peak MB", "study's MB"]
    return Table(header, [[variant.name, _with_range(variant.timing("forward")), _study(variant.name, "ms", "{:.2f}"),
                           short(variant.efficiency["peak_memory_mb"]), _study(variant.name, "mb", "{:,.2f}")]
                          for variant in results.variants])


def times(results: Results) -> Table:
    """Every timing: median and range, in ms."""
    rows = [[variant.name, timing["work"].replace("_", " "), str(timing["batch"]), str(timing["length"]),
             str(timing["new_tokens"]), _with_range(timing), str(timing["repeats"]), timing.get("backend", NOTHING)]
            for variant in results.variants for work in WORKS for timing in variant.timings(work)]
    header = ["variant", "work", "batch", "tokens in", "tokens out", "ms (p10 to p90)", "repeats", "attention by"]
    return Table(header, rows, words=2)


def recall_by(key: str, results: Results) -> Table:
    """Fact recall of every system for each group of facts, `key` being "distance" or "kind"."""
    name = f"fact_recall_by_{key}"
    groups = [group[key] for group in results.standard.details[name]]
    counts = ["facts in the group", *(str(group["facts"]) for group in results.standard.details[name])]
    systems: Iterable[System] = [*results.variants, *results.baselines]
    rows = [[system.name, *(_with_interval(group, "fact_recall") for group in system.details[name])]
            for system in systems]
    return Table(["model", *(f"{group} tokens" if key == "distance" else group for group in groups)], [*rows, counts])


def further(results: Results) -> Table:
    """Loss, ROUGE-1 and fact recall on the test set and on each further one."""
    rows = [[name, variant.name, *(_with_interval(part, measure) for measure in ("loss", "rouge1", "fact_recall")),
             f"{part['cut']:.0%}" if "cut" in part else NOTHING]
            for name in ["test", *results.standard.details["further"]]
            for variant in results.variants
            for part in [variant.details if name == "test" else variant.details["further"][name]]]
    header = ["test set", "variant", "loss, nats per token", "ROUGE-1", "fact recall", "articles cut"]
    return Table(header, rows, words=2)


def article_text(article: Record, results: Results) -> str:
    """The article, its facts strong where they are known."""
    text: str = article["article"]
    return facts_marked(text, [fact["value"] for fact in article["facts"]]) if results.has_facts else text


def side_by_side(article: Record, results: Results) -> Table:
    """The reference and every variant's summary of one article.

    Strong is what to look at: facts where they are known, else the words that standard's summary does not have.
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
    """`text` with the values that it states strong."""
    mentions = "|".join(mention(value) for value in values if states(text, value))
    parts = regex.split(f"({mentions})", text, flags=regex.V1) if mentions else [text]
    return Marked([(part, i % 2 == 1) for i, part in enumerate(parts)])


def changes_marked(text: str, standard: str) -> Marked:
    """`text` with the words strong that are not in `standard` at the like place."""
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


def short(number: float | None) -> str:
    """Three significant digits, never fewer than the whole part has; a dash for what did not fit in memory."""
    if number is None:
        return NOTHING
    digits = 2 - floor(log10(abs(number))) if number else 0
    return f"{number:,.{max(0, digits)}f}"


def _give_or_take(system: System, name: str) -> str:
    half = (system.details[f"{name}_high"] - system.details[f"{name}_low"]) / 2
    return f"{system.quality[name]:.3f} ±{half:.3f}"


def _with_interval(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return NOTHING
    return _range(f"{values[name]:.3f}", f"{values[f'{name}_low']:.3f}", f"{values[f'{name}_high']:.3f}")


def _with_range(timing: dict[str, Any]) -> str:
    return _range(short(timing["median"]), short(timing["p10"]), short(timing["p90"]))


def _range(number: str, low: str, high: str) -> str:
    """With no-break spaces inside the brackets: where a column is narrow they go to a line of their own, whole."""
    return f"{number} ({low}\u00a0to\u00a0{high})"


def _study(name: str, column: str, form: str) -> str:
    return form.format(STUDY[name][column]) if name in STUDY else NOTHING
