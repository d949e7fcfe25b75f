"""ROUGE and BLEU as one `evaluate.Metric`, which needs no script from a hub and so works offline."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from headtohead.params import ENGLISH
from headtohead.quality.language import bleu_tokenizer, rouge_tokenizer
from headtohead.quality.measures import BLEU, ROUGE, bleu_statistics, measure


def _import_evaluate() -> ModuleType:
    """`evaluate` without its pipelines, which would load transformers and torch: 0.7 s instead of 5.

    A module that is None cannot be imported; evaluate then behaves as if transformers were not installed.
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


TOGETHER: tuple[tuple[str, ...], ...] = (("rouge1", "rouge2"), ("rougeL",), ("rougeLsum",))  # in one pass


class English(DefaultTokenizer):
    """rouge-score's default tokenizer with its stemmer, which takes most of the time: it remembers each word's stem."""

    _stemmer: Any

    def __init__(self) -> None:
        super().__init__(use_stemmer=True)
        self._stemmer = SimpleNamespace(stem=cache(self._stemmer.stem))


class SummaryQuality(evaluate.Metric):  # type: ignore[name-defined]
    """`SummaryQuality().compute(predictions=[...], references=[...])`: rouge1, rouge2, rougeL, rougeLsum, bleu, 0..1.

    A reference is a text, or a list of acceptable texts: ROUGE is then the best over them, separately for each type,
    and BLEU counts what any of them has. ROUGE is the mean F1 over articles, BLEU that of the whole corpus. Each
    sentence is on its own line: rougeLsum takes newlines as sentence boundaries. `by_article=True` adds `articles`, the
    columns that `measures.measure` reads: one F1 per article and type of ROUGE, and the counts for BLEU.

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
        tokenizer = rouge_tokenizer(self._language) or English()
        scorers = {names: RougeScorer(names, tokenizer=tokenizer) for names in TOGETHER}
        scores = [_rouge(summary, alike, scorers) for summary, alike in zip(predictions, texts, strict=True)]
        articles: dict[str, list[Any]] = {name: [score[name] for score in scores] for name in ROUGE}
        articles["bleu_statistics"] = bleu_statistics(predictions, texts, bleu_tokenizer(self._language))
        values = {name: measure(name, articles) for name in (*ROUGE, BLEU)}
        return values | ({"articles": articles} if by_article else {})


def _rouge(summary: str, references: Sequence[str], scorers: Mapping[tuple[str, ...], RougeScorer]) -> dict[str, float]:
    """As `RougeScorer.score_multi`, in less time: the F1 of each type, each the best over `references`.

    No common subsequence is longer than all words in common, so no rougeL and no rougeLsum is above its reference's
    rouge1: references that can no longer be the best are left out.
    """
    ngrams, *subsequences = scorers
    counted = [scorers[ngrams].score(text, summary) for text in references]
    best = {name: max(float(score[name].fmeasure) for score in counted) for name in ngrams}
    unigrams = [float(score["rouge1"].fmeasure) for score in counted]
    likeliest = sorted(zip(unigrams, references, strict=True), reverse=True)
    for names in subsequences:
        (name,) = names
        best[name] = 0.0
        for most, text in likeliest:
            if most <= best[name]:
                break
            best[name] = max(best[name], float(scorers[names].score(text, summary)[name].fmeasure))
    return best
