"""Everything that the report is made from, read from the files of the other stages."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from headtohead.attention import AttentionSpec
from headtohead.attention.table import Table
from headtohead.measured import read_table
from headtohead.params import Params
from headtohead.paths import (
    ARTICLES,
    BACKENDS,
    BASELINES,
    EFFICIENCY,
    HEADLINE,
    LENGTHS,
    MACHINE,
    QUALITY,
    SUBSET,
    Run,
    details,
    metrics,
)
from headtohead.quality.measures import FACT_RECALL, ROUGE, Array, by_article
from headtohead.quality.reading import read_predictions
from headtohead.records import DataError, read_jsonl

SHOWN_ARTICLES = 3
MANY = 100  # trainings, more than anyone reads one by one
NAMES = dict(zip(BASELINES, ("Lead-3", "untrained"), strict=True))  # as the report calls them


@dataclass(frozen=True)
class Training:
    """One training: its learning curve, one row per step, and its scores.

    `details` are as `quality.scoring.score` returns them, without single facts and the articles of further sets; the
    columns of the test set's articles are arrays, without their ids.
    `trained_on` has the device, how many devices, the threads on a CPU, and the backend; None if that is not known.
    """

    seed: int
    details: dict[str, Any]
    curve: list[dict[str, float]]
    trained_on: dict[str, Any] | None = None

    @property
    def validation(self) -> list[tuple[float, float]]:
        """Steps and the validation loss at each."""
        return [(row["step"], row["validation_loss"]) for row in self.curve if "validation_loss" in row]

    @property
    def lowest(self) -> tuple[float, float]:
        """The step with the lowest validation loss, whose weights are kept, and that loss."""
        return min(self.validation, key=lambda point: point[1])

    @property
    def steps(self) -> float:
        return self.curve[-1]["step"]


@dataclass(frozen=True)
class System:
    """Something that writes summaries: `quality` and `details` as `quality.scoring.over_seeds` returns them."""

    name: str
    quality: dict[str, float]
    details: dict[str, Any]


@dataclass(frozen=True)
class Variant(System):
    """A model that was trained from several seeds: `efficiency` is the flat file, `profile` its details.

    `summaries` are those of the first training, by article. `measured` is what this machine's table changed for it.
    """

    spec: AttentionSpec
    trainings: list[Training]
    efficiency: dict[str, Any]
    profile: dict[str, Any]
    summaries: dict[str, str] = field(default_factory=dict)
    measured: Table = field(default_factory=Table)

    def scores(self, measure: str) -> Array:
        """[trainings, articles]; see `measures.by_article`."""
        return np.stack([by_article(measure, training.details["articles"]) for training in self.trainings])

    def pairs(self, work: str) -> list[tuple[float, float]] | None:
        """Ours and standard's, side by side, in ms or MB; None if one of them ran out of memory."""
        return self.profile["pairs"][work]

    def timings(self, work: str) -> list[dict[str, Any]]:
        """Every timing of `work`, except those that ran out of memory."""
        return [timing for timing in self.profile["timings"]
                if timing["work"] == work and not timing.get("out_of_memory")]

    @property
    def timed_on(self) -> str:
        """The machine that its times were taken on: "AMD EPYC, 2 cores, 2 threads"."""
        return f"{self.profile['device']}, {self.profile['threads']} threads"

    def computes_as(self, other: "Variant") -> bool:
        """Whether nothing but the kernel differs."""
        return self.spec.function == other.spec.function


@dataclass(frozen=True)
class Results:
    """One run.

    `baselines` are the reference rows: Lead-3 and the untrained model. `articles` are the first of the test set.
    `inputs` say what happened to the rows of each input file; the bundled source has none. `lengths` say how each split
    fits, as in data/details/lengths.json.
    """

    params: Params
    variants: list[Variant]
    baselines: list[System]
    machine: dict[str, Any]
    lengths: list[dict[str, Any]]
    articles: list[dict[str, Any]] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def standard(self) -> Variant:
        return next(variant for variant in self.variants if variant.name == "standard")

    @property
    def lead3(self) -> System:
        return self.baselines[0]

    @property
    def on_cpu(self) -> bool:
        """Whether it was profiled on the processor, whose name the device then has."""
        return bool(self.standard.profile["device"].startswith(self.machine["processor"]))

    @property
    def length(self) -> int:
        """The preset's own length, in tokens."""
        return self.params.chosen.tokenizer.max_length

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return int(self.standard.profile["layers"])

    @property
    def test(self) -> dict[str, Any]:
        """How the test set fits: among others its number of "articles", and how many of them are "cut"."""
        return next(row for row in self.lengths if row["split"] == "test")

    @property
    def language(self) -> str:
        """The language in which all systems were scored."""
        return str(self.standard.details["scorer"]["language"])

    @property
    def many(self) -> bool:
        """Whether there are so many trainings that a reader wants their spread first."""
        return sum(len(variant.trainings) for variant in self.variants) > MANY

    @property
    def has_facts(self) -> bool:
        return FACT_RECALL in self.standard.quality

    @property
    def primary(self) -> str:
        """The measure that decides."""
        return FACT_RECALL if self.has_facts else ROUGE[0]

    def kernels_of(self, variant: Variant) -> list[Variant]:
        """The variants that compute what `variant` does, itself included: kernels of one function."""
        return [other for other in self.variants if other.computes_as(variant)]


