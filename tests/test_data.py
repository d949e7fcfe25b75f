"""From files to prompts and labels: what people bring, and the edges of what fits."""

import json
import math
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import datasets
import huggingface_hub
import pandas as pd
import pytest
from conftest import MAX_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from headtohead.articles.cleaning import SHINGLE, resemblance, sketch
from headtohead.articles.files import Table
from headtohead.articles.folders import locate
from headtohead.articles.newswire import newswire
from headtohead.articles.sources import open_splits
from headtohead.inputs import identity, pretrained_files, pretrained_source
from headtohead.models.batches import IGNORED, collate, pad_left
from headtohead.params import Data, Tokenizer
from headtohead.records import DataError, read_jsonl, write_jsonl
from headtohead.tokens.layout import Layout
from headtohead.tokens.splits import lengths, tokenize_splits
from headtohead.tokens.tokenizer import encode, pretrained_tokenizer, separator_ids, train_tokenizer

ARTICLES = [{"id": f"a{i}", "article": f"Report {i}: “Zürich” said,\nthat {i} people came. " + "More. " * 60,
             "highlights": f"{i} people came.\nZürich spoke."} for i in range(40)]


def data(path, **changes) -> Data:
    return Data(**{"source": "files", "path": path and str(path), "article": "article", "summary": "highlights",
                   "train": 20, "validation": 5, "test": 5} | changes)


def save(rows, path, **options):
    table = pd.DataFrame(rows)
    if path.suffix in (".csv", ".tsv"):
        table.to_csv(path, index=False, **{"sep": "\t" if path.suffix == ".tsv" else ","} | options)
    elif path.suffix in (".jsonl", ".json"):
        table.to_json(path, orient="records", lines=path.suffix == ".jsonl", force_ascii=False)
    else:
        table.to_parquet(path)
    return path


def read(settings, seed=1):
    """Splits as lists, and the tallies, complete."""
    splits, tallies = open_splits(settings, seed)
    return {name: list(rows) for name, rows in splits.items()}, tallies


def dropped(tallies):
    return dict(sum((tally.dropped for tally in tallies), Counter()))


def same_articles(splits, originals=ARTICLES):
    """All that was read is in the originals, letter by letter but for space at the ends."""
    by_id = {row["id"]: row for row in originals}
    for row in (row for rows in splits.values() for row in rows):
        assert row["article"] == by_id[row["id"]]["article"].strip()
        assert row["summary"] == by_id[row["id"]]["highlights"].strip()


FORMATS = [".csv", ".tsv", ".json", ".jsonl", ".parquet"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_one_file_of_any_format_becomes_three_splits(tmp_path, suffix):
    splits, tallies = read(data(save(ARTICLES, tmp_path / f"news{suffix}")))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 20, "validation": 5, "test": 5}
    assert [(tally.rows, tally.kept, tally.used) for tally in tallies] == [(40, 40, 30)]
    assert not dropped(tallies)
    assert len({row["id"] for rows in splits.values() for row in rows}) == 30
    same_articles(splits)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl"])
def test_text_files_in_any_of_the_usual_encodings(tmp_path, encoding, suffix):
    path = save(ARTICLES, tmp_path / f"news{suffix}")
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    splits, tallies = read(data(path))
    same_articles(splits)
    assert encoding.removesuffix("-sig") in tallies[0].read_as


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_file_may_have_another_delimiter_and_the_header_tells(tmp_path, delimiter):
    splits, _ = read(data(save(ARTICLES, tmp_path / "NEWS.csv", sep=delimiter).rename(tmp_path / "NEWS.CSV")))
    same_articles(splits)


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=60)


