"""`h2h choose`: the rule of `choosing`, asked about the last run or a published one, and its answer in words."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from headtohead.choosing.grid import Cost, Grid, NotMeasuredError, Size
from headtohead.choosing.rule import Choice, Judged, Option, Situation, choose
from headtohead.params import Margins, Params, as_option, seeds_from
from headtohead.records import DataError
from headtohead.reporting import machines
from headtohead.reporting.claims import CONTROL, ENOUGH_SEEDS, judge, margin_of, next_seeds, what_would_tell
from headtohead.reporting.publish import record
from headtohead.reporting.report import print_table
from headtohead.reporting.results import check_headline, read_results
from headtohead.reporting.tables import LABELS, NOTHING, Table, joined, short, signed, times

Work = Literal["generate", "forward"]
WORKS: Mapping[Work, str] = {"generate": "generation", "forward": "a forward pass"}
NEEDED = {"primary": "the primary measure", "margins": "the margins", "barred": "of which variants nothing is claimed",
          "sweeps": "time and memory by size"}


@dataclass(frozen=True)
class Question:
    """What is asked; None stands for the run's own value or no limit.

    Args:
        length: tokens of a sequence, in and out; None is the preset's `tokenizer.max_length`.
        memory, latency: limits in MB (2**20 bytes) and ms.
        max_loss: of the primary measure; None is its margin.
    """

    work: Work = "generate"
    length: int | None = None
    batch: int = 1
    memory: float | None = None
    latency: float | None = None
    max_loss: float | None = None


@dataclass(frozen=True)
class Answer:
    """A choice, the situation it is made for, and the record of the run that it is made from."""

    found: Mapping[str, Any]
    work: Work
    situation: Situation
    choice: Choice

    @property
    def own_size(self) -> bool:
        """Whether the situation is the size of the headline figures, which pairs of processes measured."""
        return (self.situation.batch, self.situation.length) == (1, own_length(self.found))


def of_last_run(params: Params) -> dict[str, Any]:
    """The record of the last run, as `publish` would write it.

    Raises:
        DataError: a stage has not run, files are from different runs, or times from different machines.
    """
    check_headline(params)
    results = read_results(params, whole=False)
    if len(found := machines.timed(results.variants)) > 1:
        stages = " ".join(f"profile@{variant.name}" for variant in results.variants)
        raise DataError(f"times were taken on different machines, {machines.in_words(found)}, and a choice compares "
                        f"them; take them anew on one: dvc repro --force -s {stages}, then dvc repro")
    return record(judge(results), {})


def of_file(path: Path) -> dict[str, Any]:
    """The record that `h2h publish` wrote.

    Raises:
        DataError: it cannot be read, is no such record, or lacks what a choice needs; the message names that.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: is not JSON: {error}") from error
    if not isinstance(found, dict) or not {"variants", "differences", "trainings", "settings"} <= found.keys():
        raise DataError(f"{path}: is no file of `h2h publish`")
    if missing := [words for key, words in NEEDED.items() if key not in found]:
        raise DataError(f"{path}: lacks {joined(missing)}, so nothing can be chosen from it; `h2h publish` writes them "
                        "now, from a run that has them")
    return found


def answer(found: Mapping[str, Any], question: Question) -> Answer:
    """Choose from a record.

    Raises:
        DataError: the size was not measured, and is not between measured ones; says how to measure it.
    """
    margins = found["margins"]
    situation = Situation(
        question.batch, question.length or own_length(found),
        _margin(found) if question.max_loss is None else question.max_loss,
        **{name: limit for name in ("memory", "latency") if (limit := getattr(question, name)) is not None})
    try:
        choice = choose(options(found, question.work), situation, margins["time"], margins["memory"])
    except NotMeasuredError as error:
        other = next(work for work in WORKS if work != question.work)
        raise DataError(f"{WORKS[question.work].capitalize()}: {error}.{_known(found, other, situation)}\n"
                        f"To measure it:\n{_to_measure(found, question.work, situation)}") from error
    return Answer(found, question.work, situation, choice)


