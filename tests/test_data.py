"""From files to prompts and labels: what people bring, and the edges of what fits."""

import json
from pathlib import Path

import datasets
import pandas as pd
import pytest
from conftest import MAX_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from headtohead.data.inputs import identity, locate, pretrained_files, pretrained_source, resolve
from headtohead.data.prompts import IGNORED, Layout, collate, pad_left
from headtohead.data.records import DataError, near_duplicate_key, read_jsonl, write_jsonl
from headtohead.data.sources import read_splits
from headtohead.data.tokenizer import encode, pretrained_tokenizer, separator_ids, train_tokenizer
from headtohead.data.tokens import tokenize_splits
from headtohead.params import Data, Tokenizer

ARTICLES = [{"id": f"a{i}", "article": f"Report {i}: “Zürich” said,\nthat {i} people came. " + "More. " * 60,
             "highlights": f"{i} people came.\nZürich spoke."} for i in range(40)]


def data(path, **changes) -> Data:
    return Data(**{"source": "files", "path": path and str(path), "article": "article", "summary": "highlights",
                   "train": 20, "validation": 5, "test": 5} | changes)


def save(rows, path):
    table = pd.DataFrame(rows)
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        table.to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_one_file_of_any_format_becomes_three_splits(tmp_path, suffix):
    splits, dropped = read_splits(data(save(ARTICLES, tmp_path / f"news{suffix}")), seed=1)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 20, "validation": 5, "test": 5}
    assert not dropped
    originals = {row["id"]: row for row in ARTICLES}
    rows = [row for split in splits.values() for row in split]
    assert len({row["id"] for row in rows}) == 30
    for row in rows:
        assert row["article"] == originals[row["id"]]["article"].strip()
        assert row["summary"] == originals[row["id"]]["highlights"]


def test_the_seed_decides_the_sample(tmp_path):
    path = save(ARTICLES, tmp_path / "news.csv")
    first, again, other = (read_splits(data(path), seed)[0] for seed in (1, 1, 2))
    assert first == again != other


def test_a_folder_keeps_its_splits_and_other_column_names_are_parameters(tmp_path):
    renamed = [{"text": row["article"], "abstract": row["highlights"]} for row in ARTICLES]
    save(renamed[:30], tmp_path / "train.parquet")
    save(renamed[30:35], tmp_path / "val.csv")
    save(renamed[35:], tmp_path / "test.jsonl")
    splits, _ = read_splits(data(tmp_path, article="text", summary="abstract"), seed=1)
    assert {row["article"] for row in splits["test"]} == {row["text"].strip() for row in renamed[35:]}


def test_splits_never_share_an_article_or_a_near_duplicate(tmp_path):
    near = [row | {"id": "b" + row["id"], "article": row["article"].upper() + " Updated."} for row in ARTICLES]
    splits, dropped = read_splits(data(save(ARTICLES + near, tmp_path / "news.csv")), seed=3)
    keys = [near_duplicate_key(row["article"]) for rows in splits.values() for row in rows]
    assert dropped == {"duplicates": 40}
    assert len(set(keys)) == len(keys)


def test_a_training_article_that_is_in_the_test_split_is_dropped_from_training(tmp_path):
    save(ARTICLES[:30], tmp_path / "train.csv")
    save(ARTICLES[30:35], tmp_path / "validation.csv")
    save(ARTICLES[25:30] + ARTICLES[35:], tmp_path / "test.csv")
    splits, dropped = read_splits(data(tmp_path, test=10), seed=1)
    assert dropped == {"duplicates": 5}
    assert not {row["id"] for row in splits["train"]} & {row["id"] for row in splits["test"]}


def test_rows_without_text_are_dropped_and_counted(tmp_path):
    rows = [*ARTICLES, {"id": "e", "article": "", "highlights": "x"}, {"id": "f", "article": "Some", "highlights": " "}]
    _, dropped = read_splits(data(save(rows, tmp_path / "news.csv")), seed=1)
    assert dropped == {"without text": 2}


