"""What fits into the time: how long each stage of a run takes, reckoned from what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, floor

import torch

from headtohead.attention.spec import AttentionSpec
from headtohead.init.deciding import ENOUGH_SEEDS, Device, Sections
from headtohead.params import Preset, Profile
from headtohead.profiling.inference import lengths_of
from headtohead.profiling.passes import WARMUP, Passes
from headtohead.profiling.process import TURNS
from headtohead.profiling.training import TURNS as STEP_TURNS

# Seconds, measured on two cores of a CPU: what a stage takes besides its work, most of it DVC's; what a training takes
# to begin, and a sweep for peaks and operations; once, `dvc exp run` itself, importing libraries, reading, the report.
STAGE, BEGIN, OTHER, REST = 2.0, 1.5, 4.0, 30.0
PROCESS = {True: 15.0, False: 1.0}  # seconds that a timed process takes to begin, on a GPU and on a CPU


@dataclass(frozen=True)
class Cost:
    """Seconds on this device, with `standard`.

    Args:
        step, evaluated, saved: of a training: a step, an article's loss in validation, a checkpoint; as they are while
            as many trainings run as will.
        summary: one of a full batch, in the same way.
        forward, generation, lesson: as they are for a process by itself: a pass over `max_length` tokens, the same with
            a summary of all its tokens after it, and a training step.
        scored: the scores of a summary.
        at_once: how many trainings run side by side.
    """

    step: float
    evaluated: float
    saved: float
    summary: float
    forward: float
    generation: float
    lesson: float
    scored: float
    at_once: int


@dataclass(frozen=True)
class Plan:
    """What fits into the time.

    Args:
        steps: of each training; fewer than `end` if time does not suffice.
        seeds: how many.
        profile: fewer pairs than usual if the profiles would take more than a third of the time; a grid if that
            leaves steps and seeds enough.
        training, timing, rest: seconds of the trainings with their summaries, of the profiles, and of all else.
        enough: seconds in which three seeds train to the end.
    """

    steps: int
    end: int
    seeds: int
    profile: Profile
    training: float
    timing: float
    rest: float
    enough: float

    @property
    def finished(self) -> bool:
        return self.steps >= self.end

    @property
    def minutes(self) -> float:
        return (self.training + self.timing + self.rest) / 60


def fitted(preset: Preset, cost: Cost, minutes: float, variants: Sequence[AttentionSpec], device: Device,
           most_seeds: int) -> Plan:
    """How many steps and seeds the time allows: all steps that a training needs come first, then seeds, then a grid.

    Args:
        variants: those that are trained.
    """
    usual = preset.profile
    for pairs, sizes in ((usual.pairs, usual.train_batch_sizes), (usual.pairs // 2, usual.train_batch_sizes),
                         (2, usual.train_batch_sizes), (2, usual.train_batch_sizes[:1]), (2, [1])):
        profile = usual.model_copy(update={"pairs": pairs, "train_batch_sizes": sizes})
        plan = _planned(preset, profile, cost, minutes, variants, device, most_seeds)
        if plan.timing < minutes * 60 / 3:
            break
    grid = _planned(preset, plan.profile.model_copy(update={"grid": True}), cost, minutes, variants, device, most_seeds)
    room = grid.timing < minutes * 60 / 3 and grid.minutes <= minutes
    return grid if room and (grid.steps, grid.seeds) >= (plan.steps, min(plan.seeds, ENOUGH_SEEDS)) else plan


def _planned(preset: Preset, profile: Profile, cost: Cost, minutes: float, variants: Sequence[AttentionSpec],
             device: Device, most_seeds: int) -> Plan:
    end, count = preset.train.steps, len(variants)
    timing = sum(_profile(preset, profile, cost, variant, device) for variant in variants)
    left = minutes * 60 - timing

    def but_timing(steps: int, seeds: int) -> float:
        return _training(preset, cost, count, steps, seeds) + _rest(preset, cost, count, seeds)

    steps, seeds = end, max((some for some in range(1, most_seeds + 1) if but_timing(end, some) <= left), default=0)
    if not seeds:
        seeds, at_a_time = 1, ceil(count / cost.at_once) * cost.step
        steps = min(end, max(preset.train.evaluations, floor((left - but_timing(0, 1)) / at_a_time)))
    return Plan(steps, end, seeds, profile, _training(preset, cost, count, steps, seeds), timing,
                _rest(preset, cost, count, seeds), but_timing(end, ENOUGH_SEEDS) + timing)


def _training(preset: Preset, cost: Cost, variants: int, steps: int, seeds: int) -> float:
    """Seconds of all trainings, and of their summaries with the loss on the references."""
    train, data = preset.train, preset.data
    evaluations = train.evaluations * (data.validation * cost.evaluated + cost.saved)
    trainings = ceil(variants * seeds / cost.at_once) * (BEGIN + steps * cost.step + evaluations)
    return trainings + variants * ceil(seeds / cost.at_once) * _summaries(preset, cost)


def _summaries(preset: Preset, cost: Cost) -> float:
    return preset.data.test * (cost.summary + cost.evaluated)


def _rest(preset: Preset, cost: Cost, variants: int, seeds: int) -> float:
    """Seconds of all stages but the trainings', of what the untrained model writes, and of the scores."""
    stages = variants * (seeds + 3) + 7
    scores = (variants * seeds + 2) * preset.data.test * cost.scored
    return REST + stages * STAGE + _summaries(preset, cost) + scores


