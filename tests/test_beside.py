"""Two trainings at once: which one, in how many cores, and what becomes of it."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from headtohead.beside import beside, halved
from headtohead.models.sharing import next_missing, share_cores
from headtohead.params import read_params
from headtohead.paths import Run

PARAMS = read_params()
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def preset(**changes):
    chosen = PARAMS.chosen.model_copy(update={"model": PARAMS.chosen.model.model_copy(update=changes)})
    return PARAMS.model_copy(update={"presets": {**PARAMS.presets, PARAMS.preset: chosen}})


def test_the_next_training_is_the_pipelines_next_without_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert next_missing(PARAMS, Run("standard", 13)) == Run("standard", 14)
    for run in (Run("standard", 14), Run("standard", 15)):
        run.model.mkdir(parents=True)
    assert next_missing(PARAMS, Run("standard", 13)) == Run("flash", 13)
    assert next_missing(PARAMS, Run("flash_sparse", 15)) is None
    assert next_missing(PARAMS, Run("flash_sparse", 99)) is None


@pytest.mark.parametrize(("params", "device", "cores", "left"), [
    (PARAMS, CPU, 2, 1), (PARAMS, CPU, 16, 8), (PARAMS, CPU, 5, 2), (PARAMS, CPU, 1, None), (PARAMS, CUDA, 16, None),
    (preset(layers=12, width=768, heads=12), CPU, 16, None), (preset(pretrained="gpt2"), CPU, 16, None)])
def test_small_trainings_on_a_cpu_take_half_of_the_cores(monkeypatch, params, device, cores, left):
    taken = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    assert share_cores(params, device) is (left is not None)
    assert taken == ([] if left is None else [left])


def test_work_beside_is_waited_for_and_not_heard(tmp_path, capfd):
    def work():
        print("heard")
        time.sleep(0.3)
        (tmp_path / "done").write_text("1")
        raise ValueError("heard")

    with beside(work) as process:
        assert not (tmp_path / "done").exists()
    assert (tmp_path / "done").exists()
    assert process.exitcode
    assert capfd.readouterr() == ("", "")


def test_every_second_item_is_worked_on_in_another_process(tmp_path):
    halved(lambda name: (tmp_path / name).write_text(str(os.getpid())), "abcde")
    by = [int((tmp_path / name).read_text()) == os.getpid() for name in "abcde"]
    assert by == [True, False, True, False, True]


def test_what_fails_beside_is_done_again_and_told(tmp_path):
    here = os.getpid()

    def only_here(name):
        if os.getpid() != here:
            raise OSError(name)
        (tmp_path / name).touch()

    halved(only_here, "abc")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "c"]

    def never(name):
        if name == "b":
            raise ValueError("b is broken")

    with pytest.raises(ValueError, match="b is broken"):
        halved(never, "abc")


def test_work_beside_ends_with_a_body_that_fails(tmp_path):
    def work():
        time.sleep(1)
        (tmp_path / "done").write_text("1")

    with pytest.raises(KeyboardInterrupt), beside(work):
        raise KeyboardInterrupt
    time.sleep(1.2)
    assert not (tmp_path / "done").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="it asks Linux")
def test_work_beside_ends_with_a_process_that_is_killed():
    script = """
import os, time
from headtohead.beside import beside

read, write = os.pipe()

def work():
    os.write(write, str(os.getpid()).encode())
    time.sleep(60)

with beside(work):
    print(os.read(read, 20).decode(), flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    other = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 10
    while time.monotonic() < until and os.path.exists(f"/proc/{other}"):
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{other}")
