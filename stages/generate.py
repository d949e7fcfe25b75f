"""Write one variant's summaries of the test articles, and of those in the longer test sets."""

from pathlib import Path

import torch

from headtohead.checkpoints import check_trained_here, load
from headtohead.data.records import write_jsonl
from headtohead.data.tokens import further_sets, load_split, load_tokenizer
from headtohead.decoding.predictions import predict
from headtohead.model import best_device
from headtohead.params import read_params
from headtohead.stage import run, writing

PREDICTIONS = Path("data/predictions")


def main(variant: str) -> None:
    params = read_params()
    preset = params.chosen
    model, tokenizer = load(f"models/{variant}", backend=params.asked_backend)
    check_trained_here(variant, model, tokenizer, params, load_tokenizer())
    model.to(best_device(), getattr(torch, preset.generate.precision))
    max_length = preset.tokenizer.max_length
    rows = predict(model, tokenizer, load_split("test"), preset.generate, max_length, f"summaries by {variant}")
    # Longer articles are cut only where the model's positions end: that is what they are there to show.
    further = [{"set": name, **row} for name in further_sets()
               for row in predict(model, tokenizer, load_split(name), preset.generate, None, f"{name} by {variant}")]
    with writing(PREDICTIONS):
        write_jsonl(PREDICTIONS / f"{variant}.jsonl", rows)
        write_jsonl(PREDICTIONS / "further" / f"{variant}.jsonl", further)


if __name__ == "__main__":
    run(main, memory="generate.batch_size or generate.beams")
