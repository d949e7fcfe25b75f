"""Train or load the tokenizer, and turn every split into token ids."""

import shutil
from itertools import islice

from headtohead.inputs import pretrained_source
from headtohead.params import read_params
from headtohead.paths import LENGTHS, SUBSET
from headtohead.progress import Bar, print_table
from headtohead.records import count_rows, read_jsonl, write_json
from headtohead.stage import run
from headtohead.tokens.continuations import write_continuations
from headtohead.tokens.layout import Layout
from headtohead.tokens.splits import TOKENS, continuations_of, lengths, tokenize_splits
from headtohead.tokens.tokenizer import pretrained_tokenizer, separator_ids, train_tokenizer

SAMPLE = 200  # training texts on which a pretrained tokenizer is tried


def main() -> None:
    preset = read_params().chosen
    texts = (row[side] for row in read_jsonl(SUBSET / "train.jsonl") for side in ("article", "summary"))
    if preset.model.pretrained is not None:
        source = pretrained_source(preset.model.pretrained)
        tokenizer = pretrained_tokenizer(preset.tokenizer, source, list(islice(texts, SAMPLE)))
    else:
        tokenizer = train_tokenizer(preset.tokenizer, texts)
    shutil.rmtree(TOKENS, ignore_errors=True)
    with Bar("tokenizing", total=sum(count_rows(file) for file in SUBSET.glob("*.jsonl"))) as bar:
        tokenize_splits(tokenizer, SUBSET, on_done=bar.advance)
        bar.tell_rate("articles")
    write_continuations(continuations_of("train", tokenizer), TOKENS)
    layout = Layout(separator_ids(tokenizer), tokenizer.eos_token_id, preset.tokenizer.max_length,
                    preset.generate.max_new_tokens)
    rows = [lengths(file.stem, layout) for file in sorted(SUBSET.glob("*.jsonl"))]
    write_json(LENGTHS, rows)
    print_table(rows)


if __name__ == "__main__":
    run(main)
