"""The report: report/report.md, the page made from it, the figures, and the headline numbers."""

import json
from pathlib import Path
from typing import Any

from headtohead.params import ENGLISH, Params
from headtohead.reporting import provenance, sweeps, tables, verdict
from headtohead.reporting.results import Results, read_results, read_variants

REPORT = Path("report")
FIGURES = Path("plots")
HEADLINE = Path("metrics/headline.json")
EFFICIENCY = ("forward_ms", "generate_ms", "first_token_ms", "tokens_per_s", "peak_memory_mb", "train_step_ms",
              "backend")


def build(params: Params) -> None:
    """Write report/report.md and .html, plots/*.svg and metrics/headline.json, from what the stages left.

    Raises:
        DataError: a stage has not run; names the file and the command that makes it.
    """
    from headtohead.reporting import figures, page  # matplotlib and jinja2, which `print_comparison` does without

    results = read_results(params)
    figures.draw_all(results, FIGURES)
    REPORT.mkdir(exist_ok=True)
    markdown = page.fill("report.md.jinja", **contents(results))
    (REPORT / "report.md").write_text(markdown, encoding="utf-8")
    (REPORT / "report.html").write_text(page.to_html(markdown, REPORT), encoding="utf-8")
    HEADLINE.parent.mkdir(parents=True, exist_ok=True)
    HEADLINE.write_text(json.dumps(headline(results), indent=2) + "\n", encoding="utf-8")


def print_comparison(params: Params) -> None:
    """Show the main table, and where the report is, on the terminal.

    Raises:
        DataError: a stage has not run.
    """
    from rich.console import Console
    from rich.table import Table

    comparison = tables.compared(read_variants(params))
    shown = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1), collapse_padding=True)
    for i, title in enumerate(comparison.header):
        shown.add_column(title, justify="right" if i else "left", no_wrap=not i)
    for row in comparison.rows:
        shown.add_row(*row, style="bold" if row[0] == params.attention else "")
    console = Console()
    console.width = console.width if console.is_terminal else 140  # a log file need not wrap
    console.print(shown)
    console.print(f"Report: {REPORT / 'report.html'}")


def headline(results: Results) -> dict[str, Any]:
    """The chosen variant's numbers and how they stand to standard's; the same keys whichever is chosen."""
    ours = next(variant for variant in results.variants if variant.name == results.params.attention)
    standard = results.standard
    return {
        "attention": ours.name, **ours.quality, **{name: ours.efficiency[name] for name in EFFICIENCY},
        "speedup_vs_standard": standard.efficiency["forward_ms"] / ours.efficiency["forward_ms"],
        "memory_vs_standard": ours.efficiency["peak_memory_mb"] / standard.efficiency["peak_memory_mb"],
        "rouge1_vs_standard": ours.quality["rouge1"] - standard.quality["rouge1"],
    }


def contents(results: Results) -> dict[str, Any]:
    """What the template speaks of."""
    seed, standard = results.params.seed, results.standard
    floors = verdict.noise_floors(results.variants, seed)
    others = [variant for variant in results.variants if variant is not standard]
    judged = {variant.name: verdict.judge(variant, standard, floors, seed) for variant in others}
    articles = len(standard.details["articles"]["id"])
    return {
        "results": results, "tables": tables, "provenance": provenance, "sweeps": sweeps, "articles": articles,
        "scored_as": "" if results.language == ENGLISH else f", scored as language {results.language}",
        "recommendation": verdict.recommend(judged, others), "answers": verdict.answers(judged, articles),
        "floors": {verdict.QUALITY[k]: v for k, v in floors.items()},
        "drifts": {variant.name: verdict.drift(variant, standard) for variant in others},
        "verdicts": {variant.name: verdict.in_words(variant, standard, judged[variant.name]) for variant in others},
    }
