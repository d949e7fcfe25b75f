"""What `h2h init` does, in order, and what it says."""

from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from headtohead.init import deciding
from headtohead.init.deciding import Device, Lengths, Sections, Start
from headtohead.init.looking import Found, look
from headtohead.init.writing import write_preset
from headtohead.inputs import pretrained_source
from headtohead.models.pretrained import check_pretrained
from headtohead.params import ENGLISH, PATH, Params, ParamsError, Preset, as_option, read_params, seeds_from
from headtohead.progress import Bar
from headtohead.records import DataError
from headtohead.words import words

if TYPE_CHECKING:
    from headtohead.init.fitting import Cost, Plan

GPT2 = "openai-community/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e"  # as in the preset `paper`


def init(source: str, name: str, force: bool, minutes: float, article: str | None, summary: str | None,
         encoding: str | None, config: str | None, pretrained: str | None, end_of_text: str | None) -> None:
    """See `h2h init --help`.

    Raises:
        DataError: the articles or the pretrained model cannot be used.
        ParamsError: params.yaml cannot, or has the preset already.
    """
    params = read_params()
    _check_name(params, name, force)
    if pretrained is not None:
        check_pretrained(pretrained)
    with Bar("reading articles", total=None) as bar:
        found = look(source, article, summary, encoding, config, params.seed, bar.advance)
    say(f"{source}: {found.tallies[0].read_as}", *_rows(found),
        f"articles are in {found.columns.article!r} and summaries in {found.columns.summary!r}: {found.columns.why}")

    decided = _decide(source, found, params, minutes, pretrained, end_of_text)
    write_preset(PATH, name, decided.preset,
                 f"Written by `h2h init {source}` for {decided.plan.minutes:,.0f} minutes on {decided.device.name}")
    say(f"Preset {name}, written to {PATH}", *_preset(decided, params, minutes))
    say("What the run can tell", *_can_tell(decided, params, minutes))
    say("Go on with", *_next(name, decided, params))


@dataclass(frozen=True)
class Decided:
    """The preset, and what it was made from."""

    start: Start
    why: str
    device: Device
    counts: dict[str, int]
    lengths: Lengths
    language: str
    cost: "Cost"
    plan: "Plan"
    preset: Sections


def _check_name(params: Params, name: str, force: bool) -> None:
    if name in params.presets and not force:
        raise ParamsError(f"{PATH} has a preset {name} already; --force replaces it, and --name gives the new one "
                          "another name")


def _decide(source: str, found: Found, params: Params, minutes: float, pretrained: str | None,
            end_of_text: str | None) -> Decided:
    from headtohead.init import fitting, measuring  # they import torch, for seconds: no mistake before waits for it

    device = measuring.device()
    start, model, why = _start(found, device, pretrained)
    counts = deciding.splits(found.counts, start, source)
    tokenizer, lengths, shape = measuring.tokens(found.sample, start, model, end_of_text)
    whole = deciding.draft(found.data, start, model, end_of_text, counts, lengths, shape, device)
    with Bar("timing training steps and summaries", total=None):
        cost = measuring.measure(params, Preset.model_validate(whole), tokenizer, found.sample)
    variants = [params.variants[name] for name in params.compared]
    plan = fitting.fitted(Preset.model_validate(whole), cost, minutes, variants, device,
                          deciding.ENOUGH_SEEDS if start == "small" else deciding.MOST_SEEDS)
    return Decided(start, why, device, counts, lengths, measuring.language(found.sample), cost, plan,
                   fitting.within(whole, plan))


def say(title: str, *lines: str) -> None:
    print(title, *(fill(line, 100, initial_indent="  ", subsequent_indent="    ", break_long_words=False,
                        break_on_hyphens=False) for line in lines), "", sep="\n", flush=True)


def _start(found: Found, device: Device, pretrained: str | None) -> tuple[Start, str | None, str]:
    """What trainings begin with: which kind of model, the pretrained one's name, and why."""
    if pretrained is not None:
        return "pretrained", pretrained, "as you say"
    there = found.counts.get("all", found.counts.get("train", 0))
    count = there * float(np.mean([len(words(row["article"])) for row in found.sample] or [0]))
    enough = count >= deciding.LANGUAGE
    if enough and device.gpu:
        return "scratch", None, f"about {_about(count)} words are enough to learn a language from"
    why = ("without a GPU it would take days to learn a language" if enough else
           f"about {_about(count)} words are too few to learn a language from, which takes {_about(deciding.LANGUAGE)}")
    try:
        pretrained_source(GPT2)
    except DataError:
        return "small", None, f"{why}, and the hub does not give a pretrained one"
    return "pretrained", GPT2, why


def _preset(decided: Decided, params: Params, minutes: float) -> list[str]:
    """What the preset is, a line for each part."""
    preset, plan = decided.preset, decided.plan
    return [f"model: {_model(preset)}; {decided.why}", f"splits: {_listed(decided.counts)}",
            f"lengths: {_lengths(preset, decided.lengths)}", f"training: {_training(preset, plan)}",
            f"profile: {_measured(preset)}", f"time: {_time(decided, params, minutes)}"]