def _profile(preset: Preset, profile: Profile, cost: Cost, variant: AttentionSpec, device: Device) -> float:
    """Seconds of one variant's profile: its processes and standard's in pairs, and one for the sweep."""
    on, own = torch.device("cuda" if device.gpu else "cpu"), preset.tokenizer.max_length
    turns = 1 if device.gpu else TURNS
    passes = Passes(profile, on, lambda what: None, turns)
    headline = sum(_taken(one, passes) for one in (cost.forward, cost.generation, cost.forward))
    headline += _steps(cost.lesson / preset.train.batch_size * max(profile.train_batch_sizes), passes)

    once = replace(passes, turns=0)
    lengths = lengths_of(profile, own, own if variant.positions == "learned" else None)
    batches = sorted({1, *profile.batch_sizes})
    sizes = [(batch, length) for batch, length in product(batches, lengths)
             if profile.grid or batch == 1 or length == own]
    sweep = sum(_taken(cost.forward * batch * length / own, once) for batch, length in sizes)
    sweep += sum(_taken(0.0, once) for _ in lengths)  # attention alone
    if profile.grid:
        sweep += sum(_taken(_generation(preset, cost, batch, length), once) for batch, length in sizes)
    for batch in sorted({*profile.train_batch_sizes})[:-1]:
        sweep += _steps(cost.lesson / preset.train.batch_size * batch, once)
    return 2 * profile.pairs * (PROCESS[device.gpu] + headline) + PROCESS[device.gpu] + OTHER + sweep


def _generation(preset: Preset, cost: Cost, batch: int, length: int) -> float:
    """Seconds of generation, of which a full batch and a single one are known."""
    full = preset.generate.batch_size
    each = max(0.0, full * cost.summary - cost.generation) / max(1, full - 1)
    longer = cost.forward * batch * max(0.0, length / preset.tokenizer.max_length - 1)
    return cost.generation + (batch - 1) * each + longer


def _taken(seconds: float, passes: Passes) -> float:
    """Seconds in which something that takes so long is measured, memory and time."""
    turns = max(1, passes.turns)
    repeats, least = passes.share(turns)
    return (2 + WARMUP + turns - 1) * seconds + turns * max(repeats * seconds, least)


def _steps(seconds: float, passes: Passes) -> float:
    """The same of a training step."""
    turns = max(1, min(passes.turns, STEP_TURNS))
    repeats, least = passes.share(turns)
    return (1 + WARMUP) * seconds + turns * max((repeats + 1) * seconds, least)


def within(preset: Sections, plan: Plan) -> Sections:
    """The preset with as many steps and pairs as the plan has."""
    train = {"steps": plan.steps, "warmup_steps": max(1, plan.steps // 20),
             "evaluations": min(plan.steps, preset["train"]["evaluations"])}
    profile = {"pairs": plan.profile.pairs, "train_batch_sizes": plan.profile.train_batch_sizes,
               "grid": plan.profile.grid}
    return preset | {"train": preset["train"] | train, "profile": preset["profile"] | profile}
