"""Write the summaries of one variant's trainings, of the test articles and of those in the further test sets."""

from functools import partial
from typing import Any

import torch

from headtohead.beside import halved
from headtohead.inference.predictions import predict
from headtohead.measured import read_table
from headtohead.models.checkpoints import check_trained_here, load
from headtohead.models.gpt2 import GPT2, best_device
from headtohead.models.sharing import share_cores
from headtohead.params import Params, read_params
from headtohead.paths import BACKENDS, Run
from headtohead.records import write_json, write_jsonl
from headtohead.stage import run, writing
from headtohead.tokens.splits import further_sets, load_split, load_tokenizer


def main(variant: str) -> None:
    params = read_params()
    each = partial(write, params=params)
    runs = [Run(variant, seed) for seed in params.seeds]
    if share_cores(params, best_device()):
        halved(each, runs)
    else:
        for one in runs:
            each(one)


def write(ours: Run, params: Params) -> None:
    """Write the summaries of one training, and what it ran on."""
    settings, max_length = params.chosen.generate, params.chosen.tokenizer.max_length
    model, tokenizer = load(ours.model, backend=params.asked_backend)
    model.config.attention_table = read_table(BACKENDS / f"{ours.variant}.json")
    check_trained_here(ours, model, tokenizer, params, load_tokenizer())
    model.to(best_device(), getattr(torch, settings.precision))
    rows = predict(model, tokenizer, load_split("test"), settings, max_length, f"summaries by {ours}")
    # Longer articles are cut only where the model's positions end: that is what they are there to show.
    further = [{"set": name, **row} for name in further_sets()
               for row in predict(model, tokenizer, load_split(name), settings, None, f"{name} by {ours}")]
    with writing(ours.predictions):
        write_jsonl(ours.predictions, rows)
        write_jsonl(ours.further, further)
        write_json(ours.trained_on, trained_on(model))


def trained_on(model: GPT2) -> dict[str, Any] | None:
    """What the model says of its training's machine, for the report, which reads no models."""
    on, training = model.config.trained_on, model.config.training or {}
    return on and on | {"devices": training.get("devices", 1)}


if __name__ == "__main__":
    run(main, memory="generate.batch_size or generate.beams")
