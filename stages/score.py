"""Score one variant's summaries: ROUGE, BLEU, loss and fact recall, with bootstrap intervals."""

from pathlib import Path

from headtohead.data.records import read_jsonl, write_json
from headtohead.params import read_params
from headtohead.quality.language import choose
from headtohead.quality.rows import read_predictions
from headtohead.quality.scoring import score
from headtohead.stage import run

TEST = Path("data/subset/test.jsonl")


def main(variant: str) -> None:
    predictions = [row for path in (f"{variant}.jsonl", f"further/{variant}.jsonl")
                   for row in read_predictions(Path("data/predictions") / path)]
    params = read_params()
    language = choose(params.chosen.score.language, (row["article"] for row in read_jsonl(TEST)))
    flat, details = score(predictions, list(read_jsonl(Path("data/tokens/facts.jsonl"))), params.seed, language)
    write_json(Path(f"metrics/variants/{variant}/quality.json"), flat)
    write_json(Path(f"data/details/{variant}/quality.json"), details)


if __name__ == "__main__":
    run(main)
