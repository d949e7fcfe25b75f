"""Where the numbers come from: backends, machine, settings, scorers, and where the time goes."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from headtohead.reporting.results import Results, Variant
from headtohead.reporting.tables import NOTHING, Table, short

TOP_OPERATIONS = 6


def backends(results: Results) -> Table:
    """What ran each variant."""
    rows = [[variant.name, _flow(variant.spec.model_dump()),
             *(str(variant.profile[key]) for key in ("backend", "device", "dtype", "threads"))]
            for variant in results.variants]
    return Table(["variant", "attention", "backend", "device", "dtype", "threads"], rows, words=5)


def operations(results: Results) -> Table:
    """Each variant's share of time of the operations that any variant spends the most on, the largest first."""
    shares = {variant.name: {operation["name"]: operation["share"] for operation in variant.profile["operations"]}
              for variant in results.variants}
    largest: dict[str, float] = {}
    for own in shares.values():
        for name in sorted(own, key=lambda name: -own[name])[:TOP_OPERATIONS]:
            largest[name] = max(own[name], largest.get(name, 0.0))
    rows = [[name, *(f"{own[name]:.0%}" if name in own else NOTHING for own in shares.values())]
            for name in sorted(largest, key=lambda name: -largest[name])]
    return Table(["operation", *shares], rows)


def counters(results: Results) -> Table:
    """What NVIDIA's counters said while each variant generated; units are in the names."""
    names = [name for name in results.standard.profile["nvml"] if name not in ("work", "runs")]
    rows = [[name, *(short(variant.profile["nvml"][name]) for variant in results.variants)] for name in names]
    return Table(["counter", *(variant.name for variant in results.variants)], rows)


def machine(results: Results) -> Table:
    """Hardware, driver and versions, as `fingerprint` found them."""
    return _pairs(results.machine)


def settings(results: Results) -> Table:
    """The seed and the preset's values, as params.yaml has them."""
    preset = results.params.chosen.model_dump(exclude_none=True)
    return _pairs({"preset": results.params.preset, "seed": results.params.seed,
                   **{section: _flow(values) for section, values in preset.items()}})


def inputs(results: Results) -> Table:
    """What became of the rows of each file that articles were read from."""
    rows = [[f"{value:,}" if isinstance(value, int) else value for value in row.values()] for row in results.inputs]
    return Table(list(results.inputs[0]), rows, words=2)


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


def _flow(values: Mapping[str, Any]) -> str:
    """As YAML writes a mapping on one line."""
    text = yaml.safe_dump(dict(values), default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.strip()[1:-1]  # without the braces


def _pairs(values: Mapping[str, Any]) -> Table:
    return Table(["", "value"], list(_flat(values)), words=2)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[list[str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield [f"{prefix}{key}", value if isinstance(value, str) else
                   NOTHING if value is None else json.dumps(value, ensure_ascii=False)]
