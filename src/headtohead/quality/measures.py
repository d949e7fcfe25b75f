"""Every measure as a function of per-article columns: over the whole test set, and what each article adds to it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sacrebleu
from numpy.typing import NDArray

from headtohead.statistics import estimate

Array = NDArray[np.float64]
Columns = Mapping[str, Sequence[Any]]

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
BLEU = "bleu"
LOSS = "loss"
FACT_RECALL = "fact_recall"
FACT_PRECISION = "fact_precision"
WRONG_FROM_ARTICLE = "wrong_from_article"


def measure(name: str, articles: Columns) -> float:
    """The measure `name` over all articles.

    Args:
        articles: columns of equal length: rouge1, rouge2, rougeL, rougeLsum (F1, 0..1); bleu_statistics (from the
            function of that name); loss (nats per token) and tokens; the counts facts and facts_found; the counts
            values (that the summary states), values_right and values_copied (wrong ones that the article states).

    Raises:
        KeyError: a column is missing.
        ZeroDivisionError: there is nothing to take a share of; see `available`.
    """
    if name == BLEU:
        return _corpus_bleu(_array(articles, "bleu_statistics").sum(0))
    above, below = _parts(name, articles)
    return float(above.sum()) / float(below.sum())


def by_article(name: str, articles: Columns) -> Array:
    """What each article contributes to a measure [articles].

    The mean is the measure itself, and the variance divided by the number of articles is its squared standard error, so
    every measure can be treated as a plain mean over articles. ROUGE is one; shares of sums are linearised (the delta
    method), and BLEU uses the jackknife's pseudo-values (Tukey 1958), shifted to its own value.

    Args:
        articles: see `measure`, which also says what is raised.
    """
    whole = measure(name, articles)
    if name == BLEU:
        statistics = _array(articles, "bleu_statistics")
        without = np.array([_corpus_bleu(rest) for rest in statistics.sum(0) - statistics])
        return whole + (len(without) - 1) * (without.mean() - without)
    above, below = _parts(name, articles)
    return whole + (above - whole * below) / below.mean()


def available(articles: Columns) -> list[str]:
    """The measures that these columns allow, without shares of zero."""
    shares = [name for name, needed in {LOSS: "tokens", FACT_RECALL: "facts", FACT_PRECISION: "values",
                                        WRONG_FROM_ARTICLE: "values"}.items()
              if needed in articles and _parts(name, articles)[1].any()]
    return [*ROUGE, BLEU, *shares]


def over_trainings(name: str, trainings: Sequence[Columns]) -> dict[str, float | None]:
    """A measure of several trainings' summaries of the same articles: the mean, its interval and the trainings' spread.

    Returns:
        {NAME, NAME_low, NAME_high, NAME_spread}: the 95 % interval over articles and trainings, None for one article;
        the standard deviation over trainings, None for one.
    """
    mean = float(np.mean([measure(name, articles) for articles in trainings]))
    scores = np.stack([by_article(name, articles) for articles in trainings])
    if scores.shape[1] < 2:
        return {name: mean, f"{name}_low": None, f"{name}_high": None, f"{name}_spread": None}
    found = estimate(scores)
    return {name: mean, f"{name}_low": found.low, f"{name}_high": found.high, f"{name}_spread": found.spread}


def bleu_statistics(summaries: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str) -> list[list[int]]:
    """What corpus BLEU sums over articles: words of the summary and of the reference, matches, n-grams (1 to 4)."""
    metric = sacrebleu.BLEU(tokenize=tokenizer, effective_order=True)  # otherwise it warns about short texts
    scores = [metric.sentence_score(summary, texts) for summary, texts in zip(summaries, references, strict=True)]
    return [[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores]


def _corpus_bleu(summed: Array) -> float:
    """sacrebleu's default corpus BLEU, 0..1, of summed statistics [10]."""
    row = summed.astype(int).tolist()
    return float(sacrebleu.BLEU.compute_bleu(correct=row[2:6], total=row[6:], sys_len=row[0], ref_len=row[1],
                                             smooth_method="exp").score) / 100


def _parts(name: str, articles: Columns) -> tuple[Array, Array]:
    """A measure's numerator and denominator for each article."""
    match name:
        case "loss":
            return _array(articles, LOSS) * _array(articles, "tokens"), _array(articles, "tokens")
        case "fact_recall":
            return _array(articles, "facts_found"), _array(articles, "facts")
        case "fact_precision":
            return _array(articles, "values_right"), _array(articles, "values")
        case "wrong_from_article":
            return _array(articles, "values_copied"), _array(articles, "values") - _array(articles, "values_right")
        case _:
            return _array(articles, name), np.ones(len(articles[name]))


def _array(articles: Columns, name: str) -> Array:
    return np.asarray(articles[name], dtype=float)
