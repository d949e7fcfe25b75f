"""The report's reference rows: each article's first three sentences, and the model before any training."""

import torch

from headtohead.attention.spec import AttentionSpec
from headtohead.inference.predictions import predict
from headtohead.models.checkpoints import build
from headtohead.models.gpt2 import best_device
from headtohead.params import read_params
from headtohead.paths import LEAD3, SUBSET, UNTRAINED, Run
from headtohead.quality.language import choose
from headtohead.quality.lead import lead3
from headtohead.records import read_jsonl, write_jsonl
from headtohead.stage import run
from headtohead.tokens.splits import load_split, load_tokenizer

TEST = SUBSET / "test.jsonl"


def main() -> None:
    params = read_params()
    preset, seed = params.chosen, params.seed
    language = choose(preset.score.language, (row["article"] for row in read_jsonl(TEST)))
    write_jsonl(Run(LEAD3, seed).predictions, (
        {"id": row["id"], "summary": lead3(row["article"], language), "reference": row["summary"]}
        for row in read_jsonl(TEST)))

    tokenizer, max_length = load_tokenizer(), preset.tokenizer.max_length
    model = build(AttentionSpec(), preset.model, tokenizer, max_length, seed).eval()
    model.to(best_device(), getattr(torch, preset.generate.precision))
    rows = predict(model, tokenizer, load_split("test"), preset.generate, max_length, "summaries, untrained")
    write_jsonl(Run(UNTRAINED, seed).predictions, rows)


if __name__ == "__main__":
    run(main, memory="generate.batch_size or generate.beams")
