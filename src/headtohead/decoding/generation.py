"""Summaries by transformers' `generate`: batched, greedy or beam search."""

from collections.abc import Callable

import torch
from torch import LongTensor, Tensor
from transformers import LogitsProcessor, LogitsProcessorList, NoRepeatNGramLogitsProcessor, PreTrainedTokenizerBase

from headtohead.data.prompts import collate, pad_left
from headtohead.model import GPT2
from headtohead.params import Generate


class NoRepeatInSummary(LogitsProcessor):
    """Bans an n-gram that the summary already holds.

    transformers counts the prompt too, which in a decoder-only summarizer forbids copying from the article.
    """

    def __init__(self, size: int, prompt_length: int) -> None:
        self._ban = NoRepeatNGramLogitsProcessor(size)
        self._prompt_length = prompt_length

    def __call__(self, input_ids: LongTensor, scores: Tensor) -> Tensor:
        return self._ban(input_ids[:, self._prompt_length:], scores)


def write_summaries(model: GPT2, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], settings: Generate,
                    on_done: Callable[[int], None] = lambda count: None) -> list[str]:
    """The continuation of each prompt as text, never the prompt itself.

    Args:
        prompts: token ids of article and separator, of any lengths.
        on_done: told how many more are done, after each batch.
    """
    summaries = [""] * len(prompts)
    for batch in batches_by_length(prompts, settings.batch_size):
        tokens = generate_tokens(model, tokenizer, [prompts[i] for i in batch], settings)
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for i, text in zip(batch, texts, strict=True):
            summaries[i] = text.strip()
        on_done(len(batch))
    return summaries


@torch.inference_mode()
def generate_tokens(model: GPT2, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]],
                    settings: Generate) -> Tensor:
    """Token ids [prompts, at most max_new_tokens] of the continuations, filled up with end-of-text."""
    ids, mask = pad_left(prompts, tokenizer.pad_token_id)
    length = ids.shape[1]
    processors = [NoRepeatInSummary(settings.no_repeat_ngram, length)] if settings.no_repeat_ngram else []
    out = model.generate(
        ids.to(model.device), attention_mask=mask.to(model.device), do_sample=False, num_beams=settings.beams,
        max_new_tokens=settings.max_new_tokens, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, logits_processor=LogitsProcessorList(processors))
    return out[:, length:]


@torch.inference_mode()
def reference_losses(model: GPT2, examples: list[tuple[list[int], int]], filler: int, batch_size: int
                     ) -> list[tuple[float, int]]:
    """Mean negative log-likelihood (nats a token) of each reference summary, and its tokens with end-of-text.

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
    """Indices in batches of sequences of like length, so that little is padding; the longest come first."""
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    return [order[start:start + size] for start in range(0, len(order), size)]
