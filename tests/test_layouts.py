"""Files are found as people, the hub and `datasets` lay them out; of a folder that lacks something it is said what."""

import gzip

import datasets
import pytest
from closure import ROOT
from test_data import ARTICLES, data, dropped, read, same_articles, save

from headtohead.articles.folders import locate
from headtohead.records import DataError

TRAIN, VALIDATION, TEST = ARTICLES[:30], ARTICLES[30:35], ARTICLES[35:]
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
SUFFIXES = [".csv", ".tsv", ".json", ".jsonl", ".parquet"]


def write(folder, name, rows):
    folder.mkdir(parents=True, exist_ok=True)
    return save(rows, folder / name)


def shards(folder, split="train", name="train-{:05}-of-{:05}.parquet", count=3):
    """The hub's own division of a table; here the rows have no ids, so that they are numbered through."""
    rows = [{key: row[key] for key in ("article", "highlights")} for row in SPLITS[split]]
    size = -(-len(rows) // count)
    return [write(folder, name.format(number, count), rows[number * size:][:size]) for number in range(count)]


def hub(folder):
    for split, count in (("train", 3), ("validation", 1), ("test", 1)):
        shards(folder, split, split + "-{:05}-of-{:05}.parquet", count)


def named(folder):
    for split, word in (("train", "train"), ("validation", "dev"), ("test", "test")):
        write(folder, f"cnn_dailymail.{word}.jsonl", SPLITS[split])
    (folder / "dataset_infos.json").write_text("{}")


def in_folders(folder):
    for split, rows in SPLITS.items():
        write(folder / split, "0000.parquet", rows)


def in_one_folder(folder):
    hub(folder / "data")
    (folder / "README.md").write_text("# About")
    (folder / ".cache").mkdir()
    write(folder / ".cache", "train.csv", TRAIN)


def exact_beside_others(folder):
    for split, rows in SPLITS.items():
        write(folder, f"{split}.csv", rows)
        write(folder, f"{split}_old.csv", rows[:2])
    write(folder, "train_and_test.csv", ARTICLES)


def saved(folder):
    splits = {split: datasets.Dataset.from_list(rows) for split, rows in SPLITS.items()}
    datasets.DatasetDict(splits).save_to_disk(folder, num_shards={"train": 3, "validation": 1, "test": 1})


def texts(folder, rows=ARTICLES):
    for number, row in enumerate(rows):
        for side in ("article", "highlights"):
            file = folder / side / ("sport" if number % 2 else "") / f"{row['id']}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(row[side], encoding="utf-8")
    (folder / "article/.trash").mkdir()
    (folder / "article/.trash/a0.txt").write_text("Old.")


def texts_in_folders(folder):
    for split, rows in SPLITS.items():
        texts(folder / split, rows)


def in_ascending_parts(folder):
    hub(folder)
    for file in folder.glob("train-*"):
        file.unlink()
    for number in range(11):
        write(folder, f"train-{number}.jsonl", TRAIN[3 * number:][:3] or TRAIN[:1])


@pytest.mark.parametrize("lay_out", [hub, named, in_folders, in_one_folder, exact_beside_others, saved,
                                     texts_in_folders, in_ascending_parts])
def test_a_folder_is_read_as_it_lies(tmp_path, lay_out):
    lay_out(tmp_path / "news")
    splits, tallies = read(data(tmp_path / "news"))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 20, "validation": 5, "test": 5}
    originals = {row["article"].strip(): row for row in ARTICLES}
    for name, rows in splits.items():
        assert len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            original = originals[row["article"]]
            assert original in SPLITS[name]
            assert row["summary"] == original["highlights"].strip()
    assert tallies[2].rows in (30, 31)


@pytest.mark.parametrize("lay_out", [lambda folder: datasets.Dataset.from_list(ARTICLES).save_to_disk(folder), texts])
def test_a_folder_of_one_table_is_split(tmp_path, lay_out):
    lay_out(tmp_path / "news")
    splits, tallies = read(data(tmp_path / "news"))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 20, "validation": 5, "test": 5}
    assert [(tally.rows, tally.used) for tally in tallies] == [(40, 30)]
    texts_ = {row["article"] for rows in splits.values() for row in rows}
    assert texts_ < {row["article"].strip() for row in ARTICLES}


def test_a_table_in_parts_is_one_table(tmp_path):
    shards(tmp_path)
    write(tmp_path, "val.csv", VALIDATION)
    write(tmp_path, "test.jsonl", TEST)
    files = locate(data(tmp_path))
    assert [file.name for file in files["train"]] == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    splits, tallies = read(data(tmp_path, train=30))
    assert {row["id"] for row in splits["train"]} == {str(number) for number in range(1, 31)}  # numbered through
    assert [(tally.name, tally.read_as) for tally in tallies] == [
        ("test.jsonl", "JSON Lines, utf-8"), ("val.csv", "CSV, utf-8, separated by ,"),
        ("train-00000-of-00003.parquet and 2 more", "Parquet")]


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".parquet"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_text_may_be_packed_by_gzip(tmp_path, suffix, encoding):
    plain = save(ARTICLES, tmp_path / f"news{suffix}")
    packed = tmp_path / f"NEWS{suffix}.GZ"
    packed.write_bytes(gzip.compress(plain.read_text(encoding="utf-8").encode(encoding)))
    splits, tallies = read(data(packed))
    same_articles(splits)
    assert tallies[0].read_as == read(data(plain))[1][0].read_as.replace("utf-8", encoding)