def by_size(found: Mapping[str, Any], work: Work) -> dict[Size, str | None]:
    """The variant to take at each measured size, without limits and at the margin's loss; None if none is known to
    pass."""
    everyone, margins = options(found, work), found["margins"]
    taken = {}
    for batch, length in sorted({size for option in everyone for size in option.time.points}):
        ranked = choose(everyone, Situation(batch, length, _margin(found)), margins["time"], margins["memory"]).ranked
        taken[batch, length] = ranked[0].option.name if ranked else None
    return taken


def _margin(found: Mapping[str, Any]) -> float:
    """The smallest difference of interest in the primary measure."""
    return margin_of(found["primary"], Margins(**found["margins"]))


def own_length(found: Mapping[str, Any]) -> int:
    """The preset's length in tokens, at which the headline figures are measured."""
    return int(found["settings"]["tokenizer"]["max_length"])


def options(found: Mapping[str, Any], work: Work) -> list[Option]:
    """The variants of a record, with their cost of `work` by size."""
    control = _words(found, [name for name in found["variants"] if name not in _differences(found)])
    return [_option(found, work, name, control) for name in found["variants"]]


def _option(found: Mapping[str, Any], work: Work, name: str, control: float) -> Option:
    primary, sweep = found["primary"], found["sweeps"][name]
    difference = _differences(found).get(name)
    memory = _grid(sweep["memory"], work, "peak_mb")
    if work == "generate":  # the headline: the highest of a forward pass, generation and the first token
        memory[1, own_length(found)] = found["variants"][name]["peak_memory_mb"]
    ratio = found["ratios"][name].get(work)
    return Option(name, difference and (difference["difference"], difference["low"], difference["high"]),
                  _words(found, [name]) / control, found["barred"].get(name, ""),
                  found["variants"][name][primary] < found["lead3"][primary], sweep["length_limit"],
                  Grid(_grid(sweep["timings"], work, "median")), Grid(memory),
                  {(1, own_length(found)): ratio["value"]} if ratio else {})


