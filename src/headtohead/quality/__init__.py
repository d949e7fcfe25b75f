"""How good the summaries are: ROUGE, BLEU, loss and fact recall, each with a bootstrap interval.

`scoring.score` is the way in; `measures` and `intervals` need numpy and sacrebleu alone, so that the report
can compare two variants article by article without loading the scorers.
"""