@given(texts=st.lists(cells, min_size=1, max_size=8), suffix=st.sampled_from(FORMATS),
       encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_what_was_written_is_read_quotes_line_breaks_and_all(tmp_path_factory, texts, suffix, encoding):
    rows = [{"article": f"{i} {text}", "extra": None, "highlights": text} for i, text in enumerate(texts, 1)]
    path = save(rows, tmp_path_factory.mktemp("any") / f"news{suffix}")
    if suffix != ".parquet":
        path.write_bytes(path.read_bytes().decode().encode(encoding))
    assert [(row["id"], row["article"], row["summary"]) for row in Table(path, "article", "highlights").rows()] == [
        (str(i), f"{i} {text}".strip(), text.strip()) for i, text in enumerate(texts, 1)]


@pytest.mark.parametrize("text", [
    '{"data": [{"article": "One.", "highlights": "1"}], "version": 2}',
    '[\n {"article": "One.",\n "highlights": "1"}\n]\n',
    '{"article": "One.", "highlights": "1"}\n\n{"article": "Two.", "highlights": "2"}\n',
])
def test_json_comes_as_a_list_a_list_inside_an_object_or_lines(tmp_path, text):
    (tmp_path / "news.json").write_text(text)
    assert next(Table(tmp_path / "news.json", "article", "highlights").rows()) == {
        "id": "1", "article": "One.", "summary": "1"}


def test_the_seed_decides_the_sample(tmp_path):
    path = save(ARTICLES, tmp_path / "news.csv")
    first, again, other = (read(data(path), seed)[0] for seed in (1, 1, 2))
    assert first == again != other


def test_a_folder_keeps_its_splits_and_other_column_names_are_parameters(tmp_path):
    renamed = [{"text": row["article"], "abstract": row["highlights"]} for row in ARTICLES]
    save(renamed[:30], tmp_path / "train.parquet")
    save(renamed[30:35], tmp_path / "val.csv")
    save(renamed[35:], tmp_path / "test.jsonl")
    splits, _ = read(data(tmp_path, article="text", summary="abstract"))
    assert {row["article"] for row in splits["test"]} == {row["text"].strip() for row in renamed[35:]}


STORIES = [{"id": row["id"], "article": row["article"], "highlights": row["summary"]}
           for row in newswire("train", 60, seed=6, words=(120, 200), distractors=0.2)]


def edited(article, n):
    """Some ways in which one story appears twice."""
    return [article + " Updated at noon.", article.upper(), "Breaking news. " + article,
            "  " + article.replace(". ", ".  "), article.replace(" a ", " the ", 1), article[:-40]][n % 6]


@pytest.mark.parametrize("suffix", FORMATS)
def test_splits_never_share_an_article_or_a_near_duplicate(tmp_path, suffix):
    near = [row | {"id": "b" + row["id"], "article": edited(row["article"], i)} for i, row in enumerate(STORIES)]
    path = save(STORIES + near, tmp_path / f"news{suffix}")
    splits, tallies = read(data(path, train=40, validation=10, test=10))
    assert dropped(tallies) == {"near duplicates": 50, "exact duplicates": 10}
    stories = [row["id"].removeprefix("b") for rows in splits.values() for row in rows]
    assert len(set(stories)) == len(stories) == 60


def test_different_articles_are_no_duplicates_though_they_share_phrases(tmp_path):
    ending = " Sign up here for our daily letter, and read more stories like this one on our front page." * 2
    rows = [row | {"article": row["article"] + ending} for row in STORIES]
    _, tallies = read(data(save(rows, tmp_path / "news.csv"), train=40, validation=10, test=10))
    assert not dropped(tallies)


@given(shared=st.integers(0, 60), only=st.integers(1, 60), seed=st.integers(0, 9))
def test_resemblance_is_that_of_the_sets_of_word_sequences(shared, only, seed):
    """Against brute force, within what an estimate from 64 hashes may err (4 standard deviations)."""
    words = [str(i) for i in random.Random(seed).sample(range(10_000), shared + 2 * only)]
    a, b = words[:shared + only], words[:shared] + words[shared + only:]

    def shingles(text):
        return {tuple(text[i:i + SHINGLE]) for i in range(max(1, len(text) - SHINGLE + 1))}

    true = len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))
    assert resemblance(sketch(" ".join(a)), sketch(" ".join(b))) == pytest.approx(
        true, abs=4 * math.sqrt(true * (1 - true) / 64) + 1e-9)


def test_near_duplicates_are_found_in_scripts_without_spaces(tmp_path):
    """The first letter of each sentence differs: between stops and spaces nothing is the same."""
    letters = [chr(code) for code in range(0x4E00, 0x9000)]

    def sentence(*seed):
        return "".join(random.Random(str(seed)).choices(letters, k=200))

    stories = [[sentence(i, j) for j in range(10)] for i in range(9)]
    near = [["的" + text[1:] for text in story] for story in stories]
    rows = [{"id": str(i), "article": "。".join(story), "highlights": "短"} for i, story in enumerate(stories + near)]
    _, tallies = read(data(save(rows, tmp_path / "news.csv"), train=5, validation=2, test=2))
    assert dropped(tallies) == {"near duplicates": 9}


