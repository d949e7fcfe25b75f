"""The report's reference rows: each article's first three sentences, and the model before any training."""

from pathlib import Path

import torch

from headtohead.attention.spec import AttentionSpec
from headtohead.checkpoints import build
from headtohead.data.records import read_jsonl, write_jsonl
from headtohead.data.tokens import load_split, load_tokenizer
from headtohead.decoding.predictions import predict
from headtohead.model import best_device
from headtohead.params import read_params
from headtohead.quality.language import choose
from headtohead.quality.lead import lead3
from headtohead.stage import run

TEST = Path("data/subset/test.jsonl")
PREDICTIONS = Path("data/predictions")


def main() -> None:
    params = read_params()
    preset = params.chosen
    language = choose(preset.score.language, (row["article"] for row in read_jsonl(TEST)))
    write_jsonl(PREDICTIONS / "lead3.jsonl", (
        {"id": row["id"], "summary": lead3(row["article"], language), "reference": row["summary"]}
        for row in read_jsonl(TEST)))

    tokenizer, max_length = load_tokenizer(), preset.tokenizer.max_length
    model = build(AttentionSpec(), preset.model, tokenizer, max_length, params.seed).eval()
    model.to(best_device(), getattr(torch, preset.generate.precision))
    rows = predict(model, tokenizer, load_split("test"), preset.generate, max_length, "summaries, untrained")
    write_jsonl(PREDICTIONS / "untrained.jsonl", rows)


if __name__ == "__main__":
    run(main, memory="generate.batch_size or generate.beams")
