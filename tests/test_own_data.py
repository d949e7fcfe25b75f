"""Articles and models of one's own in the pipeline: what is run, where, and what is noticed."""

import csv
import json
import re
import shutil

import pytest
from clone import Clone, executed

import headtohead
from headtohead.articles.newswire import newswire

STORIES = list(newswire("train", 64, seed=13, words=(50, 80), distractors=0.25))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return Clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(autouse=True)
def _as_before(clone):
    """Each test finds the clone's parameters as they were."""
    clone.run("git", "checkout", "-q", ".")


@pytest.fixture
def news(clone):
    """Articles of one's own, beside the repository: a table as spreadsheet programs of the West write it."""
    file = clone.path.parent / "news.csv"
    rows = [("“Zürich”, 5 €:\n" + row["article"].replace(". ", ".\n\n", 1), row["summary"] + "\nCafé; “quoted”", "", i)
            for i, row in enumerate(STORIES)]
    rows += [rows[3], (rows[4][0].upper() + " Updated.", "Café", "", ""), ("", "Nothing.", "", ""),
             ("Short.", "Longer than its article.", "", "")]
    with file.open("w", encoding="cp1252", newline="") as out:
        csv.writer(out, delimiter=";").writerows([("article", "highlights", "empty", "number"), *rows])
    return file


@pytest.mark.usefixtures("news")
def test_a_queued_experiment_runs_in_its_copy_and_finds_the_workspaces_files(clone):
    """Every kind of stage that has to find something; the sweep in test_pipeline.py runs the report in a copy."""
    clone.run("dvc", "exp", "run", "--queue", *sets("presets.smoke.data.source=files",
              "presets.smoke.data.path=../news.csv", "presets.smoke.data.train=40", "presets.smoke.data.validation=8",
              "presets.smoke.data.test=8", "presets.smoke.train.steps=2", "seeds=[13]"),
              "score@flash", "profile@flash")
    clone.run("dvc", "exp", "run", "--run-all")
    shown = json.loads(clone.run("dvc", "exp", "show", "--json"))
    [metrics] = [rev["data"]["metrics"] for experiment in shown[1]["experiments"] for rev in experiment["revs"]]
    quality, efficiency = (metrics[f"metrics/variants/flash/{kind}.json"]["data"] for kind in ("quality", "efficiency"))
    assert quality["rouge1"] >= 0
    assert "fact_recall" not in quality  # files know no facts
    assert efficiency["generate_ms"] > 0
    assert not list(clone.path.glob("models/*/*"))  # all of it was in the copy


def sets(*changes):
    return [word for change in changes for word in ("-S", change)]


def test_a_pretrained_model_in_a_folder_is_fine_tuned_and_noticed_when_it_changes(clone):
    folder = clone.path.parent / "pretrained"
    clone.run("dvc", "repro", "train@standard-13")
    shutil.copytree(clone.path / "models/standard/13", folder)  # as good a GPT-2 as any
    smoke = clone.path.joinpath("params.yaml").read_text().split("  smoke:")[1].split("\n    train:\n")[0]
    clone.edit(smoke, smoke.replace("vocab_size: 512", "vocab_size: null")
               .replace("pretrained: null", "pretrained: ../pretrained"))
    assert executed(clone.run("dvc", "repro", "train@flash-13"))[-1] == "train@flash-13"
    tuned, tokenizer = headtohead.load(clone.path / "models/flash/13")
    start, _ = headtohead.load(folder)
    assert tokenizer.init_kwargs["separator"] == "<|summary|>"
    moved = (tuned.transformer.wte.weight - start.transformer.wte.weight).abs().max()
    assert 0 < moved < 0.2  # twelve steps from there, not fresh weights
    assert executed(clone.run("dvc", "repro", "train@flash-13")) == ["fingerprint"]
    (folder / "generation_config.json").write_text("{}")
    assert executed(clone.run("dvc", "repro", "train@flash-13"))[-1] == "train@flash-13"


def test_an_edited_input_file_is_noticed(clone, news):
    smoke = clone.path.joinpath("params.yaml").read_text().split("  smoke:")[1].split("    tokenizer:")[0]
    edited = smoke.replace("source: newswire", "source: files").replace("path: null", "path: ../news.csv")
    clone.edit(smoke, re.sub(r"(validation|test): 16", r"\1: 8", edited.replace("train: 64", "train: 40")))
    clone.run("dvc", "repro", "fetch-subset")
    assert clone.json("data/details/articles.json")["inputs"] == [{
        "input": "news.csv", "read as": "CSV, cp1252, separated by ;", "rows": 68, "without text": 1,
        "exact duplicates": 1, "near duplicates": 1, "summary longer than article": 1, "used": 56}]
    article = json.loads((clone.path / "data/subset/test.jsonl").read_text().splitlines()[0])
    assert article["article"].startswith("“Zürich”, 5 €:\n")
    assert article["summary"].endswith("\nCafé; “quoted”")
    again = executed(clone.run("dvc", "repro", "fetch-subset"))
    news.write_bytes(news.read_bytes().replace(b". ", b"! ", 1))
    changed = executed(clone.run("dvc", "repro", "fetch-subset"))
    assert (again, changed) == (["fingerprint"], ["fingerprint", "fetch-subset"])
