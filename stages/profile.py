"""Measure what one variant costs on this machine: latency, memory, training steps, and where the time goes."""

from itertools import chain, cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from headtohead.models.checkpoints import check_trained_here, load
from headtohead.models.gpt2 import GPT2, best_device
from headtohead.params import read_params
from headtohead.profiling.profile import passes_of, profile
from headtohead.progress import Bar
from headtohead.records import write_json
from headtohead.stage import run, writing
from headtohead.tokens.splits import load_split, load_tokenizer


def main(variant: str) -> None:
    params = read_params()
    settings, length = params.chosen.profile, params.chosen.tokenizer.max_length
    model, tokenizer = load(f"models/{variant}", backend=params.asked_backend)
    check_trained_here(variant, model, tokenizer, params, load_tokenizer())
    details = Path(f"data/details/{variant}")
    details.mkdir(parents=True, exist_ok=True)
    total = passes_of(settings, length, model.length_limit)
    with Bar(f"profile of {variant}", total=total) as bar, writing(details):
        def next_pass(what: str) -> None:
            bar.note(what)
            bar.advance()

        flat, rest = profile(model, prompt=real_tokens(max(length, *settings.lengths)), length=length,
                             settings=settings, loss=every_token, device=best_device(),
                             trace=details / "trace.json.gz", on_progress=next_pass)
    write_json(Path(f"metrics/variants/{variant}/efficiency.json"), flat)
    write_json(details / "efficiency.json", rest)


def real_tokens(length: int) -> Tensor:
    """[1, length] tokens of test articles, one after another, and over again where they are few."""
    tokens = list(chain.from_iterable(load_split("test")["article"]))
    return torch.tensor([list(islice(cycle(tokens), length))])


def every_token(model: GPT2, input_ids: Tensor) -> Tensor:
    """The loss on a whole sequence, so that a step's work does not depend on how long summaries are."""
    return model(input_ids=input_ids, labels=input_ids, weights=torch.ones_like(input_ids, dtype=torch.float32)).loss


if __name__ == "__main__":
    run(main, memory="profile.train_batch_sizes, tokenizer.max_length or the model's size")
