"""Where the numbers come from: backends, machine, settings, scorers, and where the time goes."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from headtohead.reporting.results import Results, Variant
from headtohead.reporting.tables import NOTHING, Table, short

TOP_OPERATIONS = 6


def backends(results: Results) -> Table:
    """What ran each variant."""
    rows = [[variant.name, json.dumps(variant.spec.model_dump(), separators=(", ", ": ")).replace('"', "").strip("{}"),
             *(str(variant.profile[key]) for key in ("backend", "device", "dtype", "threads"))]
            for variant in results.variants]
    return Table(["variant", "attention", "backend", "device", "dtype", "threads"], rows, words=5)


def operations(results: Results) -> Table:
    """The operations that took the most time of their own, by variant."""
    rows = [[str(rank + 1), *(_operation(variant, rank) for variant in results.variants)]
            for rank in range(TOP_OPERATIONS)]
    return Table(["", *(variant.name for variant in results.variants)], rows, words=len(results.variants) + 1)


def counters(results: Results) -> Table:
    """What NVIDIA's counters said while each variant generated; units are in the names."""
    names = [name for name in results.standard.profile["nvml"] if name not in ("work", "runs")]
    rows = [[name, *(short(variant.profile["nvml"][name]) for variant in results.variants)] for name in names]
    return Table(["counter", *(variant.name for variant in results.variants)], rows)


def machine(results: Results) -> Table:
    """Hardware, driver and versions, as `fingerprint` found them."""
    return _pairs(results.machine)


def settings(results: Results) -> Table:
    """The seed and the preset's values."""
    return _pairs({"preset": results.params.preset, "seed": results.params.seed,
                   **results.params.chosen.model_dump(exclude_none=True)})


def scorer(results: Results) -> Table:
    """How summaries were scored."""
    return _pairs(results.standard.details["scorer"])


def timed(variant: Variant, work: str) -> str:
    """Under what conditions `work` was timed: "cpu, float32, batch 1, 256 tokens in, 32 out"."""
    if not variant.timings(work):
        return "it did not fit in memory"
    timing = variant.timing(work)
    out = f", {timing['new_tokens']} out" if timing["new_tokens"] else ""
    return f"{variant.profile['device']}, {timing['dtype']}, batch {timing['batch']}, {timing['length']} tokens in{out}"


def _operation(variant: Variant, rank: int) -> str:
    if rank >= len(variant.profile["operations"]):
        return NOTHING
    operation = variant.profile["operations"][rank]
    return f"{operation['name']}, {operation['share']:.0%}, {operation['self_ms']:.3g} ms, {operation['calls']} calls"


def _pairs(values: Mapping[str, Any]) -> Table:
    return Table(["", "value"], list(_flat(values)), words=2)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[list[str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield [f"{prefix}{key}", value if isinstance(value, str) else
                   NOTHING if value is None else json.dumps(value, ensure_ascii=False)]