def test_a_training_article_that_is_in_the_test_split_is_dropped_from_training(tmp_path):
    save(ARTICLES[:30], tmp_path / "train.csv")
    save(ARTICLES[30:35], tmp_path / "validation.csv")
    save(ARTICLES[25:30] + ARTICLES[35:], tmp_path / "test.csv")
    splits, tallies = read(data(tmp_path, test=10))
    assert dropped(tallies) == {"exact duplicates": 5}
    assert not {row["id"] for row in splits["train"]} & {row["id"] for row in splits["test"]}


def test_every_reason_to_drop_a_row_is_counted(tmp_path):
    rows = [*ARTICLES, {"id": "e", "article": "", "highlights": "x"}, {"id": "f", "article": "Some", "highlights": " "},
            {"id": "g", "article": " ... ", "highlights": "x"}, {"id": "h", "article": None, "highlights": None},
            {"id": "l", "article": "-" * 400 + " Then the text begins, after a long rule.", "highlights": "A rule."},
            {"id": "i", "article": "Short.", "highlights": "A summary that is longer than the article."},
            ARTICLES[3] | {"id": "j"}, ARTICLES[3] | {"id": "k", "article": ARTICLES[3]["article"] + " Updated."}]
    _, tallies = read(data(save(rows, tmp_path / "news.csv")))
    assert dropped(tallies) == {"without text": 4, "summary longer than article": 1, "exact duplicates": 1,
                                "near duplicates": 1}
    assert tallies[0].row() == {"input": "news.csv", "read as": "CSV, utf-8, separated by ,", "rows": 48, "used": 30,
                                **dropped(tallies)}


