"""Train one variant; an interrupted run goes on from its last checkpoint."""

import shutil
from pathlib import Path

from headtohead.data.prompts import Layout
from headtohead.data.tokenizer import separator_ids
from headtohead.data.tokens import digest, load_split, load_tokenizer
from headtohead.model import build
from headtohead.params import read_params
from headtohead.stage import run
from headtohead.training import checkpoint_folder, make_examples, train


def main(variant: str) -> None:
    params = read_params()
    preset, spec = params.chosen, params.variants[variant]
    tokenizer, max_length = load_tokenizer(), preset.tokenizer.max_length
    layout = Layout(separator_ids(tokenizer), tokenizer.eos_token_id, max_length)
    start = Path("data/pretrained.json").read_text()
    checkpoints = checkpoint_folder(variant, spec, preset.model, preset.train, max_length, params.seed, start, digest())

    model = build(spec, preset.model, tokenizer, max_length, params.seed)
    curves = train(model, make_examples(load_split("train"), layout), make_examples(load_split("validation"), layout),
                   preset.train, filler=tokenizer.pad_token_id, seed=params.seed, checkpoints=checkpoints)

    model.save_pretrained(f"models/{variant}")
    tokenizer.save_pretrained(f"models/{variant}")
    table = Path(f"plots/training/{variant}.csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    curves.to_csv(table, index=False)
    shutil.rmtree(checkpoints)


if __name__ == "__main__":
    run(main)
