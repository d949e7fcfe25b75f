"""The last run as files to commit and to read on GitHub: numbers, figures and settings, but no articles' text."""

import subprocess
from pathlib import Path
from typing import Any

from headtohead.params import Params
from headtohead.paths import BASELINES
from headtohead.records import DataError, write_json
from headtohead.reporting.claims import Claims, judge
from headtohead.reporting.comparison import all_trainings
from headtohead.reporting.report import EFFICIENCY, TEMPLATE, contents
from headtohead.reporting.results import System, Training, Variant, read_results
from headtohead.reporting.windows import curves
from headtohead.statistics import Comparison, Ratio

SWEPT = ("forward", "generate")  # works whose time and memory are published at every size
SOURCES = ("src", "stages", "params.yaml", "dvc.yaml")  # what decides a run, besides its input


def publish(params: Params, target: Path, command: str, took: str, commit: str | None = None) -> None:
    """Write TARGET.md, TARGET.json and the figures in TARGET/, replacing earlier ones.

    Args:
        target: a path without suffix.
        command: what was typed to run it.
        took: how long that took.
        commit: of the code that ran; None asks git here.

    Raises:
        DataError: a stage has not run, git does not know the commit, or `target` cannot be written.
    """
    from headtohead.reporting import page  # jinja2, which `print_comparison` does not need

    claims = judge(read_results(params))
    origin = {"commit": commit or current_commit(), "command": command, "took": took}
    device = claims.results.standard.profile["device"]
    markdown = page.fill(TEMPLATE, **contents(claims), **origin, title=f"Preset {params.preset} on {device}",
                         folder=target.name, published=True)
    try:
        _draw(claims, target)
        write_json(Path(f"{target}.json"), record(claims, origin))
        Path(f"{target}.md").write_text(markdown, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{error.filename or target} cannot be written: {error.strerror}") from error


def record(claims: Claims, origin: dict[str, str]) -> dict[str, Any]:
    """What the JSON holds: every system's numbers, how the variants differ, and where it all comes from."""
    results = claims.results
    variants = {variant.name: _scores(variant) | {name: variant.efficiency[name] for name in EFFICIENCY}
                for variant in results.variants}
    baselines = {name: _scores(system) for name, system in zip(BASELINES, results.baselines, strict=True)}
    return {"variants": variants, **baselines,
            "trainings": [_training(*one) for one in all_trainings(results)],
            "differences": {measure: {name: _interval("difference", found) for name in claims.quality
                                      if (found := claims.difference(measure, name))}
                            for measure in (results.primary, *claims.others)},
            "primary": results.primary, "margins": results.params.margins.model_dump(),
            "barred": {name: found.barred for name, found in claims.quality.items() if found.barred},
            "seeds_needed": claims.seeds_needed,
            "sweeps": {variant.name: _sweep(variant) for variant in results.variants},
            "ratios": {name: {work: _interval("value", cost.ratio) for work, cost in costs.items() if cost.ratio}
                       for name, costs in claims.costs.items()},
            "machine": results.machine, "preset": results.params.preset, "seed": results.params.seed,
            "seeds": results.params.seeds, **origin, "settings": results.params.chosen.model_dump(exclude_none=True)}


def _interval(name: str, found: Comparison | Ratio) -> dict[str, float]:
    return {key: getattr(found, key) for key in (name, "low", "high")}


def _sweep(variant: Variant) -> dict[str, Any]:
    """Time and memory at every size, and the most tokens that the variant has positions for."""
    keys = ("work", "batch", "length", "new_tokens", "median", "p10", "p90", "peak_mb", "out_of_memory")
    return {"length_limit": variant.profile["length_limit"],
            **{kind: [{key: row[key] for key in keys if key in row} for row in variant.profile[kind]
                      if row["work"] in SWEPT] for kind in ("timings", "memory")}}


def _training(variant: Variant, training: Training) -> dict[str, Any]:
    """One training's scores, how long it was, and where its validation loss was lowest."""
    step, loss = training.lowest
    return {"variant": variant.name, "seed": training.seed,
            **{name: training.details[name] for name in variant.quality if name in training.details},
            "summary_words": training.details["summary_words"], "steps": int(training.steps),
            "lowest_validation_loss": loss, "at_step": int(step)}


def current_commit() -> str:
    """HEAD, with "-dirty" where sources that git tracks differ from it.

    Raises:
        DataError: there is no git, or no commit.
    """
    changed = _git("diff", "--name-only", "HEAD", "--", *SOURCES)
    return _git("rev-parse", "HEAD") + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise DataError("git does not tell which commit this is; say it with --commit") from error


def _scores(system: System) -> dict[str, float]:
    """The flat file's measures, each followed by its interval."""
    known = {**system.details, **system.quality}
    return {key: known[key] for name in system.quality for key in (name, f"{name}_low", f"{name}_high") if key in known}


def _draw(claims: Claims, folder: Path) -> None:
    """Draw the figures again from these results: those in plots/ may be from an earlier run."""
    from headtohead.reporting import figures  # matplotlib, too

    figures.draw_all(claims, folder)
    for name, there in {"fact_recall": claims.results.has_facts, "window_width": curves(claims.results)}.items():
        if not there:
            (folder / f"{name}.svg").unlink()  # it says only that there are none