def _next(name: str, decided: Decided, params: Params) -> list[str]:
    seeds = seeds_from(params.seeds, decided.plan.seeds)
    override = "" if seeds == params.seeds else f" {as_option('seeds', seeds)}"
    return [f'git commit -m "Preset {name}" {PATH}', f"dvc exp run -S preset={name}{override}", "h2h show",
            "h2h choose"]


def _rows(found: Found) -> list[str]:
    """How many rows there are, and how many of them can be used."""
    rows = []
    for tally in found.tallies:
        dropped = "".join(f", {count:,} {reason}" for reason, count in tally.dropped.items())
        rows.append(f"{tally.name}: {tally.rows:,} rows read, {tally.kept:,} usable{dropped}")
    return rows


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {split}" for split, count in counts.items())


def _model(preset: Sections) -> str:
    model = preset["model"]
    if model["pretrained"]:
        return f"{model['pretrained']}, pretrained"
    return f"a new GPT-2 of {model['layers']} layers, {model['width']} wide"


def _lengths(preset: Sections, found: Lengths) -> str:
    length, new = preset["tokenizer"]["max_length"], preset["generate"]["max_new_tokens"]
    cut = float((found.articles > length - found.separator - new).mean())
    too_long = float((found.summaries + 1 > new).mean())
    return (f"{length:,} tokens, of which {new:,} for the summary; {_share(cut)} of the articles are cut, "
            f"{_share(too_long)} of the summaries do not fit")


def _training(preset: Sections, plan: "Plan") -> str:
    train = preset["train"]
    cut = "" if plan.finished else f", of {plan.end:,} that it takes"
    return (f"{plan.steps:,} steps{cut}, of {train['batch_size'] * train['accumulation']} articles each; "
            f"{_seeds(plan.seeds)}")


def _measured(preset: Sections) -> str:
    """At which sizes."""
    profile, own = preset["profile"], preset["tokenizer"]["max_length"]
    lengths, batches = (", ".join(f"{size:,}" for size in profile[key]) for key in ("lengths", "batch_sizes"))
    if profile["grid"]:
        return f"a forward pass and generation, at {lengths} tokens in batches of {batches}"
    return (f"a forward pass at {lengths} tokens, and in batches of {batches}; generation at {own:,} tokens alone: the "
            "time does not allow a grid")


def _time(decided: Decided, params: Params, minutes: float) -> str:
    plan, cost = decided.plan, decided.cost
    over = f", and no less than that suffices for {minutes:,.0f}" if plan.minutes > 1.05 * minutes else ""
    return (f"about {plan.minutes:,.0f} min{over}, on {decided.device.name}: {plan.training / 60:,.0f} for "
            f"{len(params.compared) * plan.seeds} trainings and their summaries, {plan.timing / 60:,.0f} for timing "
            f"the {len(params.compared)} variants, {plan.rest / 60:,.0f} for the rest. Measured just now with "
            f"standard: {cost.step:.2g} s a step, {cost.summary:.2g} s a summary")


def _can_tell(decided: Decided, params: Params, minutes: float) -> list[str]:
    said, plan = ["what each variant costs at your lengths: time and memory, with intervals"], decided.plan
    enough = f"{plan.enough / 60:,.0f}"
    more = f"three seeds trained to the end take about {enough} min (--minutes {enough})"
    if decided.start == "small":
        return [*said, "nothing about quality: a model this small, from so little, writes no summaries worth reading. "
                "For a decision name a pretrained GPT-2 with --pretrained: a local folder, or the hub's NAME"]
    if not plan.finished:
        said.append(f"nothing about quality: in {minutes:,.0f} min trainings are cut off; {more}")
    elif plan.seeds == 1:
        said.append(f"nothing about quality: one seed supports no claim; {more}")
    else:
        functions, articles = _functions(params), decided.counts["test"]
        smallest = deciding.smallest_difference(plan.seeds, articles, functions)
        said.append(f"differences of {smallest:.3f} ROUGE-1 and more, each found in four of five runs, from "
                    f"{_seeds(plan.seeds)} and {articles:,} test articles, {functions} functions compared with full "
                    f"attention; this assumes that seeds differ by {deciding.LUCK} (sd) and articles by "
                    f"{deciding.OWN}, as on the preset news")
        if plan.seeds < deciding.ENOUGH_SEEDS:
            said.append(more)
    if decided.start == "pretrained" and decided.language != ENGLISH:
        said.append(f"the articles seem to be in {decided.language!r}, which a GPT-2 pretrained on English writes "
                    "poorly: name one in that language with --pretrained")
    return said


def _functions(params: Params) -> int:
    """How many functions are compared with that of standard."""
    functions = [params.variants[name].function for name in params.compared]
    return sum(function not in functions[:place] for place, function in enumerate(functions)) - 1


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"


def _about(count: float) -> str:
    """A number as people say it: 430,000 or 5.1 million."""
    return f"{count / 1e6:.1f} million" if count >= 1e6 else f"{round(count, -4):,.0f}" if count >= 1e5 else (
        f"{round(count, -3):,.0f}")
