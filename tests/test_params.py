"""params.yaml: what is wrong is refused before any work, with the key named and what is allowed."""

import copy
import shutil
import subprocess
import sys

import pytest
import yaml
from closure import ROOT

from headtohead.params import STUDY, ParamsError, read_params

RAW = yaml.safe_load((ROOT / "params.yaml").read_text())


def write(path, change):
    raw = copy.deepcopy(RAW)
    change(raw)
    file = path / "params.yaml"
    file.write_text(yaml.dump(raw))
    return file


def test_the_projects_own_parameters_are_right():
    params = read_params(ROOT / "params.yaml")
    assert set(params.presets) == {"laptop", "smoke", "news", "paper"}
    assert params.compared == list(STUDY)


def test_repeats_collapse_and_further_variants_join(tmp_path):
    def change(raw):
        raw["variants"]["wide"] = {"kernel": "flash", "positions": "alibi", "pattern": "window", "window": 100}
        raw["attention"], raw["also"] = "wide", ["flash", "wide", "standard", "flash_alibi"]

    assert read_params(write(tmp_path, change)).compared == [*STUDY, "wide"]


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: p.update(attention="nope"), "attention: unknown variant 'nope'; there are flash, flash_alibi"),
    (lambda p: p.update(also=["standard"] * 3 + ["no"]), r"also\[3\]: unknown variant 'no'"),
    (lambda p: p.update(also="standard"), "also: .*valid list"),
    (lambda p: p.update(preset="nope"), "preset: unknown preset 'nope'; there are laptop, news, paper, smoke"),
    (lambda p: p.update(sed=1), "sed: unknown key; keys there: attention, also, .*did you mean seed"),
    (lambda p: p["presets"]["laptop"]["train"].update(stepz=3), "laptop.train.stepz: unknown key; .*mean steps"),
    (lambda p: p["presets"]["laptop"]["train"].pop("steps"), "presets.laptop.train.steps: Field required"),
    (lambda p: p["presets"]["laptop"]["train"].update(steps=0), "train.steps: .*greater than or equal to 1 .is 0"),
    (lambda p: p["presets"]["laptop"]["train"].update(steps=2.5), "train.steps: .*valid integer"),
    (lambda p: p["presets"]["laptop"]["train"].update(learning_rate=float("nan")), "learning_rate"),
    (lambda p: p["presets"]["laptop"]["train"].update(warmup_steps=5000), "warmup_steps 5000 is more than steps"),
    (lambda p: p["presets"]["laptop"]["model"].update(heads=5), "width 64 is not a multiple of heads 5"),
    (lambda p: p["presets"]["laptop"]["model"].update(pretrained="gpt2"), "vocab_size is null exactly when"),
    (lambda p: p["presets"]["laptop"]["model"].pop("layers"), "needs layers"),
    (lambda p: p["presets"]["laptop"]["data"].update(source="files"), "source: files needs `path`"),
    (lambda p: p["presets"]["laptop"]["generate"].update(max_new_tokens=500), "leaves no room for an article"),
    (lambda p: p["variants"]["flash_sparse"].update(window=0), "flash_sparse: .*greater than or equal to 1"),
    (lambda p: p["variants"]["flash"].update(window=3), "pattern 'full' knows no window"),
    (lambda p: p["variants"]["flash"].update(kernel="cuda"), "variants.flash.kernel: .*'eager' or 'flash'"),
    (lambda p: p["variants"].pop("flash"), "'flash'|flash cannot be left out"),
    (lambda p: p["variants"].update({"Bad Name": {}}), "Bad Name"),
    (lambda p: p["variants"].update(untrained={}), "untrained is the name of a reference row"),
])
def test_what_is_wrong_is_named(tmp_path, change, message):
    with pytest.raises(ParamsError, match=message):
        read_params(write(tmp_path, change))


@pytest.mark.parametrize("text", ["", "just text", "attention: [", "\tattention: flash", "- 1"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        read_params(tmp_path / "params.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ParamsError, match=r"params\.yaml: cannot be read"):
        read_params(tmp_path / "params.yaml")


def test_a_stage_fails_with_one_message_and_leaves_the_traceback_in_a_log(tmp_path):
    for folder in ("stages", "src"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    write(tmp_path, lambda raw: raw.update(attention="nope"))
    done = subprocess.run([sys.executable, "-m", "stages.fingerprint"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "attention: unknown variant 'nope'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "logs/fingerprint.log" in done.stderr
    assert "Traceback" in (tmp_path / "logs/fingerprint.log").read_text()
