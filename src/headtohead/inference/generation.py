"""Summaries of prompts of any lengths, and how likely a model finds the reference ones."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from headtohead.inference.engine import Engine
from headtohead.inference.lookup import drafted_for
from headtohead.inference.search import generate, stream
from headtohead.models.batches import collate, pad_left
from headtohead.models.gpt2 import GPT2
from headtohead.params import Generate

BROKEN = "\ufffd"  # what decoding puts for bytes that are no character


def write_summaries(engine: Engine, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], settings: Generate,
                    on_done: Callable[[int], None] = lambda count: None) -> list[str]:
    """The continuation of each prompt as text, never the prompt itself; arguments as of `write_tokens`."""
    return as_text(tokenizer, write_tokens(engine, tokenizer, prompts, settings, on_done))


def write_tokens(engine: Engine, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], settings: Generate,
                 on_done: Callable[[int], None] = lambda count: None) -> list[list[int]]:
    """The continuation of each prompt, up to its end-of-text.

    Args:
        prompts: token ids of article and separator, of any lengths.
        on_done: called after each batch with its number of summaries.
    """
    written: list[list[int]] = [[]] * len(prompts)
    for batch in batches_by_length(prompts, settings.batch_size):
        rows = generate_tokens(engine, tokenizer, [prompts[i] for i in batch], settings).tolist()
        for i, row in zip(batch, rows, strict=True):
            end = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row)
            written[i] = row[:end]
        on_done(len(batch))
    return written


def as_text(tokenizer: PreTrainedTokenizerBase, written: list[list[int]]) -> list[str]:
    """Continuations as texts."""
    return [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]


def write_aloud(engine: Engine, tokenizer: PreTrainedTokenizerBase, prompt: list[int], settings: Generate,
                tell: Callable[[str], object]) -> str:
    """One greedy summary, as `write_summaries` returns it, told piece by piece while it is written.

    A character whose bytes are not complete yet waits, and so does white space, which may be the last.
    """
    ids = torch.tensor([prompt], device=engine.device)
    written: list[int] = []
    told = ""
    for token in stream(engine, ids, max_new_tokens=settings.max_new_tokens, no_repeat_ngram=settings.no_repeat_ngram,
                        end=tokenizer.eos_token_id, drafted=drafted_for(engine, 1, settings)):
        written.append(token)
        text = tokenizer.decode(written, skip_special_tokens=True).strip()
        if text.startswith(told) and not text.endswith(BROKEN):
            tell(text[len(told):])
            told = text
    text = tokenizer.decode(written, skip_special_tokens=True).strip()
    tell(text[len(told):] if text.startswith(told) else f"\n{text}")  # some tokenizers change a text's end later on
    return text


def generate_tokens(engine: Engine, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]],
                    settings: Generate) -> Tensor:
    """Token ids [prompts, at most max_new_tokens] of the continuations, padded with end-of-text.

    `no_repeat_ngram` only counts n-grams in the summary. transformers counts the prompt too, which in a decoder-only
    summarizer would forbid copying from the article.
    """
    ids, mask = pad_left(prompts, tokenizer.pad_token_id)
    padding = (mask == 0).sum(1)
    return generate(engine, ids.to(engine.device), padding.to(engine.device) if padding.any() else None,
                    max_new_tokens=settings.max_new_tokens, beams=settings.beams,
                    no_repeat_ngram=settings.no_repeat_ngram, end=tokenizer.eos_token_id,
                    drafted=drafted_for(engine, len(prompts), settings))


@torch.inference_mode()
def reference_losses(model: GPT2, examples: list[tuple[list[int], int]], filler: int, batch_size: int
                     ) -> list[tuple[float, int]]:
    """Mean negative log-likelihood (nats per token) of each reference summary, and its tokens with end-of-text.

    Args:
        examples: training sequences, as (token ids, how many of them are prompt).
    """
    losses = [(0.0, 0)] * len(examples)
    for batch in batches_by_length([sequence for sequence, _ in examples], batch_size):
        tensors = collate([examples[i] for i in batch], filler, article_weight=0.0)
        for i, loss in zip(batch, model.summary_losses(tensors["input_ids"], tensors["labels"]), strict=True):
            losses[i] = loss
    return losses


def batches_by_length(sequences: list[list[int]], size: int) -> list[list[int]]:
    """Indices in batches of sequences of similar length, so that there is little padding; the longest come first."""
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    return [order[start:start + size] for start in range(0, len(order), size)]
