"""ROUGE and BLEU of summaries, article by article."""

from collections.abc import Sequence
from typing import Any

from rouge_score.rouge_scorer import RougeScorer

from headtohead.quality.language import bleu_tokenizer, rouge_tokenizer
from headtohead.quality.measures import ROUGE, bleu_statistics


def by_article(summaries: Sequence[str], references: Sequence[str], language: str) -> dict[str, list[Any]]:
    """The columns that `measures.measure` reads: F1 of each type of ROUGE, 0..1, and the counts BLEU is made of.

    Sentences stand on lines of their own: rougeLsum takes newlines for sentence boundaries.
    """
    scorer = RougeScorer(list(ROUGE), use_stemmer=True, tokenizer=rouge_tokenizer(language))
    scores = [scorer.score(reference, summary) for summary, reference in zip(summaries, references, strict=True)]
    return {**{name: [float(score[name].fmeasure) for score in scores] for name in ROUGE},
            "bleu_statistics": bleu_statistics(summaries, references, bleu_tokenizer(language))}
