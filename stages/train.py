"""Train one variant from one seed; an interrupted run goes on from its last checkpoint."""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from headtohead.beside import beside
from headtohead.models.card import origin
from headtohead.models.checkpoints import build, named_variant
from headtohead.models.gpt2 import GPT2, best_device
from headtohead.models.sharing import next_missing, share_cores
from headtohead.params import Params, read_params
from headtohead.paths import PRETRAINED, TOKENS, Run
from headtohead.stage import run, writing
from headtohead.tokens.continuations import copy_continuations
from headtohead.tokens.layout import Layout
from headtohead.tokens.splits import digest, load_split, load_tokenizer
from headtohead.tokens.tokenizer import separator_ids
from headtohead.training.checkpoints import checkpoint_folder, finished, remove_finished
from headtohead.training.devices import count_devices, launch
from headtohead.training.examples import make_examples
from headtohead.training.run import best, take_steps


def main(variant: str, seed: int) -> None:
    ours, params, tokenizer = Run(variant, seed), read_params(), load_tokenizer()
    devices = count_devices(params.chosen.train, f"presets.{params.preset}.train")
    checkpoints = {ours: folder(params, ours, tokenizer)}
    meanwhile: AbstractContextManager[object] = nullcontext()
    if (devices == 1 and share_cores(params, best_device()) and not finished(checkpoints[ours])
            and (other := next_missing(params, ours))):
        checkpoints[other] = folder(params, other, tokenizer)
        meanwhile = beside(partial(take_steps_of, params, other, tokenizer, checkpoints[other]))

    remove_finished(keep=checkpoints.values())
    with meanwhile, writing(checkpoints[ours]):
        if devices == 1:
            model = take_steps_of(params, ours, tokenizer, checkpoints[ours])
        else:
            launch(take_steps_of, params, ours, tokenizer, checkpoints[ours], devices=devices)
            model = untrained(params, ours, tokenizer)
        curves = best(model, params.chosen.train, checkpoints[ours])

    model.config.training = origin(params, ours, devices)
    with writing(ours.model):
        model.save_pretrained(ours.model)
        tokenizer.save_pretrained(ours.model)
        copy_continuations(TOKENS, ours.model)
    ours.curve.parent.mkdir(parents=True, exist_ok=True)
    curves.to_csv(ours.curve, index=False)


def take_steps_of(params: Params, ours: Run, tokenizer: PreTrainedTokenizerBase, checkpoints: Path) -> GPT2:
    """The model after its training's last step; the checkpoints stay."""
    model = untrained(params, ours, tokenizer)
    examples, validation = (make_examples(load_split(split), layout(params, tokenizer))
                            for split in ("train", "validation"))
    take_steps(model, examples, validation, params.chosen.train, filler=tokenizer.pad_token_id, seed=ours.seed,
               checkpoints=checkpoints, title=f"training {ours}")
    return model


def untrained(params: Params, ours: Run, tokenizer: PreTrainedTokenizerBase) -> GPT2:
    preset = params.chosen
    return build(named_variant(params, ours.variant), preset.model, tokenizer, preset.tokenizer.max_length, ours.seed,
                 params.asked_backend)


def folder(params: Params, ours: Run, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Where a training's checkpoints lie; on how many devices it goes on makes no difference."""
    return checkpoint_folder(ours.variant, named_variant(params, ours.variant), params.chosen.model,
                             params.chosen.train.model_copy(update={"devices": 1}), layout(params, tokenizer),
                             ours.seed, params.backend, PRETRAINED.read_text(), digest())


def layout(params: Params, tokenizer: PreTrainedTokenizerBase) -> Layout:
    preset = params.chosen
    return Layout(separator_ids(tokenizer), tokenizer.eos_token_id, preset.tokenizer.max_length,
                  preset.generate.max_new_tokens)


if __name__ == "__main__":
    run(main, memory="train.batch_size, and raise train.accumulation by as much: the budget stays the same")
