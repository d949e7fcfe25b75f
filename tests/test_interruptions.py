"""Kills within training, as `dvc repro` is killed in life; `tests/soak.py` kills anywhere, as often as you like."""

import random
import shutil
import time

import pandas as pd
import pytest
from clone import Clone, contents, executed

from headtohead.training.checkpoints import SEAL

SPAN = 3.0  # s after the first checkpoint, within which the kill falls: about what the training below takes


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """With a training of some seconds, and twenty checkpoints."""
    clone = Clone(tmp_path_factory.mktemp("clone"))
    clone.edit("steps: 12\n", "steps: 400\n")
    clone.edit("evaluations: 2\n", "evaluations: 20\n")
    return clone


def killed_within_training(clone, variant, seed):
    """The step of its last complete checkpoint."""
    def within_training():
        while not list(clone.path.glob(f".checkpoints/{variant}-*/*/{SEAL}")):
            time.sleep(0.01)
        time.sleep(random.Random(seed).uniform(0, SPAN))

    killed = clone.run_and_kill("dvc", "repro", f"train@{variant}-13", when=within_training)
    assert executed(killed)[-1] == f"train@{variant}-13"
    return max(int(file.parent.name.split("-")[1]) for file in clone.path.glob(f".checkpoints/{variant}-*/*/{SEAL}"))


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(clone):
    last = killed_within_training(clone, "flash_alibi", 1)
    again = clone.run("dvc", "repro", "train@flash_alibi-13")
    assert executed(again) == ["fingerprint", "train@flash_alibi-13"]
    assert f"training flash_alibi-13 resumes from step {last} of 400" in again
    results = contents(clone.path, "models/flash_alibi", "plots/training/flash_alibi")

    for folder in (".checkpoints", "models"):
        shutil.rmtree(clone.path / folder)
    clone.run("python", "-m", "stages.train", "flash_alibi", "13")  # undisturbed
    assert contents(clone.path, "models/flash_alibi", "plots/training/flash_alibi") == results


def test_a_run_that_was_killed_on_two_devices_goes_on_on_one(clone):
    curve = clone.path / "plots/training/standard/13.csv"
    clone.run("python", "-m", "stages.train", "standard", "13")
    alone = pd.read_csv(curve)
    shutil.rmtree(clone.path / ".checkpoints")
    clone.edit("evaluations: 20\n", "evaluations: 20\n      devices: 2\n")
    last = killed_within_training(clone, "standard", 3)
    clone.edit("      devices: 2\n", "")
    assert f"training standard-13 resumes from step {last} of 400" in clone.run("dvc", "repro", "train@standard-13")
    for column, values in pd.read_csv(curve).items():
        assert values.tolist() == pytest.approx(alone[column].tolist(), rel=0.01)  # rounding grows with every step


def test_a_training_beside_another_is_the_one_that_runs_alone(clone):
    def train(seed):
        return clone.run("env", "OMP_NUM_THREADS=2", "python", "-m", "stages.train", "flash", seed)

    clone.edit("steps: 400\n", "steps: 160\n")
    for folder in (".checkpoints", "models"):
        shutil.rmtree(clone.path / folder)
    assert "has been done before" not in train("13")
    assert "training flash-14 has been done before" in train("14")
    beside = contents(clone.path, "models/flash/14")
    assert "has been done before" not in train("15")
    for variant in ("flash_alibi", "flash_sparse"):  # so that no model is missing
        for seed in ("13", "14", "15"):
            (clone.path / "models" / variant / seed).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(clone.path / "models/flash/14")
    shutil.rmtree(clone.path / ".checkpoints")
    assert "has been done before" not in train("14")
    assert contents(clone.path, "models/flash/14") == beside
    assert [folder.name.rsplit("-", 1)[0] for folder in clone.path.glob(".checkpoints/*")] == ["flash"]
