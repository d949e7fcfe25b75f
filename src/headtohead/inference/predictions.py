"""A model's predictions for a test set: its summaries, and its loss on the reference ones."""

import logging
from typing import Any

from transformers import PreTrainedTokenizerBase

from headtohead.inference.engine import Engine
from headtohead.inference.generation import as_text, reference_losses, write_tokens
from headtohead.inference.lookup import ALONE, count_passes, drafted_for
from headtohead.models.gpt2 import GPT2
from headtohead.params import AUTO, Generate
from headtohead.progress import Bar
from headtohead.records import Record
from headtohead.tokens.layout import Layout
from headtohead.tokens.tokenizer import separator_ids

log = logging.getLogger(__name__)


def layout_for(model: GPT2, tokenizer: PreTrainedTokenizerBase, settings: Generate, max_length: int | None) -> Layout:
    """How a model's articles are laid out: within `max_length`, and its own limit if that is shorter."""
    limits = [limit for limit in (max_length, model.length_limit) if limit is not None]
    return Layout(separator_ids(tokenizer), tokenizer.eos_token_id, min(limits, default=None),
                  settings.max_new_tokens)


def predict(model: GPT2, tokenizer: PreTrainedTokenizerBase, rows: Any, settings: Generate, max_length: int | None,
            title: str) -> list[Record]:
    """Predictions for tokenised articles (columns id, article, summary, reference).

    Args:
        max_length: tokens of article, separator and summary together; articles are cut to fit, and to the
            model's own limit if that is shorter. With None only the model's limit applies.
        title: of the progress bar.

    Returns:
        For each article {"id", "summary", "reference", "loss" (nats per token of the reference), "tokens" (how many
        tokens of the reference the loss covers: those within `max_length`), "cut" (tokens of the article that did not
        fit), "written_by" (what computed attention)}; and of greedy search by what can take tokens back, "later_tokens"
        (of the summary, with end-of-text, after the first) and "passes" (in how many prompt lookup writes these, with
        the draft for a single article).
    """
    layout = layout_for(model, tokenizer, settings, max_length)
    prompts = [layout.prompt(row["article"]) for row in rows]
    examples = [layout.example(row["article"], row["summary"]) for row in rows]
    if longer := sum(not layout.fits(sequence) for sequence, _ in examples):
        log.warning("%s: %d references are longer than max_length leaves room for; the loss is of their beginning",
                    title, longer)
    examples = [(sequence[:layout.max_length], prompt) for sequence, prompt in examples]
    engine, longest = Engine(model), max(map(len, prompts))
    written_by = engine.generation_by(longest, min(settings.batch_size, len(prompts)))
    if drafted := drafted_for(engine, min(settings.batch_size, len(prompts)), settings):
        written_by += f", {drafted} tokens drafted by prompt lookup"
    elif settings.lookup not in (AUTO, 0):
        log.warning("%s: no prompt lookup, because Performer's sums cannot take tokens back", title)
    log.info("%s: %d articles of %d to %d tokens, attention by %s", title, len(prompts), min(map(len, prompts)),
             longest, written_by)
    with Bar(title, total=len(prompts)) as bar:
        written = write_tokens(engine, tokenizer, prompts, settings, bar.advance)
    engine.release()
    counted = settings.beams == 1 and engine.takes_back
    passes = count_passes(prompts, written, engine.continuations.cpu(), ALONE) if counted else None
    losses = reference_losses(model, examples, tokenizer.pad_token_id, settings.batch_size)
    return [{"id": row["id"], "summary": summary, "reference": row["reference"], "loss": loss, "tokens": tokens,
             "cut": len(row["article"]) + len(layout.separator) - len(prompt), "written_by": written_by,
             **({"later_tokens": len(own) - 1, "passes": passes[i]} if passes else {})}
            for i, (row, prompt, own, summary, (loss, tokens)) in enumerate(zip(
                rows, prompts, written, as_text(tokenizer, written), losses, strict=True))]
