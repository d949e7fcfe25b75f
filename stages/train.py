"""Train one variant; an interrupted run goes on from its last checkpoint."""

from pathlib import Path

from headtohead.card import origin
from headtohead.checkpoints import build, named_variant
from headtohead.data.layout import Layout
from headtohead.data.tokenizer import separator_ids
from headtohead.data.tokens import digest, load_split, load_tokenizer
from headtohead.params import read_params
from headtohead.stage import run, writing
from headtohead.training import checkpoint_folder, forget_finished, make_examples, train


def main(variant: str) -> None:
    params = read_params()
    preset, spec = params.chosen, named_variant(params, variant)
    tokenizer, max_length = load_tokenizer(), preset.tokenizer.max_length
    layout = Layout(separator_ids(tokenizer), tokenizer.eos_token_id, max_length, preset.generate.max_new_tokens)
    start = Path("data/pretrained.json").read_text()
    checkpoints = checkpoint_folder(variant, spec, preset.model, preset.train, layout, params.seed, params.backend,
                                    start, digest())

    forget_finished(but=checkpoints)
    model = build(spec, preset.model, tokenizer, max_length, params.seed, params.asked_backend)
    model.config.training = origin(params, variant)
    with writing(checkpoints):
        curves = train(model, make_examples(load_split("train"), layout),
                       make_examples(load_split("validation"), layout), preset.train, filler=tokenizer.pad_token_id,
                       seed=params.seed, checkpoints=checkpoints, title=f"training {variant}")

    with writing(folder := Path(f"models/{variant}")):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    table = Path(f"plots/training/{variant}.csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    curves.to_csv(table, index=False)


if __name__ == "__main__":
    run(main, memory="train.batch_size, and raise train.accumulation by as much: the budget stays the same")
