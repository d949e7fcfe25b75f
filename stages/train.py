"""Train one variant from one seed; an interrupted run goes on from its last checkpoint."""

from headtohead.models.card import origin
from headtohead.models.checkpoints import build, named_variant
from headtohead.params import read_params
from headtohead.paths import PRETRAINED, Run
from headtohead.stage import run, writing
from headtohead.tokens.layout import Layout
from headtohead.tokens.splits import digest, load_split, load_tokenizer
from headtohead.tokens.tokenizer import separator_ids
from headtohead.training.checkpoints import checkpoint_folder, forget_finished
from headtohead.training.examples import make_examples
from headtohead.training.run import train


def main(variant: str, seed: int) -> None:
    ours, params = Run(variant, seed), read_params()
    preset, spec = params.chosen, named_variant(params, variant)
    tokenizer, max_length = load_tokenizer(), preset.tokenizer.max_length
    layout = Layout(separator_ids(tokenizer), tokenizer.eos_token_id, max_length, preset.generate.max_new_tokens)
    checkpoints = checkpoint_folder(variant, spec, preset.model, preset.train, layout, seed, params.backend,
                                    PRETRAINED.read_text(), digest())

    forget_finished(but=checkpoints)
    model = build(spec, preset.model, tokenizer, max_length, seed, params.asked_backend)
    model.config.training = origin(params, ours)
    with writing(checkpoints):
        curves = train(model, make_examples(load_split("train"), layout),
                       make_examples(load_split("validation"), layout), preset.train, filler=tokenizer.pad_token_id,
                       seed=seed, checkpoints=checkpoints, title=f"training {ours}")

    with writing(ours.model):
        model.save_pretrained(ours.model)
        tokenizer.save_pretrained(ours.model)
    ours.curve.parent.mkdir(parents=True, exist_ok=True)
    curves.to_csv(ours.curve, index=False)


if __name__ == "__main__":
    run(main, memory="train.batch_size, and raise train.accumulation by as much: the budget stays the same")