def read_results(params: Params, whole: bool = True) -> Results:
    """Read the results in the current directory, for the variants that `params.compared` lists.

    Args:
        whole: whether to read articles, summaries and the tallies of input files, too.

    Raises:
        DataError: a stage has not run, or files are from different runs; names a file and the command.
    """
    variants = [_variant(name, params.variants[name], params.seeds, whole) for name in params.compared]
    baselines = {name: System(label, _json(metrics(name, QUALITY)), _json(details(name, QUALITY)))
                 for name, label in NAMES.items()}
    _check_one_run(params, variants, baselines)
    results = Results(params, variants, list(baselines.values()), _json(MACHINE), _json(LENGTHS))
    if not whole:
        return results
    bundled = params.chosen.data.source == "newswire"
    return replace(results, articles=list(islice(read_jsonl(SUBSET / "test.jsonl"), SHOWN_ARTICLES)),
                   inputs=[] if bundled else _json(ARTICLES)["inputs"])


def check_headline(params: Params) -> None:
    """Check that the report was made from this run.

    Raises:
        DataError: it was not.
    """
    headline = _json(HEADLINE)
    for key, wanted in (("preset", params.preset), ("seeds", len(params.seeds))):
        if headline.get(key) != wanted:
            raise DataError(f"{HEADLINE} is of {key} {headline.get(key)}, but params.yaml has {wanted}; `dvc repro` "
                            "makes it again")


def _variant(name: str, spec: AttentionSpec, seeds: Iterable[int], whole: bool) -> Variant:
    runs = [Run(name, seed) for seed in seeds]
    trainings = [Training(run.seed, _scores(run.quality), _curve(run.curve), _json(run.trained_on))
                 for run in runs]
    summaries = {row["id"]: row["summary"] for row in read_predictions(runs[0].predictions)} if whole else {}
    return Variant(name, _json(metrics(name, QUALITY)), _json(details(name, QUALITY)), spec, trainings,
                   _json(metrics(name, EFFICIENCY)), _json(details(name, EFFICIENCY)), summaries,
                   read_table(BACKENDS / f"{name}.json"))


def _check_one_run(params: Params, variants: Sequence[Variant], baselines: Mapping[str, System]) -> None:
    """Refuse to compare numbers from different presets, articles or seeds."""
    files = {details(name, QUALITY): baseline.details for name, baseline in baselines.items()}
    for variant in variants:
        if variant.quality["seeds"] != len(params.seeds):
            raise _mixture(metrics(variant.name, QUALITY), f"{variant.quality['seeds']} seeds", len(params.seeds))
        files |= {details(variant.name, QUALITY): variant.details, details(variant.name, EFFICIENCY): variant.profile,
                  **{Run(variant.name, training.seed).quality: training.details for training in variant.trainings}}
    wanted = {"preset": params.preset, "data": variants[0].details["run"]["data"]}
    for file, content in files.items():
        for key, value in wanted.items():
            if (found := content["run"][key]) != value:
                raise _mixture(file, f"{key} {found}", value)


def _mixture(file: Path, found: str, wanted: Any) -> DataError:
    return DataError(f"{file} is of {found}, where the rest of this run has {wanted}: results of two runs do not "
                     "compare; `dvc repro` makes them of one")


def _scores(path: Path) -> dict[str, Any]:
    """See `Training`; what nothing here reads would take most of the memory if there are many trainings."""
    details: dict[str, Any] = _json(path)
    for part in (details, *details["further"].values()):
        part.pop("by_fact", None)
    for part in details["further"].values():
        del part["articles"]
    details["articles"] = {name: np.asarray(column) for name, column in details["articles"].items() if name != "id"}
    return details


def _curve(path: Path) -> list[dict[str, float]]:
    """The rows of a training curve, without values that a step does not have."""
    with _existing(path).open(encoding="utf-8", newline="") as lines:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]


def _json(path: Path) -> Any:
    return json.loads(_existing(path).read_text(encoding="utf-8"))


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path} is missing; `dvc repro` makes it")
    return path
