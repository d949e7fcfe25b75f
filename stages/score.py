"""Score one variant's summaries, or a baseline's: ROUGE, BLEU, loss and facts, of each training and over all."""

import json

from headtohead.beside import halved
from headtohead.inputs import run_identity
from headtohead.params import read_params
from headtohead.paths import BASELINES, FACTS, QUALITY, Run, details, metrics
from headtohead.quality.language import choose
from headtohead.quality.reading import read_articles, read_predictions
from headtohead.quality.scoring import over_seeds, score
from headtohead.records import Record, read_jsonl, write_json
from headtohead.stage import run


def main(variant: str) -> None:
    params = read_params()
    facts, articles, of = list(read_jsonl(FACTS)), read_articles(), run_identity(params.preset)
    language = choose(params.chosen.score.language, (row["article"] for row in articles["test"].values()))
    runs = [Run(variant, seed) for seed in ([params.seed] if variant in BASELINES else params.seeds)]
    halved(lambda ours: write_json(ours.quality, {**score(predictions(ours), facts, articles, language), "run": of}),
           runs)
    flat, rest = over_seeds([json.loads(ours.quality.read_text(encoding="utf-8")) for ours in runs])
    write_json(metrics(variant, QUALITY), flat)
    write_json(details(variant, QUALITY), {**rest, "run": of})


def predictions(ours: Run) -> list[Record]:
    """All that a training wrote; the baselines write of the test set alone."""
    files = [ours.predictions, *filter(lambda file: file.exists(), [ours.further])]
    return [row for file in files for row in read_predictions(file)]


if __name__ == "__main__":
    run(main)
