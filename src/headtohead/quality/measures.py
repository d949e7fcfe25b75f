"""Every measure as a function of per-article columns and of how often each article is drawn.

Drawing each article once gives the measure itself, drawing with replacement its bootstrap; so a number and
its interval can never be of two different things.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sacrebleu
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = Mapping[str, Sequence[Any]]

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
BLEU = "bleu"
LOSS = "loss"
FACT_RECALL = "fact_recall"


def measure(name: str, articles: Columns, weights: Array) -> Array:
    """The measure `name` for each row of `weights`.

    Args:
        articles: columns of equal length: rouge1, rouge2, rougeL, rougeLsum (F1, 0..1); bleu_statistics
            (as `bleu_statistics` gives them); loss (nats per token) and tokens; facts_found and facts (counts).
        weights: [rows, articles], how often each article is drawn.

    Returns:
        [rows]; NaN where no drawn article has a fact.
    """
    match name:
        case "bleu":
            return corpus_bleu(weights @ np.asarray(articles["bleu_statistics"], dtype=float))
        case "loss":
            tokens = np.asarray(articles["tokens"], dtype=float)
            return _share(weights, np.asarray(articles["loss"], dtype=float) * tokens, tokens)
        case "fact_recall":
            return _share(weights, np.asarray(articles["facts_found"], dtype=float),
                          np.asarray(articles["facts"], dtype=float))
        case _:
            scores = np.asarray(articles[name], dtype=float)
            return _share(weights, scores, np.ones_like(scores))


def measure_all(names: Sequence[str], articles: Columns) -> dict[str, float]:
    """Each measure with every article drawn once."""
    return {name: float(measure(name, articles, np.ones((1, _length(articles))))[0]) for name in names}


def available(articles: Columns) -> list[str]:
    """The measures that these columns allow."""
    return [*ROUGE, BLEU, *([LOSS] if LOSS in articles else []), *([FACT_RECALL] if "facts" in articles else [])]


def bleu_statistics(summaries: Sequence[str], references: Sequence[str], tokenizer: str) -> list[list[int]]:
    """What corpus BLEU sums over articles: words of the summary and of the reference, matches, n-grams (1 to 4)."""
    scores = [sacrebleu.sentence_bleu(summary, [reference], tokenize=tokenizer)
              for summary, reference in zip(summaries, references, strict=True)]
    return [[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores]


def corpus_bleu(statistics: Array) -> Array:
    """sacrebleu's default corpus BLEU, 0..1, of each row of summed statistics [rows, 10] -> [rows]."""
    return np.array([
        sacrebleu.BLEU.compute_bleu(correct=row[2:6], total=row[6:], sys_len=row[0], ref_len=row[1],
                                    smooth_method="exp").score / 100
        for row in statistics.astype(int).tolist()
    ])


def _share(weights: Array, above: Array, below: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray((weights @ above) / (weights @ below))


def _length(articles: Columns) -> int:
    return len(next(iter(articles.values())))
