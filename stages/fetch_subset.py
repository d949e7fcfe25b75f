"""Read articles from the chosen source, clean and sample them, and write each split as JSON Lines."""

import shutil
from pathlib import Path

from headtohead.data.records import write_jsonl
from headtohead.data.sources import read_splits
from headtohead.params import read_params
from headtohead.progress import console
from headtohead.stage import run

SUBSET = Path("data/subset")


def main() -> None:
    params = read_params()
    splits, dropped = read_splits(params.chosen.data, params.seed)
    shutil.rmtree(SUBSET, ignore_errors=True)
    for split, rows in splits.items():
        write_jsonl(SUBSET / f"{split}.jsonl", rows)
    console.print(", ".join(f"{len(rows):,} {split}" for split, rows in splits.items()), "articles")
    for reason, count in dropped.items():
        console.print(f"dropped {count:,} {reason}")


if __name__ == "__main__":
    run(main)
