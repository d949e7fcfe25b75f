"""From what was found to a preset, with the reasons: pure functions, and the numbers behind them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headtohead.params import Data
from headtohead.records import DataError
from headtohead.statistics import smallest_found

Start = Literal["pretrained", "scratch", "small"]  # a pretrained GPT-2; a new one that can learn; a new one that cannot
Sections = dict[str, dict[str, Any]]

LANGUAGE = 4_000_000  # words to learn a language from: half of those in `news`, the least with which we saw it learned
LEAST = {"train": 30, "validation": 5, "test": 10}
MOST = {"validation": 500, "test": 1000}
MOST_TRAIN = {"pretrained": 5_000, "scratch": 150_000, "small": 8_000}
WHOLE = 0.95, 0.99  # shares of the articles and of the summaries that shall fit
LONGEST_CPU, LONGEST_GPU = 1024, 2048  # tokens that a new model gets at most
VOCABULARY = {"scratch": 16_384, "small": 4_096}
SEPARATOR = {"pretrained": "\nTL;DR:", "scratch": "<|summary|>", "small": "<|summary|>"}
MODELS: dict[str, dict[str, Any]] = {
    "scratch": {"pretrained": None, "layers": 8, "width": 512, "heads": 8, "init_std": 0.02, "position_init_std": 0.02,
                "dropout": 0.1},
    "small": {"pretrained": None, "layers": 4, "width": 128, "heads": 4, "init_std": 0.02, "position_init_std": 0.02,
              "dropout": 0.0}}
# By start: examples a step, learning rate, weight decay, the article's weight, evaluations.
TRAINING = {"pretrained": (8, 0.00005, 0.01, 0.0, 8), "scratch": (64, 0.0015, 0.1, 1.0, 13),
            "small": (8, 0.003, 0.1, 1.0, 8)}
END = {"scratch": 2600, "small": 1000}  # steps after which losses no longer fall much: presets `news` and `laptop`
PASSES, LEAST_STEPS = 3, 200  # of a pretrained model
MOST_SEEDS, ENOUGH_SEEDS = 10, 3
# Standard deviations of ROUGE-1 that are assumed: over seeds, as in `news` trained to the end (0.002 to 0.004, on other
# trainings up to 0.005), and over articles of the difference between two functions (0.04 to 0.06 there, if alike).
LUCK, OWN = 0.005, 0.06


@dataclass(frozen=True)
class Device:
    """Args: memory: free, in bytes; bfloat16: whether it computes in it."""

    name: str
    gpu: bool
    memory: int
    bfloat16: bool


@dataclass(frozen=True)
class Shape:
    """The model's; positions: how many a pretrained one has."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    positions: int | None = None


@dataclass(frozen=True)
class Lengths:
    """Tokens of a sample's articles and summaries, and of the separator."""

    articles: NDArray[np.int64]
    summaries: NDArray[np.int64]
    separator: int


def splits(counts: Mapping[str, int], start: Start, name: str) -> dict[str, int]:
    """How many articles each split gets.

    Raises:
        DataError: there are too few.
    """
    if "all" in counts:
        test, validation = min(MOST["test"], counts["all"] // 5), min(MOST["validation"], counts["all"] // 20)
        counts = {"train": counts["all"] - test - validation, "validation": validation, "test": test}
    if few := [split for split, least in LEAST.items() if counts[split] < least]:
        raise DataError(f"{name} has {sum(counts.values()):,} usable articles, which leaves {counts[few[0]]} for "
                        f"{few[0]}; at least {LEAST[few[0]]} are needed there. Bring more articles")
    return {split: min(counts[split], (MOST | {"train": MOST_TRAIN[start]})[split]) for split in LEAST}


def shape_of(start: Start) -> Shape:
    """The shape of a new model."""
    model = MODELS[start]
    return Shape(model["layers"], model["width"], model["heads"], VOCABULARY[start])


def lengths_of(found: Lengths, shape: Shape, device: Device) -> tuple[int, int]:
    """tokenizer.max_length and generate.max_new_tokens, so that nearly all articles and summaries fit."""
    most = shape.positions or (LONGEST_GPU if device.gpu else LONGEST_CPU)
    new = min(_round_up(float(np.quantile(found.summaries, WHOLE[1])) + 1, 4), most // 2)
    room = max(float(np.quantile(found.articles, WHOLE[0])), 16)
    return min(_round_up(room + found.separator + new, 8), most), new


def draft(data: Data, start: Start, pretrained: str | None, end_of_text: str | None, counts: Mapping[str, int],
          found: Lengths, shape: Shape, device: Device) -> Sections:
    """A preset for as many steps as its trainings need; `fitting` cuts them to the time."""
    length, new = lengths_of(found, shape, device)
    batch, rate, decay, article_weight, evaluations = TRAINING[start]
    precision = "bfloat16" if device.bfloat16 else "float32"
    model = {"pretrained": pretrained, "dropout": 0.1} if start == "pretrained" else MODELS[start]
    fits = batch_that_fits(batch, length, shape, device)
    steps = END[start] if start != "pretrained" else max(LEAST_STEPS, ceil(PASSES * counts["train"] / batch))
    where: dict[str, Any] = {"source": data.source, "path": data.path, "encoding": data.encoding,
                             "article": data.article, "summary": data.summary, **counts}
    if data.hub is not None:
        where["hub"] = data.hub.model_dump()
    tokenizer: dict[str, Any] = {"vocab_size": VOCABULARY.get(start), "separator": SEPARATOR[start],
                                 "max_length": length}
    if end_of_text is not None:
        tokenizer["end_of_text"] = end_of_text
    measured = [length // 2, length, *(length * times for times in (2, 4, 8, 16) if device.gpu)]
    return {
        "data": where, "tokenizer": tokenizer, "model": model,
        "train": {"steps": steps, "batch_size": fits, "accumulation": batch // fits, "learning_rate": rate,
                  "warmup_steps": max(1, steps // 20), "weight_decay": decay, "article_weight": article_weight,
                  "precision": precision, "evaluations": evaluations},
        "generate": {"batch_size": 100 if device.gpu else 10 if start == "pretrained" else 50, "max_new_tokens": new,
                     "beams": 4 if device.gpu else 1, "no_repeat_ngram": 3, "precision": precision},
        "score": {"language": "auto"},
        "profile": {"new_tokens": new, "lengths": measured if device.gpu else [length // 4, *measured],
                    "batch_sizes": [1, 4, 16, 64] if device.gpu else [1, 4],
                    "train_batch_sizes": sorted({max(1, fits // 2), fits}), "pairs": 10 if device.gpu else 5,
                    "min_repeats": 30 if device.gpu else 10, "min_seconds": 1.0, "precision": precision}}


def batch_that_fits(batch: int, length: int, shape: Shape, device: Device) -> int:
    """The largest half, quarter, ... of `batch` whose step with `standard` takes half of the free memory at most."""
    of_a_token = shape.layers * (20 * shape.width + 3 * shape.heads * length) + 3 * shape.vocabulary
    one = 4 * length * of_a_token  # bytes of activations in float32
    while batch > 1 and batch * one > device.memory / 2:
        batch //= 2
    return batch


def smallest_difference(seeds: int, articles: int, functions: int) -> float:
    """In ROUGE-1, found in four of five runs; infinite if nothing is claimed. Spreads are assumed: see above."""
    return smallest_found(LUCK, OWN, seeds, articles, max(1, functions))


def _round_up(number: float, to: int) -> int:
    return ceil(number / to) * to