def _differences(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return found["differences"][found["primary"]]


def _words(found: Mapping[str, Any], names: list[str]) -> float:
    """The mean length of these variants' summaries."""
    lengths = [one["summary_words"] for one in found["trainings"] if one["variant"] in names]
    return float(sum(lengths) / len(lengths))


def _grid(rows: list[dict[str, Any]], work: Work, value: str) -> dict[Size, float | None]:
    """One kind of number by size; a sequence's length counts what goes in and what is generated."""
    return {(row["batch"], row["length"] + row.get("new_tokens", 0)): row.get(value)
            for row in rows if row["work"] == work}


def answer_on_terminal(found: Mapping[str, Any], question: Question, as_json: bool) -> None:
    """Print the answer: sentences, a table, and commands; or JSON.

    Raises:
        DataError: see `answer`.
    """
    given = answer(found, question)
    if as_json:
        print(json.dumps(for_programs(given), indent=2))
        return
    print(*sentences(given), sep="\n")
    print_table(table(given), given.choice.ranked[0].option.name if given.choice.ranked else "")
    if given.own_size:
        print("\nVariants were timed minutes apart: compare their ratios rather than their ms.")
    if further := commands(given):
        print("\nTo learn what is not known:", *further, sep="\n")


# --- in words


def sentences(given: Answer) -> list[str]:
    """What to take, what came second, and how sure that is."""
    situation, ranked = given.situation, given.choice.ranked
    size = f"{WORKS[given.work]}, batch {situation.batch}, {situation.length:,} tokens"
    if given.work == "generate":
        size += f" ({given.found['settings']['profile']['new_tokens']} of them generated)"
    where = f"On {device(given.found)}, for {size}"
    if not ranked:
        return [f"{where}: take none; no variant is known to pass."]
    said = [f"{where}: take {ranked[0].option.name}, {_costs(ranked[0])}."]
    # Beside a ratio of pairs, its own milliseconds would mislead: they were taken minutes apart from the first one's.
    costs = f", {_costs(ranked[1])}" if ranked[1:] and not given.own_size else ""
    said.append(f"Second: {ranked[1].option.name}{costs}: {_behind(given, *ranked[:2])}." if ranked[1:]
                else "Second: none, no other variant is known to pass.")
    own = own_length(given.found)
    beyond = [f"Quality was measured with at most {own:,} tokens, and is not known beyond."] * (situation.length > own)
    return [*said, _sure(given, ranked[0]), *beyond]


def device(found: Mapping[str, Any]) -> str:
    """The first GPU's name, or the processor's."""
    machine = found["machine"]
    return str((machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores").split(", NVIDIA")[0])


def _costs(judged: Judged) -> str:
    costs = ((judged.time, "ms"), (judged.memory, "MB"))
    return joined([f"{short(cost.value)} {unit}" for cost, unit in costs if cost])


def _behind(given: Answer, first: Judged, second: Judged) -> str:
    """How the second differs from the first in what the rule goes by."""
    for name in ("time", "memory"):
        ratio = _over(given, name, first, second)
        if ratio and ratio > 1 + given.found["margins"][name]:
            return f"{ratio:.2f} times the {name}"
    return "level with it within the margins of time and memory"


def _over(given: Answer, name: str, first: Judged, second: Judged) -> float | None:
    """The second's time or memory over the first's; None if one of them is not known."""
    size = (given.situation.batch, given.situation.length)
    if name == "time" and all(size in one.option.ratios for one in given.choice.ranked):
        return second.option.ratios[size] / first.option.ratios[size]
    one, other = getattr(first, name), getattr(second, name)
    return other.value / one.value if one and other else None


def _sure(given: Answer, taken: Judged) -> str:
    """How the numbers of the variant to take are known."""
    assert taken.time is not None
    if ratio := _ratio(given, taken):
        return f"Measured at this size beside standard, in pairs of processes: {ratio} times standard's time."
    once = "Each variant was measured there once, in a process of its own: a description, not a claim."
    if len(taken.time.corners) == 1:
        return f"Measured at this size. {once}"
    corners = joined([f"batch {batch} with {length:,} tokens" for batch, length in taken.time.corners])
    return f"Interpolated between {corners}, on logarithmic axes. {once}"


def table(given: Answer) -> Table:
    """A row for each variant: its cost, its difference in quality, and why it is not taken."""
    label = LABELS[given.found["primary"]]
    rows = []
    for judged in (*given.choice.ranked, *given.choice.others):
        option = judged.option
        rows.append([option.name, _place(given, judged), "; ".join(_notes(given, judged)),
                     *(_cell(cost) for cost in (judged.time, judged.memory)), _ratio(given, judged) or NOTHING,
                     signed(*option.difference) if option.difference else CONTROL])
    return Table(["variant", "answer", "why", "ms", "MB", "time vs standard", f"{label} vs {CONTROL}"], rows, words=3)


def _ratio(given: Answer, judged: Judged) -> str:
    """Its time over standard's, from pairs of processes; empty at other sizes than theirs."""
    found = given.found["ratios"][judged.option.name].get(given.work) if given.own_size else None
    return times(found["value"], found["low"], found["high"], claimed=False) if found else ""


def _place(given: Answer, judged: Judged) -> str:
    if judged.passes:
        return ("take", "second", "passes")[min(2, given.choice.ranked.index(judged))]
    return "fails" if judged.fails else "not known"


def _cell(cost: Cost | None) -> str:
    return short(cost.value) if cost else NOTHING


def _notes(given: Answer, judged: Judged) -> Iterator[str]:
    """The objections; for one that passes, what its quality stands on; and limits within a margin of its cost."""
    yield from (objection.words for objection in judged.objections)
    needed = given.found.get("seeds_needed", {})
    if judged.open_at("quality") and judged.option.name in needed:
        yield what_would_tell(needed[judged.option.name], len(given.found["seeds"]))
    if judged.passes:
        yield f"loses less than {given.situation.max_loss:g}" if judged.option.difference else f"computes {CONTROL}"
    for name, cost, limit in (("memory", judged.memory, given.situation.memory),
                              ("time", judged.time, given.situation.latency)):
        margin = 1 + given.found["margins"][name]
        if cost and limit / margin < cost.value < limit * margin:
            yield f"{name} is within {100 * given.found['margins'][name]:g} % of the limit"


def commands(given: Answer) -> list[str]:
    """What to run to learn what is not known: of variants that fail nothing, and about longer articles."""
    unknown = [judged for judged in given.choice.others if not judged.fails]
    preset, length, found = given.found["preset"], given.situation.length, []
    if length > own_length(given.found):
        found.append(f"dvc exp run -S preset={preset} -S presets.{preset}.tokenizer.max_length={length}")
    if any(judged.open_at("quality") for judged in unknown):
        found += _more_training(given.found, unknown)
    if any(judged.open_at("latency") or judged.open_at("memory") for judged in unknown):
        found.append(_to_measure(given.found, given.work, given.situation))
    return found


def _more_training(found: Mapping[str, Any], unknown: list[Judged]) -> list[str]:
    """More steps for a training that was cut off; else as many seeds as `h2h show` names, which may be none, or twice
    as many as there are for a difference that only the question's own limit leaves open."""
    preset, seeds = found["preset"], found["seeds"]
    if any("falling" in objection.words for judged in unknown for objection in judged.objections):
        steps = 2 * found["settings"]["train"]["steps"]
        return [f"dvc exp run -S preset={preset} -S presets.{preset}.train.steps={steps}"]
    needed = found.get("seeds_needed", {})
    open_ones = [judged.option.name for judged in unknown if judged.open_at("quality")]
    known = all(name in needed for name in open_ones)
    more = next_seeds(map(needed.get, open_ones), len(seeds)) if known else max(ENOUGH_SEEDS, 2 * len(seeds))
    return [f"dvc exp run -S preset={preset} {as_option('seeds', seeds_from(seeds, more))}"] if more else []


def _to_measure(found: Mapping[str, Any], work: Work, situation: Situation) -> str:
    """The command that measures a size: longer lists, and a grid if it is on neither of the two sweeps."""
    preset, profile = found["preset"], found["settings"]["profile"]
    length = own_length(found)
    command = f"dvc exp run -S preset={preset}"
    for key, at, listed, own in (("lengths", situation.length, profile["lengths"], length),
                                 ("batch_sizes", situation.batch, profile["batch_sizes"], 1)):
        if not min(*listed, own) <= at <= max(*listed, own):
            command += " " + as_option(f"presets.{preset}.profile.{key}", sorted([*listed, at]))
    if work == "generate" or (situation.batch != 1 and situation.length != length):
        command += f" -S presets.{preset}.profile.grid=true"
    return command


def _known(found: Mapping[str, Any], work: Work, situation: Situation) -> str:
    """A hint at the other work, if that was measured at this size."""
    try:
        choose(options(found, work), situation, found["margins"]["time"], found["margins"]["memory"])
    except NotMeasuredError:
        return ""
    return f"\n{WORKS[work].capitalize()} was measured there: --work {work}"


def for_programs(given: Answer) -> dict[str, Any]:
    """The answer for programs: times in ms, memory in MB (2**20 bytes)."""
    situation = {key: value if isfinite(value) else None for key, value in asdict(given.situation).items()}
    names = [judged.option.name for judged in given.choice.ranked]
    return {"take": names[0] if names else None, "second": names[1] if names[1:] else None,
            "work": given.work, **situation, "measure": given.found["primary"], "device": device(given.found),
            "variants": [_judged(given, judged) for judged in (*given.choice.ranked, *given.choice.others)],
            "commands": commands(given)}


def _judged(given: Answer, judged: Judged) -> dict[str, Any]:
    difference = judged.option.difference
    return {"name": judged.option.name, "answer": _place(given, judged),
            **{name: cost and {"value": cost.value, "measured_at": [list(corner) for corner in cost.corners]}
               for name, cost in (("time_ms", judged.time), ("memory_mb", judged.memory))},
            "difference": difference and {key: value if isfinite(value) else None for key, value in
                                          zip(("difference", "low", "high"), difference, strict=True)},
            "objections": [asdict(objection) for objection in judged.objections]}
