"""Everything the report is made of, read from the files of the other stages."""

import csv
import json
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from headtohead.attention import AttentionSpec
from headtohead.params import Params
from headtohead.quality.rows import read_predictions
from headtohead.records import DataError, read_jsonl

SHOWN_ARTICLES = 3


@dataclass(frozen=True)
class System:
    """Something that writes summaries: `quality` and `details` as `quality.scoring.score` returns them."""

    name: str
    quality: dict[str, float]
    details: dict[str, Any]


@dataclass(frozen=True)
class Variant(System):
    """A trained model: `efficiency` is the flat file, `profile` its details; `curve` its training, a row a step."""

    spec: AttentionSpec
    efficiency: dict[str, Any]
    profile: dict[str, Any]
    curve: list[dict[str, float]] = field(default_factory=list)
    summaries: dict[str, str] = field(default_factory=dict)

    def timings(self, work: str) -> list[dict[str, Any]]:
        """Every timing of `work`, those left out that the device had no room for."""
        return [timing for timing in self.profile["timings"]
                if timing["work"] == work and not timing.get("out_of_memory")]

    def timing(self, work: str, batch: int | None = None) -> dict[str, Any]:
        """The timing of `work` that the flat file speaks of: among other lengths and batch sizes the nearest to it.

        With `batch`, or where the flat file has none because memory ran out, the largest batch of those left.
        """
        timings = [timing for timing in self.timings(work) if batch in (None, timing["batch"])]
        flat = self.efficiency[f"{work}_ms"]
        if flat is None:
            return max(timings, key=lambda timing: int(timing["batch"]))
        return min(timings, key=lambda timing: abs(timing["median"] - flat))


@dataclass(frozen=True)
class Results:
    """One run.

    `baselines` are the rows to hold the variants against: Lead-3 and the untrained model. `articles` are the first of
    the test set. `inputs` say what became of the rows of each file that was read; the bundled source reads none.
    `lengths` say how each split fits, as `data.tokens.lengths` has it.
    """

    params: Params
    variants: list[Variant]
    baselines: list[System]
    machine: dict[str, Any]
    articles: list[dict[str, Any]]
    inputs: list[dict[str, Any]]
    lengths: list[dict[str, Any]]

    @property
    def standard(self) -> Variant:
        return next(variant for variant in self.variants if variant.name == "standard")

    @property
    def on_cpu(self) -> bool:
        """Profiled on the processor; a GPU has a name of its own."""
        return bool(self.standard.profile["device"].startswith(self.machine["processor"]))

    @property
    def length(self) -> int:
        """The preset's own, in tokens."""
        return self.params.chosen.tokenizer.max_length

    @property
    def cut(self) -> int:
        """How many test articles were too long to be shown whole."""
        return int(next(row["cut"] for row in self.lengths if row["split"] == "test"))

    @property
    def language(self) -> str:
        """The one that all systems were scored in."""
        return _language(self.standard)

    @property
    def has_facts(self) -> bool:
        return "fact_recall" in self.standard.quality

    @property
    def main_measure(self) -> str:
        """The surest measure of quality there is."""
        return "fact_recall" if self.has_facts else "rouge1"


def read_results(params: Params) -> Results:
    """Read all of it; relative to the current directory, for the variants that `params.compared` lists.

    Raises:
        DataError: a stage has not run; names the file and the command.
    """
    articles = list(islice(read_jsonl(Path("data/subset/test.jsonl")), SHOWN_ARTICLES))
    bundled = params.chosen.data.source == "newswire"
    inputs = [] if bundled else _json(Path("data/details/articles.json"))["inputs"]
    variants = read_variants(params, whole=True)
    baselines = _baselines(params.seed, _language(variants[0]))
    return Results(params, variants, baselines, _json(Path("metrics/machine.json")), articles, inputs,
                   _json(Path("data/details/lengths.json")))


def read_variants(params: Params, whole: bool = False) -> list[Variant]:
    """The compared variants; without training curves and summaries unless `whole`."""
    return [_variant(name, params.variants[name], whole) for name in params.compared]


def _variant(name: str, spec: AttentionSpec, whole: bool) -> Variant:
    metrics, details = Path("metrics/variants", name), Path("data/details", name)
    rest: dict[str, Any] = {"curve": _curve(Path("plots/training", f"{name}.csv")),
                            "summaries": _summaries(Path("data/predictions", f"{name}.jsonl"))} if whole else {}
    return Variant(name, _json(metrics / "quality.json"), _json(details / "quality.json"), spec,
                   _json(metrics / "efficiency.json"), _json(details / "efficiency.json"), **rest)


def _baselines(seed: int, language: str) -> list[System]:
    """Lead-3 and the untrained model on the same articles; they belong to no variant, so they are scored here."""
    from headtohead.quality.scoring import score  # loads the scorers, which the terminal's table does not need

    facts = [row for row in read_jsonl(Path("data/tokens/facts.jsonl")) if row["set"] == "test"]
    files = {"Lead-3": "lead3.jsonl", "untrained": "untrained.jsonl"}
    return [System(name, *score(read_predictions(Path("data/predictions", file)), facts, seed, language))
            for name, file in files.items()]


def _language(variant: Variant) -> str:
    return str(variant.details["scorer"]["language"])


def _summaries(path: Path) -> dict[str, str]:
    return {row["id"]: row["summary"] for row in read_predictions(path)}


def _curve(path: Path) -> list[dict[str, float]]:
    """The rows of a training curve; a value that a step does not have is left out."""
    with _existing(path).open(encoding="utf-8", newline="") as lines:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]


def _json(path: Path) -> Any:
    return json.loads(_existing(path).read_text(encoding="utf-8"))


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path} is missing; `dvc repro` makes it")
    return path
