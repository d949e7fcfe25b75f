"""What `h2h publish` writes, from the made-up results of the report's tests."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import test_reporting
from made_up import SEEDS, SPEED, edit, rows, write
from test_reporting import ROOT, SHOWN, without_facts

from headtohead import cli, reporting
from headtohead.records import DataError
from headtohead.reporting.publish import publish
from headtohead.reporting.results import read_results

made, params, run = test_reporting.made, test_reporting.params, test_reporting.run  # pytest finds fixtures by name

COMMAND = "dvc exp run -S preset=laptop | tee a_log_of_`it`"
TARGET = Path("docs/results/cpu laptop-0.1")  # what stands behind the point is no suffix
TABLES = {"variant | fact recall": 6, "variant | forward": 4, "variant | ROUGE-1": 2, "variant | seed": 12,
          "model | ROUGE-1": 6, "model | forward": 4, "variant | batch": 4, "model | 0-31": 8, "model | place 0": 6}


def again(params, target=TARGET, **options):
    publish(params, target, **{"command": COMMAND, "took": "7 s", "commit": "c0ffee"} | options)


@pytest.fixture
def published(run, params):
    again(params)
    return run


def written():
    """Every file under docs/, by its path."""
    return {str(path): path.read_bytes() for path in Path("docs").rglob("*") if path.is_file()}


def text():
    return Path(f"{TARGET}.md").read_text(encoding="utf-8")


def record():
    return json.loads(Path(f"{TARGET}.json").read_text(encoding="utf-8"))


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def with_intervals(details, names):
    return {name + end: details[name + end] for name in names for end in ("", "_low", "_high")}


def test_the_numbers_are_those_of_the_metrics_files(published):
    for name, numbers in record()["variants"].items():
        flat, details = (read(f"{folder}/{name}/quality.json") for folder in ("metrics/variants", "data/details"))
        assert flat.pop("seeds") == numbers.pop("seeds") == 3
        assert numbers == {**with_intervals(details, flat), **read(f"metrics/variants/{name}/efficiency.json")}
        assert flat.items() <= numbers.items()


def test_every_training_is_recorded(published):
    found = record()["trainings"]
    assert [(one["variant"], one["seed"]) for one in found] == [(name, seed) for name in SPEED for seed in SEEDS]
    for one in found:
        details = read(f"data/details/{one['variant']}/quality/{one['seed']}.json")
        scores = ("rouge1", "rouge2", "rougeL", "rougeLsum", "bleu", "loss", "fact_recall")
        assert {name: one[name] for name in scores} == {name: details[name] for name in scores}
        assert (one["steps"], one["at_step"]) == (1200, 1200)
        assert f"| {one['variant']} | {one['seed']} | {one['fact_recall']:.4f} |" in text().replace("\\", "")
        assert f"| {one['lowest_validation_loss']:.4f} | 1,200 | 1,200 |" in text()


def test_every_difference_and_ratio_is_recorded(published):
    found = record()
    means = {name: found["variants"][name]["fact_recall"] for name in SPEED}
    full = (means["standard"] + means["flash"]) / 2
    assert found["differences"].keys() >= {"fact_recall", "rouge1", "loss"}
    for name, one in found["differences"]["fact_recall"].items():
        assert one["low"] < one["difference"] < one["high"]
        assert one["difference"] == pytest.approx(means[name] - full)
    assert found["differences"]["loss"].keys() == {"flash_alibi", "flash_sparse"}
    for name, works in found["ratios"].items():
        for work, one in works.items():
            pairs = read(f"data/details/{name}/efficiency.json")["pairs"][work]
            mean = sum(math.log(ours / control) for ours, control in pairs) / len(pairs)
            assert one["value"] == pytest.approx(math.exp(mean))
            assert one["low"] <= one["value"] <= one["high"]


def test_time_and_memory_of_every_size_are_recorded(published):
    for name, sweep in record()["sweeps"].items():
        profile = read(f"data/details/{name}/efficiency.json")
        assert sweep["length_limit"] == profile["length_limit"]
        for kind in ("timings", "memory"):
            wanted = [row for row in profile[kind] if row["work"] in ("forward", "generate")]
            assert all(row.items() <= full.items() for row, full in zip(sweep[kind], wanted, strict=True))
            assert all(row.keys() & {"median", "peak_mb"} and "samples" not in row for row in sweep[kind])


def test_the_record_says_what_it_comes_from(published, params):
    found = record()
    assert list(found["variants"]) == list(SPEED)
    assert found["machine"] == read("metrics/machine.json")
    assert found["settings"]["data"].items() <= params.chosen.data.model_dump().items()
    assert {key: found[key] for key in ("preset", "seed", "commit", "command", "took")} == {
        "preset": "laptop", "seed": 13, "commit": "c0ffee", "command": COMMAND, "took": "7 s"}
    for name, system in zip(("lead3", "untrained"), read_results(params).baselines, strict=True):
        assert found[name] == with_intervals(system.details, system.quality.keys() - {"seeds"}) | {"seeds": 1}
    assert found["lead3"].keys() < found["untrained"].keys() < found["variants"]["flash"].keys()
    assert found.keys() == {"variants", "lead3", "untrained", "trainings", "differences", "primary", "margins",
                            "barred", "seeds_needed", "sweeps", "ratios", "machine", "preset", "seed", "seeds",
                            "commit", "command", "took", "settings"}


def test_the_page_has_its_tables_and_says_what_it_comes_from(published):
    page = text().replace("\\", "")
    for header, count in TABLES.items():
        table = re.search(rf"^\| {re.escape(header)}.*\n\| :---.*\n((?:\|.*\n)+)", page, re.MULTILINE)
        assert table[1].count("\n") == count, header
    opening = page.split("\n## ")[0]
    for part in ("**On this machine, take flash:", "Virtual CPU, 2 cores", "`laptop`", "60 to test", "float32",
                 "commit c0ffee", f"“{COMMAND}” took 7 s.", "no evidence about sparse attention"):
        assert part in opening, part
    for part in ("Lead-3", "untrained", "0.1806", "8,877.81", "| flash | 24.0 | 48.0 | 96.0 |", "0123abcd",
                 "learning_rate: 0.01", "(cpu%20laptop-0.1.json)"):
        assert part in page, part


def passages(path):
    """Five words in a row, of every text of a file: what no number, name or caption of ours could contain."""
    for row in rows(path):
        for words in (row.get(key, "").split() for key in ("article", "summary", "reference")):
            yield from (" ".join(words[i:i + 5]) for i in range(len(words) - 4))


def test_no_file_holds_a_text(published):
    secrets = {passage for path in [*Path("data/subset").glob("*.jsonl"), *Path("data/predictions").rglob("*.jsonl")]
               for passage in passages(path)}
    assert "<script>alert('x')</script> | a `tick` *bold*" in secrets
    assert len(secrets) > 1000
    for path, content in written().items():
        shown = " ".join(content.decode().replace("\\", "").split())
        assert not [secret for secret in secrets if secret in shown], path


@pytest.mark.pictures
def test_the_figures_are_linked_and_are_the_reports(published, params):
    links = [unquote(link) for link in re.findall(r"^!\[.+\]\((.*?)\)$", text(), re.MULTILINE)]
    assert {Path(link).name for link in links} == SHOWN == {path.name for path in TARGET.iterdir()}
    reporting.build(params)
    for link in links:
        assert (TARGET.parent / link).read_bytes() == (Path("plots") / Path(link).name).read_bytes()


def test_twice_gives_the_same_bytes(published, params):
    before = written()
    again(params)
    assert written() == before
    assert len(before) == len(SHOWN) + 2


def test_what_does_not_apply_goes_and_what_others_put_there_stays(published, params):
    without_facts(published)
    write(TARGET / "notes.svg", "mine")
    again(params)
    assert {path.name for path in TARGET.iterdir()} == SHOWN - {"fact_recall.svg"} | {"notes.svg"}
    assert "act recall" not in text()
    assert not [name for system in ("lead3", "untrained") for name in record()[system] if "fact" in name]


def test_of_a_gpu_its_name_is_told_and_a_batch_without_room_is_a_dash(run, params):
    out_of_memory = {"work": "train_step", "batch": 16, "length": 256, "out_of_memory": True}
    edit(run / "metrics/machine.json", lambda machine: machine.update(gpu="NVIDIA H200 140 GB"))
    for name in SPEED:
        edit(run / f"data/details/{name}/efficiency.json", lambda profile: profile.update(device="NVIDIA H200"))
    edit(run / "data/details/standard/efficiency.json",
         lambda profile: profile["timings"].__setitem__(-1, out_of_memory))
    edit(run / "metrics/variants/standard/efficiency.json", lambda flat: flat.update(train_step_ms=None))
    again(params)
    assert text().startswith("# Preset laptop on NVIDIA H200\n\n**")
    assert "\nNVIDIA H200 140 GB; Virtual CPU, 2 cores; trained in float32; commit c0ffee;" in text()
    assert "| standard | 32.0 | 64.0 | - |" in text()
    assert "evidence about" not in text()
    assert record()["variants"]["standard"]["train_step_ms"] is None


def git(*arguments):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(run):
    """The results in a repository of their own, with a source that git knows."""
    shutil.copy(ROOT / "params.yaml", run)
    write(run / "src/code.py", "1\n")
    git("init", "-q")
    git("add", "src", "params.yaml")
    git("commit", "-qm", "state")
    return run


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["h2h", *arguments])
    cli.main()


def test_the_command_publishes_this_commit(repository, monkeypatch, capsys):
    arguments = ("publish", str(TARGET), "--command", COMMAND, "--took", "19 min 40 s")
    call(monkeypatch, *arguments)
    assert f"{TARGET}.md" in capsys.readouterr().out
    assert (record()["commit"], record()["took"]) == (git("rev-parse", "HEAD"), "19 min 40 s")
    write(repository / "src/untracked.py", "2\n")
    call(monkeypatch, *arguments)
    assert record()["commit"] == git("rev-parse", "HEAD")
    write(repository / "src/code.py", "2\n")
    call(monkeypatch, *arguments)
    assert record()["commit"] == git("rev-parse", "HEAD") + "-dirty"
    call(monkeypatch, *arguments, "--commit", "of-another-machine")
    assert record()["commit"] == "of-another-machine"


def test_without_results_the_command_says_how_to_make_them(repository, monkeypatch):
    (repository / "metrics/variants/flash/efficiency.json").unlink()
    with pytest.raises(SystemExit, match=r"metrics/variants/flash/efficiency.json is missing; `dvc repro` makes it"):
        call(monkeypatch, "publish", str(TARGET), "--command", COMMAND, "--took", "7 s")
    assert not written()


def test_without_git_it_asks_for_the_commit(run, params):
    with pytest.raises(DataError, match="say it with --commit"):
        again(params, commit=None)
    assert not written()


@pytest.mark.parametrize("obstacle", ["docs", "docs/results", str(TARGET), f"{TARGET}.md/x", f"{TARGET}.json/x"])
def test_a_place_that_cannot_be_written_is_named(run, params, obstacle):
    write(run / obstacle, "a file, or a folder, where the other should be")
    with pytest.raises(DataError, match=r"docs.* cannot be written: \w+"):
        again(params)
