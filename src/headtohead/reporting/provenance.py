"""Where the numbers come from: conditions, backends, machine, settings, scorers, and where the time goes."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from headtohead.reporting.results import Results, Variant
from headtohead.reporting.tables import NOTHING, Table, bracketed, short

TOP_OPERATIONS = 6
WORKS = ("forward", "first_token", "generate", "lookup_pass", "attention", "train_step")


def backends(results: Results) -> Table:
    """What computed each variant's attention: in a forward pass, when generating, its summaries, in training."""
    rows = [[variant.name, _flow(variant.spec.model_dump()), variant.profile["backend"], _backend(variant, "generate"),
             variant.details.get("written_by", NOTHING), _backend(variant, "train_step"),
             *(str(variant.profile[key]) for key in ("device", "dtype", "threads"))]
            for variant in results.variants]
    return Table(["variant", "attention", "forward", "generation", "its summaries", "training", "device", "dtype",
                  "threads"], rows, words=8)


def _backend(variant: Variant, work: str) -> str:
    return next((timing["backend"] for timing in variant.timings(work)), NOTHING)


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


def attention_shares(results: Results) -> Table:
    """Attention's share of a forward pass by length: all layers' attention alone over the whole pass."""
    shares = {variant.name: {row["length"]: row["share"] for row in variant.profile["attention_share"]}
              for variant in results.variants}
    lengths = sorted({length for own in shares.values() for length in own})
    return Table(["variant", *(f"{length:,} tokens" for length in lengths)],
                 [[name, *(f"{own[length]:.0%}" if length in own else NOTHING for length in lengths)]
                  for name, own in shares.items()])


def roofline(results: Results) -> Table:
    """Achieved throughput of each variant, and its share of the device's measured peaks."""
    header = ["variant", "work", "batch", "tokens in", "TFLOP/s", "of the peak", "GB/s", "of the peak"]
    rows = [[variant.name, timing["work"].replace("_", " "), str(timing["batch"]), f"{timing['length']:,}",
             short(timing["tflops"]), f"{timing['tflops_share']:.1%}",
             short(timing["gb_per_s"]), f"{timing['gb_per_s_share']:.1%}"]
            for variant in results.variants for timing in _shown_timings(variant, results.length)]
    return Table(header, rows, words=2)


def _shown_timings(variant: Variant, length: int) -> Iterator[dict[str, Any]]:
    """Forward and attention at the preset's own length and at the longest; generation; the largest training step."""
    for work in ("forward", "attention"):
        single = {timing["length"]: timing for timing in variant.timings(work) if timing["batch"] == 1}
        yield from (single[at] for at in sorted({length, max(single, default=length)} & single.keys()))
    yield from variant.timings("generate")[:1]  # the headline's
    yield from sorted(variant.timings("train_step"), key=lambda timing: int(timing["batch"]))[-1:]


def counters(results: Results) -> Table:
    """NVIDIA's counters while each variant generated; units are in the names."""
    names = [name for name in results.standard.profile["nvml"] if name not in ("work", "runs")]
    rows = [[name, *(short(variant.profile["nvml"][name]) for variant in results.variants)] for name in names]
    return Table(["counter", *(variant.name for variant in results.variants)], rows)


def machine(results: Results) -> Table:
    """Hardware, driver and versions, as `fingerprint` found them."""
    return _pairs(results.machine)


def settings(results: Results) -> Table:
    """The seeds, the margins and the preset's values, as params.yaml has them."""
    preset = results.params.chosen.model_dump(exclude_none=True)
    return _pairs({"preset": results.params.preset, "seed": results.params.seed, "seeds": results.params.seeds,
                   "margins": _flow(results.params.margins.model_dump()),
                   **{section: _flow(values) for section, values in preset.items()}})


def inputs(results: Results) -> Table:
    """What happened to the rows of each input file."""
    return _counts(results.inputs, words=2)


def lengths(results: Results) -> Table:
    """How each split fits: longest texts in tokens, articles that are cut, summaries that are too long."""
    return _counts(results.lengths, words=1)


def _counts(rows: list[dict[str, Any]], words: int) -> Table:
    cells = [[f"{value:,}" if isinstance(value, int) else value for value in row.values()] for row in rows]
    return Table(list(rows[0]), cells, words)


def scorer(results: Results) -> Table:
    """How summaries were scored."""
    return _pairs(results.standard.details["scorer"])


def data(results: Results) -> str:
    """The run's data: "newswire, 8,000 articles to train and 1,000 to test"."""
    counts = {row["split"]: row["articles"] for row in results.lengths}
    source = results.params.chosen.data
    return f"{source.path or (source.hub and source.hub.name) or source.source}, {counts['train']:,} articles to " \
           f"train and {counts['test']:,} to test"


def cut(results: Results) -> str:
    """"7 of 60 (12 %), to at most 127 tokens": how many test articles were too long, and what was shown of them."""
    test, preset = results.test, results.params.chosen
    if not test["cut"]:
        return "none was cut"
    room = preset.tokenizer.max_length - preset.generate.max_new_tokens - 1  # the separator is a token or more
    return f"{test['cut']:,} ({test['cut'] / test['articles']:.0%}".replace("%", " %") + \
           f") were cut, to at most {room:,} tokens"


def timed(results: Results, work: str) -> str:
    """The size at which a headline figure is timed: "batch 1, 256 tokens in, 32 out"."""
    profile, length = results.params.chosen.profile, results.length
    if work == "train_step":
        return f"batch {max(profile.train_batch_sizes)}, {length} tokens in{_on_one_device(results)}"
    if work == "forward":
        return f"batch 1, {length} tokens in"
    out = profile.new_tokens if work == "generate" else 1
    return f"batch 1, {length - profile.new_tokens} tokens in, {out} out"


def _on_one_device(results: Results) -> str:
    """Unless training uses one, too."""
    train = results.params.chosen.train
    if train.devices == 1:
        return ""
    return f", on one device, where training shares each batch of {train.batch_size} among {train.devices}"


def training_steps(results: Results) -> Table:
    """The median of a training step by batch size, in ms."""
    batches = results.params.chosen.profile.train_batch_sizes
    medians = {variant.name: {timing["batch"]: short(timing["median"]) for timing in variant.timings("train_step")}
               for variant in results.variants}
    return Table(["variant", *(f"batch {batch}" for batch in batches)],
                 [[name, *(own.get(batch, NOTHING) for batch in batches)] for name, own in medians.items()])


def times(results: Results) -> Table:
    """Every timing: median and range, in ms."""
    rows = [[variant.name, timing["work"].replace("_", " "), str(timing["batch"]), str(timing["length"]),
             str(timing["new_tokens"]), _with_range(timing), str(timing["repeats"]), timing.get("backend", NOTHING)]
            for variant in results.variants for work in WORKS for timing in variant.timings(work)]
    header = ["variant", "work", "batch", "tokens in", "tokens out", "ms (p10 to p90)", "repeats", "attention by"]
    return Table(header, rows, words=2)


def _with_range(timing: dict[str, Any]) -> str:
    return bracketed(short(timing["median"]), short(timing["p10"]), short(timing["p90"]))


def _flow(values: Mapping[str, Any]) -> str:
    """A mapping as one line of YAML."""
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
