"""ROUGE and BLEU behind one `evaluate.Metric`, which needs no script from a hub and so works offline."""

import importlib
import sys
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer, Tokenizer

from headtohead.params import ENGLISH
from headtohead.quality.language import bleu_tokenizer, rouge_tokenizer
from headtohead.quality.measures import BLEU, ROUGE, bleu_statistics, measure


def _import_evaluate() -> ModuleType:
    """`evaluate` without its pipelines, which would load transformers and torch: 0.7 s instead of 5.

    A module that is None cannot be imported; evaluate then does what it does where transformers is not installed.
    """
    if "transformers" in sys.modules:
        return importlib.import_module("evaluate")
    sys.modules["transformers"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("evaluate")
    finally:
        del sys.modules["transformers"]


evaluate = _import_evaluate()
datasets = importlib.import_module("datasets")


class Cached(Tokenizer):
    """Another tokenizer that remembers texts: a summary meets several references, and a reference every training."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenize = lru_cache(maxsize=100_000)(tokenizer.tokenize)

    def tokenize(self, text: str) -> list[str]:
        return self._tokenize(text)


class SummaryQuality(evaluate.Metric):  # type: ignore[name-defined]
    """`SummaryQuality().compute(predictions=[...], references=[...])`: rouge1, rouge2, rougeL, rougeLsum, bleu, 0..1.

    A reference is a text, or a list of texts that would all do: ROUGE is then the best over them, each type for itself,
    and BLEU counts what any of them has. ROUGE is the mean F1 over articles, BLEU that of the whole corpus. Sentences
    stand on lines of their own: rougeLsum takes newlines for sentence boundaries. `by_article=True` adds `articles`,
    the columns that `measures.measure` reads: one F1 per article and type of ROUGE, and the counts that BLEU is made
    of.

    Args:
        language: of the texts; one of `params.LANGUAGES`.
    """

    def __init__(self, language: str = ENGLISH, **settings: Any) -> None:
        self._language = language
        super().__init__(keep_in_memory=True, **settings)

    def _build_data_dir(self) -> str:
        """Nothing is kept, so no folder is made: the base class would make one in the user's home."""
        return str(self._data_dir_root)

    def _info(self) -> Any:
        text = datasets.Value("string")
        return evaluate.MetricInfo(description="ROUGE and BLEU of summaries", citation="", features=[
            datasets.Features({"predictions": text, "references": references})
            for references in (datasets.Sequence(text), text)])

    def _compute(self, predictions: list[str], references: list[str] | list[list[str]], by_article: bool = False
                 ) -> dict[str, Any]:
        texts = [[reference] if isinstance(reference, str) else reference for reference in references]
        tokenizer = Cached(rouge_tokenizer(self._language) or DefaultTokenizer(use_stemmer=True))
        scores = [_rouge(summary, alike, tokenizer) for summary, alike in zip(predictions, texts, strict=True)]
        articles: dict[str, list[Any]] = {name: [score[name] for score in scores] for name in ROUGE}
        articles["bleu_statistics"] = bleu_statistics(predictions, texts, bleu_tokenizer(self._language))
        values = {name: measure(name, articles) for name in (*ROUGE, BLEU)}
        return values | ({"articles": articles} if by_article else {})


def _rouge(summary: str, references: Sequence[str], tokenizer: Tokenizer) -> dict[str, float]:
    """As `RougeScorer.score_multi`, in less time: the F1 of each type, each the best over `references`.

    Nothing in common is longer than all words in common, so no rougeL and no rougeLsum is above its reference's
    rouge1. References that can no longer be the best are left out.
    """
    counted = [RougeScorer(["rouge1", "rouge2"], tokenizer=tokenizer).score(text, summary) for text in references]
    unigrams = [float(score["rouge1"].fmeasure) for score in counted]
    best = {"rouge1": max(unigrams), "rouge2": max(float(score["rouge2"].fmeasure) for score in counted)}
    for name in ("rougeL", "rougeLsum"):
        best[name] = 0.0
        for bound, text in sorted(zip(unigrams, references, strict=True), reverse=True):
            if bound <= best[name]:
                break
            score = RougeScorer([name], tokenizer=tokenizer).score(text, summary)[name]
            best[name] = max(best[name], float(score.fmeasure))
    return best
