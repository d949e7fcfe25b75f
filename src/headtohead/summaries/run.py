"""Summaries in windows: batches of similar length within each, results in the order of the articles."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import overload

import torch
from transformers import PreTrainedTokenizerBase

from headtohead.inference.engine import Engine
from headtohead.inference.generation import write_aloud, write_summaries
from headtohead.inference.predictions import layout_for
from headtohead.models.checkpoints import load, vocabulary
from headtohead.models.gpt2 import GPT2, best_device
from headtohead.profiling.machine import measured_here
from headtohead.records import DataError, Record
from headtohead.stage import out_of_memory
from headtohead.summaries.routing import Rule, rule_for
from headtohead.summaries.settings import Wishes, digest_of, settings_of, short_digest
from headtohead.tokens.layout import Layout
from headtohead.tokens.tokenizer import encode

log = logging.getLogger(__name__)

WINDOW = 8  # batches read ahead, to put articles of similar length into one


@overload
def summarize(texts: Iterator[str], model: str | Path | Rule, *, max_length: int | None = ...,  # type: ignore[overload-overlap]
              max_new_tokens: int | None = ..., beams: int | None = ..., batch_size: int | None = ...
              ) -> Iterator[str]: ...


@overload
def summarize(texts: Iterable[str], model: str | Path | Rule, *, max_length: int | None = ...,
              max_new_tokens: int | None = ..., beams: int | None = ..., batch_size: int | None = ...
              ) -> list[str]: ...


def summarize(texts: Iterable[str], model: str | Path | Rule, *, max_length: int | None = None,
              max_new_tokens: int | None = None, beams: int | None = None, batch_size: int | None = None
              ) -> list[str] | Iterator[str]:
    """A summary of each text, in their order; a text without words has an empty one.

    Args:
        texts: a list, which gives a list; or an iterator, which is read as far as needed and gives an iterator.
        model: a `models/V/S` folder, or a function from an article's length in tokens to such a folder.
        max_length: tokens of article and summary together; what does not fit is cut from the article's end, and
            `logging` warns of it. None is the length of the model's training.
        max_new_tokens, beams, batch_size: None leaves them to the model's training and preset.

    Raises:
        ValueError, RuntimeError: a setting or a model cannot be used, or memory is short; says what to change.
    """
    if isinstance(texts, str):
        raise TypeError("texts is one text; put it in a list")
    summarizer = Summarizer(rule_for(model), Wishes(max_length, max_new_tokens, beams, batch_size))
    articles = ({"id": str(number), "article": text} for number, text in enumerate(texts, 1))
    summaries = _summaries(summarizer, articles)
    return summaries if isinstance(texts, Iterator) else list(summaries)


def _summaries(summarizer: "Summarizer", articles: Iterable[Record]) -> Iterator[str]:
    for window in summarizer.windows(articles):
        rows = summarizer.rows(window)
        if cut := sum(row["cut"] > 0 for row in rows):
            log.warning("%d of %d articles did not fit and were cut", cut, len(rows))
        yield from (row["summary"] for row in rows)


class Summarizer:
    """Summarizes each article with the checkpoint that a rule names for its length.

    Raises:
        DataError: there is no such checkpoint, or a setting cannot be used.
    """

    def __init__(self, rule: Rule, wishes: Wishes) -> None:
        self._rule, self._wishes = rule, wishes
        self._checkpoints: dict[str, Checkpoint] = {}
        self._first = self._checkpoint(1)  # its tokenizer measures the articles

    def windows(self, articles: Iterable[Record], alone: bool = False) -> Iterator[list[Record]]:
        """The articles in lists of a few batches each, or one by one."""
        remaining, size = iter(articles), 1 if alone else WINDOW * self._first.settings.generate.batch_size
        while window := list(islice(remaining, size)):
            yield window

    def rows(self, articles: list[Record], on_done: Callable[[int], None] = lambda count: None) -> list[Record]:
        """Articles {"id", "article"} with their summaries, in their order.

        Args:
            on_done: called after each batch with its number of summaries.

        Returns:
            For each {"id", "summary", "model", "tokens" (of the article), "cut" (how many of them did not fit),
            "cut_share", "key" (identifies what it was made from)}.
        """
        encoded = self._encoded(articles)
        chosen = [self._checkpoint(len(ids)) if ids else None for ids in encoded]
        summaries = [""] * len(articles)
        for checkpoint in dict.fromkeys(chosen):
            places = [place for place, one in enumerate(chosen) if one is checkpoint]
            if checkpoint is None:
                on_done(len(places))
                continue
            self._check_tokenizer(checkpoint)
            written = checkpoint.write([encoded[place] for place in places], on_done)
            for place, summary in zip(places, written, strict=True):
                summaries[place] = summary
        return list(map(_row, articles, encoded, chosen, summaries))

    def aloud(self, article: Record, tell: Callable[[str], object]) -> Record:
        """One article's row; its summary is told piece by piece as it is written."""
        [ids] = self._encoded([article])
        checkpoint = self._checkpoint(len(ids)) if ids else None
        return _row(article, ids, checkpoint, checkpoint.write_aloud(ids, tell) if checkpoint else "")

    def wrong(self, row: Record, article: Record) -> str | None:
        """Why a finished row is not what this summarizer makes of an article; None if it is."""
        made_by, made_of = row["key"].split("-")
        if row["id"] != article["id"]:
            return f"is of article {row['id']!r}, and the input has {article['id']!r} there"
        if made_of != short_digest(article["article"]):
            return f"article {row['id']!r} had another text"
        if row["tokens"] and made_by != self._checkpoint(row["tokens"]).digest:
            return f"{row['model']} wrote it, and that, its weights or a setting is another now"
        return None

    def _encoded(self, articles: list[Record]) -> list[list[int]]:
        return [one.ids for one in encode(self._first.tokenizer, [article["article"] for article in articles])]

    def _check_tokenizer(self, checkpoint: "Checkpoint") -> None:
        if checkpoint is not self._first and vocabulary(checkpoint.tokenizer) != vocabulary(self._first.tokenizer):
            raise DataError(f"{checkpoint.path} has another tokenizer than {self._first.path}; only models of one run "
                            "can share the articles")

    def _checkpoint(self, tokens: int) -> "Checkpoint":
        path = str(self._rule(tokens))
        if path not in self._checkpoints:
            self._checkpoints[path] = Checkpoint(path, self._wishes)
        return self._checkpoints[path]