def test_clear_errors(tmp_path):
    path = save(ARTICLES, tmp_path / "news.csv")
    with pytest.raises(DataError, match=r"no column 'text' \(data.article\); its columns are id, article, highlights"):
        read_splits(data(path, article="text"), seed=1)
    with pytest.raises(DataError, match=r"data\.train asks for 500 articles, and 30 are left"):
        read_splits(data(path, train=500), seed=1)
    with pytest.raises(DataError, match="no such file or folder"):
        locate(str(tmp_path / "nothing.csv"))
    (tmp_path / "news.txt").write_text("x")
    with pytest.raises(DataError, match=r"format \.txt is unknown"):
        locate(str(tmp_path / "news.txt"))
    (tmp_path / "folder").mkdir()
    save(ARTICLES, tmp_path / "folder" / "train.csv")
    with pytest.raises(DataError, match="no validation file"):
        locate(str(tmp_path / "folder"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(DataError, match=r"broken\.parquet cannot be read as parquet"):
        read_splits(data(tmp_path / "broken.parquet"), seed=1)
    (tmp_path / "broken.jsonl").write_text('{"a": 1}\n{"a":\n')
    with pytest.raises(DataError, match="line 2: is not JSON"):
        list(read_jsonl(tmp_path / "broken.jsonl"))


HUB = {"name": "abisee/cnn_dailymail", "config": "3.0.0", "revision": "main"}


def test_the_hub_is_streamed_and_its_columns_are_parameters(monkeypatch):
    def load_dataset(name, config, *, revision, split, streaming):
        assert (name, config, revision, streaming) == (*HUB.values(), True)
        rows = [row | {"article": f"{split} {row['article']}"} for row in ARTICLES]
        return datasets.Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    splits, _ = read_splits(data(None, source="hub", hub=HUB), seed=1)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 20, "validation": 5, "test": 5}
    assert all(row["article"].startswith(f"{name} Report") for name, rows in splits.items() for row in rows)
    with pytest.raises(DataError, match="no column 'text'"):
        read_splits(data(None, source="hub", hub=HUB, article="text"), seed=1)


def test_without_a_network_the_hub_says_what_to_use_instead():
    with pytest.raises(DataError, match=r"cannot be read from the hub: .* use data\.source files"):
        read_splits(data(None, source="hub", hub=HUB), seed=1)


def test_an_edited_file_has_another_identity(tmp_path):
    path = save(ARTICLES, tmp_path / "news.csv")
    before = identity(locate(str(path)))
    assert identity(locate(str(path))) == before
    path.write_text(path.read_text().replace("Report 3", "Report 4"))
    assert identity(locate(str(path))) != before


def test_a_pretrained_folder_is_found_from_a_queued_experiment_and_a_hub_name_stays(tmp_path, monkeypatch):
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2/config.json").write_text("{}")
    queued = tmp_path / "workspace/.dvc/tmp/exps/tmpabc"
    queued.mkdir(parents=True)
    monkeypatch.chdir(queued)
    assert Path(pretrained_source("../gpt2")).samefile(tmp_path / "gpt2")
    assert list(pretrained_files("../gpt2")) == ["config.json"]
    assert pretrained_source("openai-community/gpt2") == "openai-community/gpt2"
    assert pretrained_files("openai-community/gpt2") == {}


def test_a_queued_experiment_finds_the_workspaces_files(tmp_path):
    here = tmp_path / ".dvc" / "tmp" / "exps" / "tmpabc"
    assert resolve("../news.csv", here) == tmp_path / "../news.csv"
    assert resolve("../news.csv", tmp_path) == tmp_path / "../news.csv"
    assert str(resolve("/data/news.csv", here)) == "/data/news.csv"


ids = st.lists(st.integers(5, 99), max_size=30)


@given(article=ids, summary=ids, separator=st.lists(st.integers(1, 4), min_size=1, max_size=3),
       length=st.integers(1, 40))
def test_what_does_not_fit_is_cut_from_the_article_alone(article, summary, separator, length):
    layout = Layout(separator, end=0, max_length=length)
    if len(separator) + len(summary) + 1 > length:
        with pytest.raises(ValueError, match="more than"):
            layout.example(article, summary)
        return
    sequence, prompt = layout.example(article, summary)
    kept = prompt - len(separator)
    assert sequence == article[:kept] + separator + summary + [0]
    assert kept == min(len(article), length - len(separator) - len(summary) - 1)


def test_prompts_at_the_edges():
    layout = Layout([7], end=0, max_length=6)
    assert layout.example([], [8, 9]) == ([7, 8, 9, 0], 1)  # empty article
    assert layout.example([1, 2, 3, 4, 5], [8]) == ([1, 2, 3, 7, 8, 0], 4)  # article longer than the limit
    assert layout.example([1, 2], [8, 9, 10, 11]) == ([7, 8, 9, 10, 11, 0], 1)  # a summary that alone fills it
    assert Layout([7], 0, None).prompt([1] * 9, reserve=99) == [1] * 9 + [7]  # no limit
    assert layout.prompt([1] * 9, reserve=5) == [7]


@given(rows=st.lists(st.tuples(st.lists(st.integers(1, 9), min_size=2, max_size=8), st.integers(1, 8)),
                     min_size=1, max_size=4), weight=st.sampled_from([0.0, 0.25, 1.0]))
def test_labels_stand_at_their_own_positions_and_padding_never_counts(rows, weight):
    examples = [(sequence, min(prompt, len(sequence) - 1)) for sequence, prompt in rows]
    batch = collate(examples, filler=0, article_weight=weight)
    for row, (sequence, prompt) in enumerate(examples):
        for i in range(batch["input_ids"].shape[1]):
            expected = 0.0 if i >= len(sequence) else weight if i < prompt else 1.0
            assert batch["weights"][row, i] == expected
            label = batch["labels"][row, i]
            assert label == (batch["input_ids"][row, i] if expected else IGNORED)
        assert batch["input_ids"][row, :len(sequence)].tolist() == sequence


def test_prompts_end_at_the_same_place():
    tokens, mask = pad_left([[1], [2, 3, 4]], filler=0)
    assert tokens.tolist() == [[0, 0, 1], [2, 3, 4]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_tokenizer(tokenizer, text):
    tokens = encode(tokenizer, [text])["input_ids"][0]
    assert tokenizer.decode(tokens).strip() == text.strip()


def test_a_special_tokens_name_in_an_article_is_only_text(tokenizer):
    tokens = encode(tokenizer, ["before <|endoftext|> and <|summary|> after", ""])["input_ids"]
    assert tokenizer.eos_token_id not in tokens[0]
    assert not set(separator_ids(tokenizer)) & set(tokens[0])
    assert tokens[1] == []


def test_the_trained_tokenizer_saw_the_training_split_alone_and_saves_its_separator(tmp_path, tokenizer):
    assert len(separator_ids(tokenizer)) == 1
    tokenizer.save_pretrained(tmp_path)
    settings = Tokenizer(vocab_size=None, separator="\nTL;DR:", max_length=MAX_LENGTH)
    pretrained = pretrained_tokenizer(settings, str(tmp_path))
    assert pretrained.decode(separator_ids(pretrained)) == "\nTL;DR:"
    assert pretrained.pad_token_id == pretrained.eos_token_id
    pretrained.save_pretrained(tmp_path / "again")
    assert separator_ids(type(pretrained).from_pretrained(tmp_path / "again")) == separator_ids(pretrained)


def test_fact_distances_count_tokens(tmp_path, tokenizer):
    article, summary = "The mayor, Ann Lee, opened a bridge on Monday.", "On Monday a bridge was opened by Ann Lee."
    facts = [{"kind": "person", "value": "Ann Lee", "start": article.index("Ann")},
             {"kind": "day", "value": "Monday", "start": article.index("Monday")}]
    write_jsonl(tmp_path / "subset/test.jsonl", [{"id": "1", "article": article, "summary": summary, "facts": facts}])
    tokenize_splits(tokenizer, tmp_path / "subset", MAX_LENGTH, tmp_path / "tokens")
    row = json.loads((tmp_path / "tokens/facts.jsonl").read_text())
    assert (row["set"], row["id"]) == ("test", "1")

    def count(text):
        return len(tokenizer(" " + text, add_special_tokens=False)["input_ids"])

    for fact, told in zip(facts, row["facts"], strict=True):
        # a word's first token is the one that its leading space begins
        start = count(article[:fact["start"]].rstrip()) if fact["start"] else 0
        mention = count(summary[:summary.index(fact["value"])].rstrip()) if summary.index(fact["value"]) else 0
        assert told["distance"] == count(article) - start + 1 + mention
        assert (told["kind"], told["value"]) == (fact["kind"], fact["value"])


def test_summaries_that_cannot_fit_are_told_before_any_training(tmp_path, tokenizer):
    rows = [{"id": "1", "article": "x", "summary": "Short."}, {"id": "2", "article": "x", "summary": "a b " * 40}]
    write_jsonl(tmp_path / "subset/train.jsonl", rows)
    needs = len(encode(tokenizer, [rows[1]["summary"]])["input_ids"][0]) + 2
    with pytest.raises(DataError, match=rf"1 of 2 summaries do not fit .* of article 2, needs at least {needs},"):
        tokenize_splits(tokenizer, tmp_path / "subset", MAX_LENGTH, tmp_path / "tokens")
    tokenize_splits(tokenizer, tmp_path / "subset", needs, tmp_path / "tokens")


def test_vocabulary_has_at_most_the_size_asked_for():
    settings = Tokenizer(vocab_size=280, separator="<|summary|>", max_length=MAX_LENGTH)
    assert len(train_tokenizer(settings, ["abc abd abe " * 50] * 9)) <= 280