ROW = '"a long enough article","short"\n'
BROKEN = {  # file name, its bytes, what the message says
    "empty": ("news.csv", b"", r"news\.csv is empty"),
    "cut off in a quoted cell": ("news.csv", f'article,highlights\n{ROW}"cut o'.encode(), r"row 2 \(line 3\).*cut off"),
    "cut off between cells": ("news.csv", f'article,highlights\n{ROW}"cut off"'.encode(),
                              r"row 2 \(ends on line 3\): has 1 cells, and the header has 2; the file is cut off"),
    "quotes not doubled": ("news.csv", f'article,highlights\n{ROW}"he said "no" to me",x\n'.encode(),
                           r"row 2 \(line 3\).*must be doubled"),
    "too many cells": ("news.csv", f"article,highlights\n{ROW}one, two, three\n".encode(), r"row 2 .*: has 3 cells"),
    "damaged UTF-8": ("news.csv", "article,highlights\nZürich zählt,x\n".encode() + b"Z\xfcrich,y\n",
                      r"line 3: is not UTF-8, though all before it is"),
    "neither encoding": ("news.csv", b"article,highlights\nZ\xfcrich,x\nZ\x81\x8d,y\n",
                         r"line 3: is neither UTF-8 nor cp1252"),
    "odd UTF-16": ("news.csv", f"article,highlights\n{ROW}".encode("utf-16")[:-1],
                   r"neither UTF-8 nor utf-16.*cut off"),
    "two columns of one name": ("news.csv", f"article,highlights,article\n{ROW}".encode(),
                                r"2 columns named 'article'"),
    "a line that is no JSON": ("news.jsonl", b'{"article": "a", "highlights": "b"}\n{"article":\n',
                               r"line 2: is not JSON"),
    "a line that is no object": ("news.jsonl", b'{"article": "a", "highlights": "b"}\n[1, 2]\n',
                                 r"line 2: is not an object"),
    "a list as text": ("news.jsonl", b'{"article": ["a", "b"], "highlights": "b"}\n',
                       r"row 1: column 'article' holds list"),
    "half a character": ("news.jsonl", b'{"article": "a \\ud800", "highlights": "b"}\n',
                         r"row 1: column 'article' holds half"),
    "nested beyond reason": ("news.jsonl", b"[" * 100_000 + b"\n", r"line 1: is not JSON of articles"),
    "cut off JSON": ("news.json", b'[{"article": "a", "highlights": "b"}, {"arti',
                     r"news\.json, its text: is not JSON, or cut off"),
    "JSON of another shape": ("news.json", b'{"a": [1], "b": [2]}', r"must hold one list of objects"),
    "no Parquet": ("news.parquet", b"PAR1 cut off", r"cannot be read as Parquet"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named_with_the_place_and_what_to_do(tmp_path, case):
    name, content, message = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as told:
        read(data(tmp_path / name))
    assert str(tmp_path / name) in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("cut", [10, 1000, 4000])
def test_a_cut_off_parquet_file_is_refused(tmp_path, cut):
    path = save(ARTICLES, tmp_path / "news.parquet")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"news\.parquet cannot be read as Parquet"):
        read(data(path))


@given(position=st.floats(0, 1), garbage=st.binary(min_size=1, max_size=4), suffix=st.sampled_from(FORMATS))
def test_damage_anywhere_is_read_or_refused_and_nothing_else(tmp_path_factory, position, garbage, suffix):
    path = save(ARTICLES, tmp_path_factory.mktemp("damaged") / f"news{suffix}")
    content = path.read_bytes()
    at = int(position * len(content))
    path.write_bytes(content[:at] + garbage + content[at + len(garbage):])
    with suppress(DataError):
        read(data(path))


def test_clear_errors(tmp_path):
    path = save(ARTICLES, tmp_path / "news.csv")
    with pytest.raises(DataError, match=r"no column 'text' \(data.article\); its columns are id, article, highlights\. "
                                        "Is it 'article'"):
        read(data(path, article="text"))
    with pytest.raises(DataError, match="Is it 'highlights'"):
        read(data(path, summary="summary"))
    with pytest.raises(DataError, match=r"40 articles to use, of 40 rows; data.* and data\.train ask for 510"):
        read(data(path, train=500))
    with pytest.raises(DataError, match="no such file or folder"):
        locate(data(tmp_path / "nothing.csv"))
    with pytest.raises(DataError, match="is an address; download"):
        locate(data("https://example.org/news.csv"))
    with pytest.raises(DataError, match="is neither a file nor a folder"):
        locate(data("/dev/null"))
    (tmp_path / "news.txt").write_text("x")
    with pytest.raises(DataError, match=r"format \.txt is unknown"):
        locate(data(tmp_path / "news.txt"))
    (tmp_path / "folder").mkdir()
    save(ARTICLES, tmp_path / "folder" / "train.csv")
    with pytest.raises(DataError, match="no validation file"):
        locate(data(tmp_path / "folder"))
    rows = [row | {"id": "same"} for row in ARTICLES]
    with pytest.raises(DataError, match=r"row 2: another article has the id 'same' too"):
        read(data(save(rows, tmp_path / "ids.csv")))
    (tmp_path / "broken.jsonl").write_text('{"a": 1}\n{"a":\n')
    with pytest.raises(DataError, match="line 2: is not JSON"):
        list(read_jsonl(tmp_path / "broken.jsonl"))


@pytest.mark.parametrize("own", ["data/subset/train.jsonl", "models", "./data/../data", ".dvc/cache/x.csv"])
def test_what_the_pipeline_writes_is_no_input(tmp_path, monkeypatch, own):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / own)
    for path in (own, str(tmp_path / own), "link"):
        with pytest.raises(DataError, match="which the pipeline itself writes"):
            locate(data(path))


HUB = {"name": "abisee/cnn_dailymail", "config": "3.0.0", "revision": "96df5e6"}


@pytest.fixture
def hub(monkeypatch):
    """The network's edge: what the hub would send, and how many rows were taken from it."""
    taken = Counter()

    def send(split):
        for i in range(1, 3000):
            taken[split] += 1
            article = " ".join([split, str(i), *map(str, range(i, 99 * i, i + 1))])
            yield {"id": f"{split}{i}", "article": article, "highlights": "Numbers."}

    def load_dataset(name, config, *, revision, split, streaming):
        assert (name, config, revision, streaming) == (*HUB.values(), True)
        return datasets.IterableDataset.from_generator(send, gen_kwargs={"split": split})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *args, **rest: None)
    return taken


def test_the_hub_is_streamed_no_further_than_needed(hub):
    splits, tallies = read(data(None, source="hub", hub=HUB))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 20, "validation": 5, "test": 5}
    assert all(row["article"].startswith(f"{name} ") for name, rows in splits.items() for row in rows)
    assert all(count < 1100 for count in hub.values())
    assert [tally.used for tally in tallies] == [5, 5, 20]
    again, _ = read(data(None, source="hub", hub=HUB))
    assert again == splits
    with pytest.raises(DataError, match=r"no column 'text' .*its columns are id, article, highlights"):
        read(data(None, source="hub", hub=HUB, article="text"))
    with pytest.raises(DataError, match=r"test of abisee/cnn_dailymail has 2,999 articles.*data\.test asks for 6,000"):
        read(data(None, source="hub", hub=HUB, test=6000))


