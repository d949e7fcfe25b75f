"""The report: report/report.md, the HTML made from it, the figures, and the headline numbers."""

import json
from typing import Any

from headtohead.params import ENGLISH, Params
from headtohead.paths import HEADLINE, PLOTS, REPORT
from headtohead.progress import output, plain_table
from headtohead.reporting import (
    breakdowns,
    comparison,
    dispatch,
    endings,
    examples,
    lookup,
    machines,
    provenance,
    study,
    sweeps,
    tables,
    windows,
)
from headtohead.reporting.claims import CONTROL, MEMORY, Claims, judge, margin_of
from headtohead.reporting.outlook import how_sure, next_step
from headtohead.reporting.recommendation import recommend, warnings
from headtohead.reporting.results import Variant, check_headline, read_results

TITLE = "Which attention for this summarizer?"
TEMPLATE = "report.md.jinja"
EFFICIENCY = ("forward_ms", "generate_ms", "first_token_ms", "tokens_per_s", "peak_memory_mb", "train_step_ms",
              "backend")


def build(params: Params) -> None:
    """Write report/report.md and .html, plots/*.svg and metrics/headline.json, from the stages' files.

    Raises:
        DataError: a stage has not run, or files are from different runs; names a file and the command that makes it.
    """
    from headtohead.reporting import figures, page  # matplotlib and jinja2, which `print_comparison` does not need

    claims = judge(read_results(params))
    figures.draw_all(claims, PLOTS)
    REPORT.mkdir(exist_ok=True)
    markdown = page.fill(TEMPLATE, **contents(claims), title=TITLE, folder=f"../{PLOTS}", published=False)
    (REPORT / "report.md").write_text(markdown, encoding="utf-8")
    (REPORT / "report.html").write_text(page.to_html(markdown, REPORT), encoding="utf-8")
    HEADLINE.parent.mkdir(parents=True, exist_ok=True)
    HEADLINE.write_text(json.dumps(headline(claims), indent=2) + "\n", encoding="utf-8")


def print_comparison(params: Params) -> None:
    """Show the recommendation, how sure it is, what to do next, the first tables, and where the report is.

    Raises:
        DataError: a stage has not run, or files are from different runs.
    """
    check_headline(params)
    claims = judge(read_results(params, whole=False))
    console = output()
    console.print(recommend(claims), style="bold")
    for title, text in (("How sure", how_sure(claims)), ("Next", next_step(claims))):
        console.print(f"\n{title}:", style="bold", end=" ")
        console.print(text)
    for table in (comparison.quality(claims), comparison.cost(claims)):
        print_table(table, params.attention)
    for warning in warnings(claims):
        console.print(f"\n{warning}")
    console.print(f"\nReport: {REPORT / 'report.html'}")


def print_table(table: tables.Table, chosen: str) -> None:
    """Show a table on the terminal, after an empty line, the row of the variant `chosen` in bold."""
    shown = plain_table(close=True)
    for i, title in enumerate(table.header):
        shown.add_column(title, justify="right" if i >= table.words else "left", no_wrap=not i)
    for row in table.rows:
        shown.add_row(*row, style="bold" if row[0] == chosen else "")
    console = output()
    console.print()
    console.print(shown)


def headline(claims: Claims) -> dict[str, Any]:
    """The chosen variant's numbers, and their relation to standard's; the same keys whichever is chosen.

    Time and memory over standard's are those of pairs of processes: what is measured minutes apart differs by what else
    the machine did.
    """
    results = claims.results
    ours = next(variant for variant in results.variants if variant.name == results.params.attention)
    time, memory = (_over_standard(claims, ours, work) for work in ("forward", MEMORY))
    return {
        "attention": ours.name, "preset": results.params.preset, "data": provenance.data(results),
        **ours.quality, **{name: ours.efficiency[name] for name in EFFICIENCY},
        "speedup_vs_standard": None if time is None else 1 / time,
        "memory_vs_standard": memory,
        "rouge1_vs_standard": ours.quality["rouge1"] - results.standard.quality["rouge1"],
    }


def _over_standard(claims: Claims, variant: Variant, work: str) -> float | None:
    """None if one of the two ran out of memory."""
    if variant is claims.results.standard:  # whose pairs compare it with itself, to show how busy the machine was
        return 1.0
    ratio = claims.costs[variant.name][work].ratio
    return None if ratio is None else ratio.value


def contents(claims: Claims) -> dict[str, Any]:
    """The template's variables."""
    results = claims.results
    return {
        "claims": claims, "results": results, "recommendation": recommend(claims), "warnings": warnings(claims),
        "control": CONTROL, "seeds": len(results.params.seeds), "endings": endings.RULE,
        "margin": margin_of(results.primary, results.params.margins),
        "scored_as": "" if results.language == ENGLISH else f"; scored as language {results.language}",
        "breakdowns": breakdowns, "comparison": comparison, "dispatch": dispatch, "examples": examples,
        "lookup": lookup, "machines": machines, "provenance": provenance, "study": study, "sweeps": sweeps,
        "tables": tables, "windows": windows,
    }
