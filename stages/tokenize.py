"""Train or load the tokenizer, and turn every split into token ids."""

import shutil
from pathlib import Path

from headtohead.data.inputs import pretrained_source
from headtohead.data.records import count_rows, read_jsonl
from headtohead.data.tokenizer import pretrained_tokenizer, train_tokenizer
from headtohead.data.tokens import TOKENS, tokenize_splits
from headtohead.params import read_params
from headtohead.progress import Bar
from headtohead.stage import run

SUBSET = Path("data/subset")


def main() -> None:
    preset = read_params().chosen
    if preset.model.pretrained is not None:
        tokenizer = pretrained_tokenizer(preset.tokenizer, pretrained_source(preset.model.pretrained))
    else:
        texts = (row[side] for row in read_jsonl(SUBSET / "train.jsonl") for side in ("article", "summary"))
        tokenizer = train_tokenizer(preset.tokenizer, texts)
    shutil.rmtree(TOKENS, ignore_errors=True)
    with Bar("tokenizing", total=sum(count_rows(file) for file in SUBSET.glob("*.jsonl"))) as bar:
        tokenize_splits(tokenizer, SUBSET, preset.tokenizer.max_length, on_done=bar.advance)
        bar.tell_rate("articles")


if __name__ == "__main__":
    run(main)
