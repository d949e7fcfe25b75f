"""Read articles from the chosen source, clean and sample them, and write each split as JSON Lines."""

import shutil

from headtohead.articles.sources import open_splits
from headtohead.params import read_params
from headtohead.paths import ARTICLES, SUBSET
from headtohead.progress import Bar, console, print_table
from headtohead.records import write_json, write_jsonl
from headtohead.stage import run


def main() -> None:
    params = read_params()
    shutil.rmtree(SUBSET, ignore_errors=True)
    with Bar("reading articles", total=None) as bar:
        splits, tallies = open_splits(params.chosen.data, params.seed, bar.advance)
        counts = {split: write_jsonl(SUBSET / f"{split}.jsonl", rows) for split, rows in splits.items()}
        bar.tell_rate("rows")
    write_json(ARTICLES, {"splits": counts, "inputs": [tally.row() for tally in tallies]})
    console.print(", ".join(f"{count:,} {split}" for split, count in counts.items()), "articles")
    if tallies:
        print_table([tally.row() for tally in tallies])


if __name__ == "__main__":
    run(main)
