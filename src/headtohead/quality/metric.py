"""ROUGE and BLEU behind one `evaluate.Metric`, which needs no script from a hub and so works offline."""

import importlib
import sys
from types import ModuleType
from typing import Any

from rouge_score.rouge_scorer import RougeScorer

from headtohead.params import ENGLISH
from headtohead.quality.language import bleu_tokenizer, rouge_tokenizer
from headtohead.quality.measures import BLEU, ROUGE, bleu_statistics, measure_all


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


class SummaryQuality(evaluate.Metric):  # type: ignore[name-defined]
    """`SummaryQuality().compute(predictions=[...], references=[...])`: rouge1, rouge2, rougeL, rougeLsum, bleu, 0..1.

    ROUGE is the mean F1 over articles, BLEU that of the whole corpus. Sentences stand on lines of their own:
    rougeLsum takes newlines for sentence boundaries. `by_article=True` adds `articles`, the columns that
    `measures.measure` reads: one F1 per article and type of ROUGE, and the counts that BLEU is made of.

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
        return evaluate.MetricInfo(description="ROUGE and BLEU of summaries", citation="",
                                   features=datasets.Features({"predictions": text, "references": text}))

    def _compute(self, predictions: list[str], references: list[str], by_article: bool = False) -> dict[str, Any]:
        scorer = RougeScorer(list(ROUGE), use_stemmer=True, tokenizer=rouge_tokenizer(self._language))
        scores = [scorer.score(reference, summary) for summary, reference in zip(predictions, references, strict=True)]
        articles: dict[str, list[Any]] = {name: [float(score[name].fmeasure) for score in scores] for name in ROUGE}
        articles["bleu_statistics"] = bleu_statistics(predictions, references, bleu_tokenizer(self._language))
        values = measure_all([*ROUGE, BLEU], articles)
        return values | ({"articles": articles} if by_article else {})