@pytest.mark.parametrize("damage", [lambda packed: packed[:-20], lambda packed: packed[:50] + b"xx" + packed[52:],
                                    lambda packed: b"no gzip"])
def test_damaged_gzip_is_named(tmp_path, damage):
    file = tmp_path / "news.csv.gz"
    file.write_bytes(damage(gzip.compress(save(ARTICLES, tmp_path / "news.csv").read_bytes())))
    with pytest.raises(DataError, match=r"news\.csv\.gz cannot be read: "):
        read(data(file))


@pytest.mark.parametrize("cut", [10, 1000])
def test_damaged_arrow_is_named(tmp_path, cut):
    saved(tmp_path)
    [file, *_] = sorted((tmp_path / "train").glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"data-00000-of-00003\.arrow cannot be read as Arrow"):
        read(data(tmp_path))


def without(name):
    return lambda folder: (hub(folder), *(file.unlink() for file in folder.glob(name)))


LACKING = {
    "a split": (without("validation*"), r"has no validation file; there are test-00000-of-00001\.parquet, train-.*\. A "
                "folder needs one each of train, validation and test: validation.jsonl, NAME.validation.jsonl, "
                r"validation-00000-of-00003.parquet and so on, or a folder validation \(formats: .csv, .*\.gz\b.*; or "
                r"folders article and highlights \(data.article, data.summary\) with one .txt file for each article"),
    "anything": (lambda folder: folder.mkdir(), "has no train file; there are no files"),
    "a part": (without("train-00001*"), "train-00000-of-00003.parquet, train-00002-of-00003.parquet are not all parts"),
    "the last part": (without("train-00002*"), "are not all parts of one"),
    "one division": (lambda folder: (hub(folder), shards(folder, count=2)), "are not all parts of one"),
    "one format": (lambda folder: [hub(folder), *(write(folder, name, TEST) for name in ("test.csv", "test.tsv"))],
                   "has both test.csv and test.tsv"),
    "one name": (lambda folder: (hub(folder), write(folder, "dev_test.csv", TEST)), "is it validation or test"),
    "one data set": (lambda folder: (hub(folder / "1.0.0"), hub(folder / "3.0.0")),
                     r"has splits in 1\.0\.0/ and 3\.0\.0/; name one of them in data\.path"),
    "a table": (lambda folder: (without("test*")(folder), (folder / "test").mkdir()), "test has no file of articles"),
    "a summary": (lambda folder: (texts(folder), (folder / "highlights/a0.txt").unlink()),
                  r"article/a0\.txt: there is no .*highlights/a0\.txt to go with it"),
    "an article": (lambda folder: (texts(folder), (folder / "article/sport/a1.txt").unlink()),
                   r"highlights/sport/a1\.txt: there is no .*article/sport/a1\.txt to go with it"),
    "texts": (lambda folder: [(folder / side).mkdir(parents=True) for side in ("article", "highlights")],
              r"article has no \.txt files"),
    "a file that was saved": (lambda folder: (saved(folder), (folder / "test/data-00000-of-00001.arrow").unlink()),
                              "test lacks data-00000-of-00001.arrow, which its state.json names"),
    "a state": (lambda folder: (saved(folder), (folder / "test/state.json").write_text("{}")),
                r"test/state\.json is not as `datasets` writes it"),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_a_folder_lacks_is_named_with_what_is_looked_for(tmp_path, case):
    lay_out, message = LACKING[case]
    lay_out(tmp_path / "news")
    with pytest.raises(DataError, match=message) as told:
        locate(data(tmp_path / "news"))
    assert "\n" not in str(told.value)


def test_the_documents_name_every_layout_that_is_tried_here():
    text = (ROOT / "docs/data.md").read_text()
    assert all(name in text for name in ("train-00000-of-00003.parquet", "NAME.train.jsonl", "save_to_disk", ".csv.gz"))


def test_excel_may_name_the_separator_in_a_line_of_its_own(tmp_path):
    for number, (line, separator) in enumerate([("sep=;", ";"), ('"SEP=|"', "|"), ("sep=\t", "\t"), ("sep=^", "^")]):
        table = save(ARTICLES, tmp_path / f"{number}.csv", sep=separator).read_text(encoding="utf-8")
        (tmp_path / f"{number}.csv").write_bytes(f"{line}\r\n{table}".encode("utf-16"))
        splits, tallies = read(data(tmp_path / f"{number}.csv"))
        same_articles(splits)
        assert tallies[0].read_as == f"CSV, utf-16, separated by {separator}".replace("\t", "tab")
        assert not dropped(tallies)


@pytest.mark.parametrize(("columns", "likely"), [
    (["article", "summary1", "summary2", "summary3"], "summary1"),
    (["article", "Summary", "summary1"], "Summary"),
    (["article", "abstract", "summary"], "summary"),
    (["article", "sumary", "xyz"], "sumary"),
    (["article", "x", "y"], None),
])
def test_the_likeliest_column_is_suggested_and_of_several_the_first(tmp_path, columns, likely):
    (tmp_path / "news.csv").write_text(",".join(columns))
    with pytest.raises(DataError, match=r"no column 'highlights' \(data\.summary\)") as told:
        read(data(tmp_path / "news.csv"))
    assert str(told.value).endswith(f"Set data.summary: {likely}" if likely else f"are {', '.join(columns)}")
