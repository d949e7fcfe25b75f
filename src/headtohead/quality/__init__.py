"""How good the summaries are: ROUGE, BLEU, loss, fact recall and precision, each with an interval.

`scoring.score` and `scoring.over_seeds` are the way in; `measures` needs numpy, scipy and sacrebleu alone, so that the
report can compare variants article by article without loading the scorers.
"""