class Checkpoint:
    """A trained model with its settings; it is loaded when it is first needed."""

    def __init__(self, path: str, wishes: Wishes) -> None:
        self.path, self.settings = path, settings_of(Path(path), wishes)
        self.digest = digest_of(Path(path), self.settings)

    def write(self, articles: list[list[int]], on_done: Callable[[int], None]) -> list[str]:
        """The summaries of articles, given as token ids."""
        with self._memory():
            return write_summaries(self._engine, self.tokenizer, [self._layout.prompt(ids) for ids in articles],
                                   self.settings.generate, on_done)

    def write_aloud(self, article: list[int], tell: Callable[[str], object]) -> str:
        """The summary of one article, told while it is written."""
        with self._memory():
            return write_aloud(self._engine, self.tokenizer, self._layout.prompt(article), self.settings.generate, tell)

    def cut(self, article: list[int]) -> int:
        """How many of an article's tokens do not fit."""
        return max(0, len(article) - (self._layout.room or len(article)))

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[GPT2, PreTrainedTokenizerBase]:
        model, tokenizer = load(self.path, backend=self.settings.backend)
        model.config.attention_table = measured_here()
        with self._memory():
            model.to(best_device(), getattr(torch, self.settings.generate.precision))
        return model, tokenizer

    @cached_property
    def _engine(self) -> Engine:
        with self._memory():
            return Engine(self._loaded[0])

    @cached_property
    def _layout(self) -> Layout:
        return layout_for(*self._loaded, self.settings.generate, self.settings.max_length)

    @contextmanager
    def _memory(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not out_of_memory(error):
                raise
            lower = [f"{name} (is {getattr(self.settings.generate, name)})" for name in ("batch_size", "beams")]
            raise DataError(f"out of memory; lower {' or '.join(lower)}") from error


def _row(article: Record, ids: list[int], checkpoint: Checkpoint | None, summary: str) -> Record:
    cut = checkpoint.cut(ids) if checkpoint else 0
    return {"id": article["id"], "summary": summary, "model": checkpoint and checkpoint.path, "tokens": len(ids),
            "cut": cut, "cut_share": round(cut / len(ids), 3) if ids else 0.0,
            "key": f"{checkpoint.digest if checkpoint else ''}-{short_digest(article['article'])}"}
