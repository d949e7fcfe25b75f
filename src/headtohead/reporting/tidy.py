"""The last run as one tidy table."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from headtohead.params import read_params
from headtohead.paths import BASELINES
from headtohead.quality.measures import LOSS
from headtohead.reporting.results import Results, Variant, read_results

COLUMNS = {"variant": "string", "measure": "string", "value": "float64", "low": "float64", "high": "float64",
           "unit": "string", "seed": "Int64", "set": "string", "batch": "Int64", "length": "Int64",
           "new_tokens": "Int64", "pair": "Int64", "standard": "float64", "dtype": "string", "backend": "string"}
Row = dict[str, Any]


def results() -> pd.DataFrame:
    """The last run of the repository in the current directory, one row a measurement.

    Columns, empty where they have no meaning:
        variant: its name; `lead3` and `untrained` are the reference rows.
        measure: of quality `rouge1`, `fact_recall`, `loss`, ...; of time `forward`, `generate`, `first_token`,
            `train_step`, `attention`; of memory the same with `_memory`, and `peak_memory`.
        value: the measurement; missing if memory did not suffice.
        low, high: of quality the 95 % interval over articles; of a time its 10th and 90th percentile.
        unit: `share` (0 to 1), `nats` (a token), `ms` or `MB`.
        seed: of the training.
        set: the test set, `test` or a further one.
        batch, length, new_tokens: the size of the work, in sequences and tokens.
        pair: of fresh processes, counted from 1; `standard` is what standard took in the same pair.
        dtype, backend: the precision, and what ran the attention.

    Raises:
        DataError: a stage has not run, or files are from different runs.
    """
    return pd.DataFrame(_rows(read_results(read_params(), whole=False)), columns=list(COLUMNS)).astype(COLUMNS)


def _rows(run: Results) -> Iterator[Row]:
    for variant in run.variants:
        for training in variant.trainings:
            yield from _quality(variant.name, training.details, {"seed": training.seed})
        yield from _cost(variant)
    for name, baseline in zip(BASELINES, run.baselines, strict=True):
        yield from _quality(name, baseline.details, {})


def _quality(name: str, details: dict[str, Any], of: Row) -> Iterator[Row]:
    """The measures that have an interval, on the test set and on the further ones."""
    for test_set, scores in {"test": details, **details.get("further", {})}.items():
        for measure in (key.removesuffix("_low") for key in scores if key.endswith("_low")):
            yield {"variant": name, "set": test_set, "measure": measure, "value": scores[measure],
                   "low": scores[f"{measure}_low"], "high": scores[f"{measure}_high"],
                   "unit": "nats" if measure == LOSS else "share", **of}


def _cost(variant: Variant) -> Iterator[Row]:
    """Every timing, every reading of memory, and every pair of processes."""
    profile = variant.profile
    for timing in profile["timings"]:
        yield _work(variant, timing) | {"measure": timing["work"], "value": timing.get("median"), "unit": "ms",
                                        "low": timing.get("p10"), "high": timing.get("p90")}
    for reading in profile["memory"]:
        yield _work(variant, reading) | {"measure": f"{reading['work']}_memory", "value": reading.get("peak_mb"),
                                         "unit": "MB"}
    for work, pairs in profile["pairs"].items():
        memory = work == "memory"
        for number, (ours, standard) in enumerate(pairs or [], 1):
            yield {"variant": variant.name, "measure": "peak_memory" if memory else work, "value": ours, "pair": number,
                   "standard": standard, "unit": "MB" if memory else "ms", "dtype": profile["dtype"]}


def _work(variant: Variant, row: Row) -> Row:
    return {"variant": variant.name, "dtype": variant.profile["dtype"],
            **{key: row[key] for key in ("batch", "length", "new_tokens", "dtype", "backend") if key in row}}