def test_without_a_network_the_hub_says_at_once_what_to_use_instead(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"the hub does not answer .* use data\.source: files .*or the default preset"):
        read(data(None, source="hub", hub=HUB))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(DataError, match=r"the hub does not answer"):
        read(data(None, source="hub", hub=HUB))
    with pytest.raises(DataError, match=r"model\.pretrained gpt2@main: no such folder"):
        pretrained_source("gpt2@main")
    assert time.monotonic() - started < 10


def test_an_edited_file_has_another_identity(tmp_path):
    path = save(ARTICLES, tmp_path / "news.csv")
    before = identity({"all": path})
    assert identity({"all": path}) == before
    path.write_text(path.read_text().replace("Report 3", "Report 4"))
    assert identity({"all": path}) != before


def test_a_pretrained_folder_is_found_from_a_queued_experiment_and_a_hub_name_is_downloaded(tmp_path, monkeypatch):
    (tmp_path / "gpt2").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "gpt2" / name).write_text("{}")
    queued = tmp_path / "workspace/.dvc/tmp/exps/tmpabc"
    (queued / ".git").mkdir(parents=True)
    monkeypatch.chdir(queued)
    assert Path(pretrained_source("../gpt2")).samefile(tmp_path / "gpt2")
    assert list(pretrained_files("../gpt2")) == ["config.json", "tokenizer.json"]
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download",
                        lambda name, revision, **_: asked.append((name, revision)) or str(tmp_path / "gpt2"))
    assert pretrained_source("openai-community/gpt2@abc") == pretrained_source("openai-community/gpt2")
    assert asked == [("openai-community/gpt2", "abc"), ("openai-community/gpt2", None)]
    assert pretrained_files("openai-community/gpt2@abc") == {}


ids = st.lists(st.integers(5, 99), max_size=30)


@given(article=ids, summaries=st.lists(ids, min_size=2, max_size=2),
       separator=st.lists(st.integers(1, 4), min_size=1, max_size=3), length=st.integers(1, 40), new=st.integers(1, 20))
def test_an_article_has_the_same_room_whatever_its_summary(article, summaries, separator, length, new):
    room = length - len(separator) - new
    if room < 1:
        with pytest.raises(ValueError, match="leave no room for an article"):
            Layout(separator, end=0, max_length=length, new_tokens=new)
        return
    layout = Layout(separator, end=0, max_length=length, new_tokens=new)
    assert layout.prompt(article) == article[:room] + separator
    for summary in summaries:
        sequence, prompt = layout.example(article, summary)
        assert sequence == layout.prompt(article) + summary + [0]
        assert prompt == len(layout.prompt(article))
        assert layout.fits(sequence) == (len(sequence) <= length)


def test_where_a_long_articles_summary_ends_follows_from_its_length_alone():
    """Cut to fit its summary, every long sequence ended at max_length, and learned positions learned to end there."""
    layout = Layout([7], end=0, max_length=20, new_tokens=8)
    ends = [len(layout.example([5] * 50, [6] * words)[0]) for words in range(8)]
    assert ends == [13, 14, 15, 16, 17, 18, 19, 20]


def test_prompts_at_the_edges():
    layout = Layout([7], end=0, max_length=6, new_tokens=3)
    assert layout.example([], [8, 9]) == ([7, 8, 9, 0], 1)  # empty article
    assert layout.example([1, 2, 3, 4, 5], [8]) == ([1, 2, 7, 8, 0], 3)  # article longer than its room
    long, _ = layout.example([1, 2], [8, 9, 10])
    assert long == [1, 2, 7, 8, 9, 10, 0]  # no summary is cut
    assert not layout.fits(long)
    assert Layout([7], 0, None, 3).prompt([1] * 9) == [1] * 9 + [7]  # no limit


@given(rows=st.lists(st.tuples(st.lists(st.integers(1, 9), min_size=2, max_size=8), st.integers(1, 8)),
                     min_size=1, max_size=4), weight=st.sampled_from([0.0, 0.25, 1.0]),
       length=st.sampled_from([None, 8, 11]))
