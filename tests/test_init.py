"""`h2h init`: from a file with columns of any names to a preset that runs, without touching anything else."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from closure import ROOT
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from simulation import NOISE, OWN, World
from stand_in_hub import Repository, StandInHub, make_articles, make_model

from headtohead import cli
from headtohead.articles.newswire import newswire
from headtohead.init import deciding, fitting, measuring
from headtohead.init.columns import find
from headtohead.init.deciding import Device, Lengths, Shape
from headtohead.init.fitting import Cost
from headtohead.init.looking import look
from headtohead.init.writing import write_preset
from headtohead.params import STUDY, Params, ParamsError, Preset, read_params
from headtohead.records import DataError
from headtohead.statistics import ALPHA, compare, smallest_found
from stages import fetch_subset, tokenize

STORIES = list(newswire("train", 320, seed=2, words=(60, 90), distractors=0.2))
ROWS = [{"Nr": i, "Überschrift": " ".join(row["article"].split()[:3]), "Kurz; gesagt": row["summary"],
         "Volltext #1": row["article"], "Ressort": ["Sport", "Kultur"][i % 2]} for i, row in enumerate(STORIES)]
CPU, GPU = Device("2 cores", gpu=False, memory=2**33, bfloat16=False), Device("a GPU", gpu=True, memory=2**36,
                                                                            bfloat16=True)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A repository with the parameters and nothing else, where few steps are timed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "STEPS", 2)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return tmp_path


def h2h(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["h2h", *arguments])
    cli.main()


def refused(monkeypatch, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        h2h(monkeypatch, *arguments)
    return str(ended.value)


def chosen(folder: Path, name: str = "mine") -> Params:
    """The parameters, once the new preset is the one that runs."""
    text = (folder / "params.yaml").read_text().replace("preset: laptop ", f"preset: {name} ", 1)
    (folder / "params.yaml").write_text(text)
    return read_params()


def save(rows, path: Path) -> Path:
    table = pd.DataFrame(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep={".tsv": "\t", ".csv": ";"}[path.suffix], encoding="cp1252")
    return path


def test_a_file_with_odd_columns_becomes_a_preset_that_runs(folder, monkeypatch, capsys):
    save(ROWS, folder / "meine Texte.csv")
    h2h(monkeypatch, "init", "meine Texte.csv", "--minutes", "3000")
    said = capsys.readouterr().out
    assert "'Volltext #1'" in said
    assert "320 rows read, 320 usable" in said
    assert "nothing about quality" in said
    assert any(line.startswith("  dvc exp run -S preset=mine") for line in said.splitlines())
    preset = chosen(folder).chosen
    assert (preset.data.article, preset.data.summary) == ("Volltext #1", "Kurz; gesagt")
    assert "grid: true\n" in (folder / "params.yaml").read_text()  # as people write it
    assert preset.data.train + preset.data.validation + preset.data.test == 320
    fetch_subset.main()
    tokenize.main()
    rows = json.loads((folder / "data/details/lengths.json").read_text())
    assert {row["split"]: row["articles"] for row in rows} == {
        split: getattr(preset.data, split) for split in ("test", "train", "validation")}
    assert all(row["cut"] <= 0.1 * row["articles"] + 2 and row["too long"] <= 2 for row in rows)


def test_everything_else_in_the_file_stays_and_a_second_time_takes_force(folder, monkeypatch, capsys):
    before = (folder / "params.yaml").read_bytes()
    save(ROWS, folder / "a.csv")
    h2h(monkeypatch, "init", "a.csv")
    written = (folder / "params.yaml").read_bytes()
    assert written.startswith(before)
    assert "--force replaces it" in refused(monkeypatch, "init", "a.csv")
    h2h(monkeypatch, "init", "a.csv", "--name", "other")
    both = (folder / "params.yaml").read_bytes()
    assert both.startswith(written)
    (folder / "params.yaml").write_bytes(both.replace(b"\n  other:", b"\n\n  # A comment on other\n  other:"))
    h2h(monkeypatch, "init", "a.csv", "--force", "--article", "Volltext #1", "--summary", "Überschrift")
    again = (folder / "params.yaml").read_bytes()
    assert again.startswith(before)
    assert again.endswith(b"\n\n  # A comment on other\n  other:" + both.split(b"\n  other:")[1])
    assert read_params().presets["mine"].data.summary == "Überschrift"
    capsys.readouterr()


def test_a_pretrained_model_brings_vocabulary_and_limit_and_a_verdict_is_promised_only_if_there_is_time(
        folder, monkeypatch, capsys):
    save(ROWS, folder / "a.csv")
    make_model(folder / "gpt2", (row["article"] for row in STORIES), layers=1, width=32, heads=2)
    h2h(monkeypatch, "init", "a.csv", "--pretrained", "gpt2", "--minutes", "100000")
    assert re.search(r"differences of 0\.0\d\d\s+ROUGE-1", said := capsys.readouterr().out)
    assert "seeds=[13,14,15,16,17,18,19,20,21,22]" in said
    preset = chosen(folder).chosen
    assert preset.model.pretrained == "gpt2"
    assert preset.tokenizer.vocab_size is None
    fetch_subset.main()
    tokenize.main()
    h2h(monkeypatch, "init", "a.csv", "--pretrained", "gpt2", "--minutes", "0.1", "--force")
    assert "three seeds trained to the end take about" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_every_format_is_looked_at(folder, name):
    save(ROWS, folder / name)
    found = look(name, None, None, None, None, seed=1, on_row=lambda: None)
    assert (found.data.article, found.data.summary) == ("Volltext #1", "Kurz; gesagt")
    assert found.counts == {"all": 320}
    assert len(found.sample) == 320


def test_a_folder_of_splits_is_looked_at(folder):
    for split, rows in (("train", ROWS[:200]), ("val", ROWS[200:250]), ("test", ROWS[240:])):
        save(rows, folder / f"news/{split}.jsonl")
    found = look("news", None, None, None, None, seed=1, on_row=lambda: None)
    assert found.counts == {"test": 80, "validation": 40, "train": 200}  # ten are in two splits


@pytest.mark.parametrize("within", ["", "train/"])
def test_folders_of_single_texts_are_columns(folder, within):
    for split in [within] if not within else ["train", "validation", "test"]:
        for row in ROWS[:60]:
            for column in ("Volltext #1", "Kurz; gesagt"):
                path = folder / "texts" / split / column / f"{row['Nr']}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(str(row[column]))
    found = look("texts", None, None, None, None, seed=1, on_row=lambda: None)
    assert (found.data.article, found.data.summary) == ("Volltext #1", "Kurz; gesagt")
    assert sum(found.counts.values()) == 60


def rows_of(**columns: str) -> list[dict[str, str]]:
    return [{name: {"long": row["article"], "short": row["summary"], "title": " ".join(row["summary"].split()[:5]),
                    "topic": "Local news"}[kind] for name, kind in columns.items()} for row in STORIES[:50]]


@pytest.mark.parametrize(("columns", "expected"), [
    ({"text": "long", "abstract": "short"}, ("text", "abstract")),
    ({"a": "short", "b": "long", "c": "topic"}, ("b", "a")),
    ({"headline": "title", "body": "long", "summary": "short"}, ("body", "summary")),  # a title sums up, too
    ({"id": "topic", "title": "title", "story": "long"}, ("story", "title")),
    ({"x": "long", "y": "long", "article_text": "long", "z": "short"}, ("article_text", "z")),
])
def test_columns_are_told_by_name_length_and_content(columns, expected):
    found = find(rows_of(**columns), None, None, "a.csv")
    assert (found.article, found.summary) == expected


@pytest.mark.parametrize(("columns", "named", "told"), [
    ({"ctext": "long", "text": "short", "lead": "title"}, {}, ["'text'", "'lead'", "--summary"]),
    ({"x": "long", "y": "long", "z": "short"}, {}, ["'x' or 'y'", "--article"]),
    ({"x": "long", "y": "topic"}, {}, ["--article and --summary", "x (", "y (2 words)"]),
    ({"x": "long", "y": "short"}, {"article": "nowhere"}, ["no column 'nowhere' (--article)", "x, y"]),
    ({"x": "long", "y": "short"}, {"article": "y"}, ["--article and --summary"]),
    ({"x": "long", "y": "short"}, {"article": "x", "summary": "x"}, ["both name 'x'"]),
])
def test_where_it_cannot_tell_it_names_the_candidates_and_the_option(columns, named, told):
    with pytest.raises(DataError) as error:
        find(rows_of(**columns), **{"article": None, "summary": None, **named}, where="a.csv")
    assert all(part in str(error.value) for part in ("a.csv", *told)), error.value


def test_what_is_said_decides():
    rows = rows_of(ctext="long", text="short", lead="title")
    assert find(rows, None, "text", "a.csv").article == "ctext"
    assert find(rows, "text", None, "a.csv").summary == "lead"
    assert find(rows, "lead", "ctext", "a.csv").summary == "ctext"


@pytest.mark.parametrize(("arguments", "told"), [
    (["few.csv"], ["few.csv has 20 usable articles", "Bring more"]),
    (["missing.csv"], ["missing.csv: no such file"]),
    (["missing"], ["missing: no such file or folder, and the hub"]),
    (["many.csv", "--pretrained", "nowhere"], ["model.pretrained nowhere: no such folder"]),
    (["few.csv", "--name", "laptop"], ["preset laptop already"]),
    (["few.csv", "--article", "Text"], ["no column 'Text'", "Volltext #1"]),
])
def test_bad_input_is_named_and_nothing_is_written(folder, monkeypatch, arguments, told, capsys):
    save(ROWS[:20], folder / "few.csv")
    save(ROWS, folder / "many.csv")
    before = (folder / "params.yaml").read_bytes()
    said = refused(monkeypatch, "init", *arguments)
    assert all(part in said for part in told), said
    assert (folder / "params.yaml").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["few.csv", "many.csv", "params.yaml"]


@pytest.mark.parametrize("option", [["--minutes", "0"], ["--minutes", "soon"], ["--name", "Mine!"], ["--what"]])
def test_usage_errors_say_what_is_allowed(folder, monkeypatch, option, capsys):
    assert refused(monkeypatch, "init", "a.csv", *option) == "2"
    assert option[0] in capsys.readouterr().err


def test_a_mistake_does_not_wait_for_torch(folder):
    code = ("import sys; from headtohead import cli\n"
            "sys.argv = ['h2h', 'init', 'missing.csv']\n"
            "try: cli.main()\nexcept SystemExit as error: print(error, 'torch' in sys.modules)")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("missing.csv")
    assert out.rstrip().endswith("False")


def test_a_data_set_of_the_hub_is_pinned_and_taken(folder, tmp_path_factory):
    hub = tmp_path_factory.mktemp("hub")
    stories, commit = list(newswire("train", 500, seed=3, words=(60, 90), distractors=0.2)), "3" * 40
    with StandInHub({"datasets/someone/news": Repository(make_articles(hub / "news", stories), commit)}) as server:
        environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | {
            "HF_ENDPOINT": server.url, "HF_HOME": str(hub / "home")}
        code = ("import datasets; from headtohead import cli; from headtohead.init import measuring\n"
                "datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN, measuring.STEPS = 0, 2\n"
                "cli.main()")
        done = subprocess.run([sys.executable, "-c", code, "init", "someone/news"], env=environment, text=True,
                              capture_output=True)
    assert done.returncode == 0, done.stderr
    preset = chosen(folder).chosen
    assert preset.data.hub.model_dump() == {"name": "someone/news", "config": "3.0.0", "revision": commit}
    assert (preset.data.train, preset.data.validation, preset.data.test) == (400, 50, 50)


PRESET = read_params(ROOT / "params.yaml").presets["smoke"].model_dump(exclude_unset=True)


def with_names(article: str, path: str) -> dict:
    return PRESET | {"data": PRESET["data"] | {"source": "files", "article": article, "path": path}}


@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking is slow
@given(article=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
       path=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20),
       end=st.sampled_from(["\n", "\r\n"]), behind=st.sampled_from(["", "# The end", "\n# The end\n"]))
def test_any_name_is_written_so_that_it_is_read_again(tmp_path_factory, article, path, end, behind):
    file = tmp_path_factory.mktemp("any") / "params.yaml"
    file.write_bytes(((ROOT / "params.yaml").read_text() + behind).replace("\n", end).encode())
    write_preset(file, "mine", with_names(article, path), f"Written for {path}")
    preset = read_params(file).presets["mine"]
    assert preset == Preset.model_validate(with_names(article, path))
    assert end.encode() not in file.read_bytes().replace(end.encode(), b"") if end == "\r\n" else True


def test_presets_need_not_be_last_nor_end_in_a_line_break(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    start = text.index("presets:\n")
    general, presets = text[:start], text[start:].rstrip("\n")
    file = tmp_path / "params.yaml"
    for before, after in (("", "\n\n# What is general.\n" + general), (general, "")):
        file.write_text(before + presets + after)
        write_preset(file, "mine", PRESET, "Written by hand")
        added = file.read_text()
        assert added.startswith(before + presets)
        assert added.endswith(after)
        assert read_params(file).presets["mine"] == read_params(file).presets["smoke"]


def test_presets_in_braces_are_refused_and_left(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    file = tmp_path / "params.yaml"
    presets = json.dumps({"smoke": PRESET, "laptop": PRESET})
    file.write_text(text[:text.index("presets:\n")] + f"presets: {presets}\n")
    before = file.read_bytes()
    with pytest.raises(ParamsError, match="braces"):
        write_preset(file, "mine", PRESET, "Written by hand")
    assert file.read_bytes() == before


def lengths(articles: int, summaries: int) -> Lengths:
    return Lengths(np.full(100, articles), np.full(100, summaries), separator=3)


@settings(max_examples=50, deadline=None)
@given(articles=st.integers(1, 100_000), summaries=st.integers(1, 5_000), count=st.integers(0, 400_000),
       start=st.sampled_from(["pretrained", "scratch", "small"]), device=st.sampled_from([CPU, GPU]),
       minutes=st.floats(0.01, 1e6), step=st.floats(1e-3, 100), summary=st.floats(1e-3, 100))
def test_every_decision_is_a_preset_that_is_allowed_and_keeps_to_the_time(
        articles, summaries, count, start, device, minutes, step, summary):
    params = read_params(ROOT / "params.yaml")
    try:
        counts = deciding.splits({"all": count}, start, "a.csv")
    except DataError:
        assert count < 160
        return
    shape = Shape(12, 768, 12, 50_257, 1024) if start == "pretrained" else deciding.shape_of(start)
    whole = deciding.draft(params.presets["news"].data, start, "gpt2" if start == "pretrained" else None, None, counts,
                           lengths(articles, summaries), shape, device)
    cost = Cost(step, step / 24, step, summary, summary / 40, summary, step, step / 100, at_once=1)
    variants = [params.variants[name] for name in STUDY]

    def fitted(minutes):
        return fitting.fitted(Preset.model_validate(whole), cost, minutes, variants, device, deciding.MOST_SEEDS)

    plan = fitted(minutes)
    preset = fitting.within(whole, plan)
    Params.model_validate(params.model_dump() | {"presets": {"mine": preset}, "preset": "mine"})
    assert plan.minutes <= 1.01 * minutes or (plan.seeds == 1 and plan.steps == preset["train"]["evaluations"])
    assert plan.finished or plan.seeds == 1
    more = fitted(2 * minutes)
    assert (more.steps, more.seeds) >= (plan.steps, plan.seeds)
    assert sum(preset["data"][split] for split in counts) <= count


SMALL = deciding.draft(read_params(ROOT / "params.yaml").presets["news"].data, "small", None, None,
                       {"train": 2250, "validation": 150, "test": 600}, lengths(100, 30), deciding.shape_of("small"),
                       CPU)
COST = Cost(step=0.1, evaluated=0.005, saved=0.1, summary=0.02, forward=0.005, generation=0.1, lesson=0.08,
            scored=0.003, at_once=2)


FOUR = [read_params(ROOT / "params.yaml").variants[name] for name in STUDY]


def fitted(minutes: float, cost: Cost = COST) -> fitting.Plan:
    return fitting.fitted(Preset.model_validate(SMALL), cost, minutes, FOUR, CPU, deciding.MOST_SEEDS)


def test_a_grid_comes_after_the_steps_and_three_seeds():
    plans = [fitted(minutes) for minutes in range(4, 100, 2)]
    grids = [plan for plan in plans if plan.profile.grid]
    assert grids
    assert all(plan.finished for plan in grids)
    assert not plans[0].profile.grid
    assert plans[-1].profile.grid
    with_grid, without = (fitting._profile(Preset.model_validate(SMALL), plans[-1].profile.model_copy(update={
        "grid": grid}), COST, fitting.AttentionSpec(), CPU) for grid in (True, False))
    assert with_grid > without + 4 * 5 * COST.generation  # at three lengths in two batches but for one that is there


@pytest.mark.parametrize(("part", "field"), [(part, field) for part, fields in {
    "training": ["step", "evaluated", "saved", "summary"], "timing": ["forward", "generation", "lesson"],
    "rest": ["summary", "scored"]}.items() for field in fields])
def test_every_measured_second_counts_where_it_is_spent(part, field):
    def spent(cost):
        preset = Preset.model_validate(SMALL)
        return {"training": fitting._training(preset, cost, 4, steps=1000, seeds=1),
                "timing": fitting._profile(preset, preset.profile, cost, FOUR[0], CPU),
                "rest": fitting._rest(preset, cost, 4, seeds=1)}[part]

    assert spent(replace(COST, **{field: 3 * getattr(COST, field)})) > spent(COST)


def test_summaries_of_one_seed_are_written_one_after_the_other():
    """Two trainings run side by side, whatever they train; a variant's summaries only from two seeds."""
    preset = Preset.model_validate(SMALL)
    one, two, three = (fitting._training(preset, COST, 4, 1000, seeds) for seeds in (1, 2, 3))
    summaries = 4 * 600 * (COST.summary + COST.evaluated)
    assert two - one == pytest.approx(one - summaries)
    assert three - two == pytest.approx(one)


def test_an_article_is_cut_only_where_the_model_ends():
    assert deciding.lengths_of(lengths(300, 40), deciding.shape_of("small"), CPU) == (352, 44)
    assert deciding.lengths_of(lengths(5_000, 40), deciding.shape_of("small"), CPU) == (1024, 44)
    assert deciding.lengths_of(lengths(5_000, 40), replace(deciding.shape_of("small"), positions=512), GPU) == (512, 44)


@pytest.mark.parametrize(("luck", "trainings"), [(0.005, 3), (0.005, 10), (0.015, 5)])
def test_the_smallest_difference_is_found_in_four_of_five_runs(luck, trainings):
    rng, world = np.random.default_rng(1), World(luck, trainings, 200)
    own = float(np.sqrt(2) * np.hypot(OWN, NOISE / np.sqrt(trainings)))
    difference = smallest_found(float(np.hypot(luck, NOISE / np.sqrt(200))), own, trainings, 200, functions=1)
    found = 0
    for _ in range(300):
        shared = rng.normal(0, 0.13, 200)
        better = compare(world.function(rng, shared, 0.3 + difference), world.function(rng, shared, 0.3))
        found += better.p < ALPHA and better.difference > 0
    assert found / 300 == pytest.approx(0.8, abs=0.06)
