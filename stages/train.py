"""Train one variant from one seed; an interrupted run goes on from its last checkpoint."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from pandas import DataFrame
from transformers import PreTrainedTokenizerBase

from headtohead.beside import beside
from headtohead.models.card import origin
from headtohead.models.checkpoints import build, named_variant
from headtohead.models.gpt2 import GPT2, best_device
from headtohead.models.sharing import next_missing, share_cores
from headtohead.params import Params, read_params
from headtohead.paths import PRETRAINED, Run
from headtohead.stage import run, writing
from headtohead.tokens.layout import Layout
from headtohead.tokens.splits import digest, load_split, load_tokenizer
from headtohead.tokens.tokenizer import separator_ids
from headtohead.training.checkpoints import checkpoint_folder, finished, remove_finished
from headtohead.training.examples import make_examples
from headtohead.training.run import train


def main(variant: str, seed: int) -> None:
    ours, params, tokenizer = Run(variant, seed), read_params(), load_tokenizer()
    checkpoints = {ours: folder(params, ours, tokenizer)}
    meanwhile: AbstractContextManager[object] = nullcontext()
    if share_cores(params, best_device()) and not finished(checkpoints[ours]) and (other := next_missing(params, ours)):
        checkpoints[other] = folder(params, other, tokenizer)
        meanwhile = beside(partial(fit, params, other, tokenizer, checkpoints[other]))

    remove_finished(keep=checkpoints.values())
    with meanwhile:
        model, curves = fit(params, ours, tokenizer, checkpoints[ours])

    with writing(ours.model):
        model.save_pretrained(ours.model)
        tokenizer.save_pretrained(ours.model)
    ours.curve.parent.mkdir(parents=True, exist_ok=True)
    curves.to_csv(ours.curve, index=False)


def fit(params: Params, ours: Run, tokenizer: PreTrainedTokenizerBase, checkpoints: Path) -> tuple[GPT2, DataFrame]:
    """The trained model and its learning curves; the checkpoints stay."""
    preset = params.chosen
    model = build(named_variant(params, ours.variant), preset.model, tokenizer, preset.tokenizer.max_length, ours.seed,
                  params.asked_backend)
    model.config.training = origin(params, ours)
    examples, validation = (make_examples(load_split(split), layout(params, tokenizer))
                            for split in ("train", "validation"))
    with writing(checkpoints):
        return model, train(model, examples, validation, preset.train, filler=tokenizer.pad_token_id, seed=ours.seed,
                            checkpoints=checkpoints, title=f"training {ours}")


def folder(params: Params, ours: Run, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Where a training's checkpoints lie."""
    return checkpoint_folder(ours.variant, named_variant(params, ours.variant), params.chosen.model,
                             params.chosen.train, layout(params, tokenizer), ours.seed, params.backend,
                             PRETRAINED.read_text(), digest())


def layout(params: Params, tokenizer: PreTrainedTokenizerBase) -> Layout:
    preset = params.chosen
    return Layout(separator_ids(tokenizer), tokenizer.eos_token_id, preset.tokenizer.max_length,
                  preset.generate.max_new_tokens)


if __name__ == "__main__":
    run(main, memory="train.batch_size, and raise train.accumulation by as much: the budget stays the same")