def test_labels_stand_at_their_own_positions_and_padding_never_counts(rows, weight, length):
    examples = [(sequence, min(prompt, len(sequence) - 1)) for sequence, prompt in rows]
    batch = collate(examples, 0, weight, length)
    assert {tensor.shape for tensor in batch.values()} == {(len(rows), length or max(len(row) for row, _ in rows))}
    for row, (sequence, prompt) in enumerate(examples):
        for i in range(batch["input_ids"].shape[1]):
            expected = 0.0 if i >= len(sequence) else weight if i < prompt else 1.0
            assert batch["weights"][row, i] == expected
            label = batch["labels"][row, i]
            assert label == (batch["input_ids"][row, i] if expected else IGNORED)
        assert batch["input_ids"][row].tolist() == sequence + [0] * (batch["input_ids"].shape[1] - len(sequence))


def test_prompts_end_at_the_same_place():
    tokens, mask = pad_left([[1], [2, 3, 4]], filler=0)
    assert tokens.tolist() == [[0, 0, 1], [2, 3, 4]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_tokenizer(tokenizer, text):
    tokens = encode(tokenizer, [text])[0].ids
    assert tokenizer.decode(tokens).strip() == text.strip()


def test_a_special_tokens_name_in_an_article_is_only_text(tokenizer):
    tokens = [text.ids for text in encode(tokenizer, ["before <|endoftext|> and <|summary|> after", ""])]
    assert tokenizer.eos_token_id not in tokens[0]
    assert not set(separator_ids(tokenizer)) & set(tokens[0])
    assert tokens[1] == []


def test_the_trained_tokenizer_saw_the_training_split_alone_and_saves_its_separator(tmp_path, tokenizer):
    assert len(separator_ids(tokenizer)) == 1
    tokenizer.save_pretrained(tmp_path)
    settings = Tokenizer(vocab_size=None, separator="\nTL;DR:", max_length=MAX_LENGTH)
    pretrained = pretrained_tokenizer(settings, str(tmp_path), [])
    assert pretrained.decode(separator_ids(pretrained)) == "\nTL;DR:"
    assert pretrained.pad_token_id == pretrained.eos_token_id
    pretrained.save_pretrained(tmp_path / "again")
    assert separator_ids(type(pretrained).from_pretrained(tmp_path / "again")) == separator_ids(pretrained)


def test_fact_distances_count_tokens(tmp_path, tokenizer):
    article, summary = "The mayor, Ann Lee, opened a bridge on Monday.", "On Monday a bridge was opened by Ann Lee."
    facts = [{"kind": "person", "value": "Ann Lee", "start": article.index("Ann")},
             {"kind": "day", "value": "Monday", "start": article.index("Monday")}]
    write_jsonl(tmp_path / "subset/test.jsonl", [{"id": "1", "article": article, "summary": summary, "facts": facts}])
    tokenize_splits(tokenizer, tmp_path / "subset", tmp_path / "tokens")
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


def test_tokenised_again_every_byte_is_the_same(tmp_path, tokenizer):
    """Or no other run, here or elsewhere, would find what depends on it in DVC's run cache."""
    write_jsonl(tmp_path / "subset/train.jsonl", [{"id": "1", "article": "a b", "summary": "b"}])
    for out in ("one", "two"):
        tokenize_splits(tokenizer, tmp_path / "subset", tmp_path / out)
    one, two = ({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
                for folder in (tmp_path / "one", tmp_path / "two"))
    assert one == two


def test_what_is_cut_and_what_is_left_out_is_counted(tmp_path, tokenizer):
    rows = [{"id": "1", "article": "x", "summary": "Short."}, {"id": "2", "article": "x", "summary": "a b " * 40},
            {"id": "3", "article": "c " * 90, "summary": "Short."}]
    write_jsonl(tmp_path / "subset/train.jsonl", rows)
    tokenize_splits(tokenizer, tmp_path / "subset", tmp_path / "tokens")
    articles, summaries = ([len(e.ids) for e in encode(tokenizer, [row[side] for row in rows])]
                           for side in ("article", "summary"))
    assert lengths("train", Layout([1], 0, max_length=64, new_tokens=12), tmp_path / "tokens") == {
        "split": "train", "articles": 3, "longest article": max(articles), "cut": 1,
        "longest summary": max(summaries), "too long": 1}
    enough = Layout([1], 0, max_length=1 + articles[1] + summaries[1] + 1, new_tokens=12)
    assert lengths("train", enough, tmp_path / "tokens")["too long"] == 0


def test_vocabulary_has_at_most_the_size_asked_for():
    settings = Tokenizer(vocab_size=280, separator="<|summary|>", max_length=MAX_LENGTH)
    assert len(train_tokenizer(settings, ["abc abd abe " * 50] * 9)) <= 280
