"""A stage that is a fork of the warm server is, from outside, the stage as Python runs it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from closure import ROOT

from headtohead import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs abstract sockets")

STAGE = '''
import os, sys, time
from pathlib import Path
from headtohead.stage import run

def main(word: str) -> None:
    print(word, Path.cwd().name, os.environ["TOLD"], "wave" in sys.modules, file=sys.stderr)
    Path("process").write_text(str(os.getpid()))
    if word == "wait":
        time.sleep(60)
    if word == "fail":
        raise ValueError("it failed")
    sys.exit(int(word) if word.isdigit() else 0)

if __name__ == "__main__":
    run(main)
'''


@pytest.fixture
def folder(tmp_path):
    """A repository with one stage and a server that imports little and soon ends."""
    for name in ("src", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "src/headtohead/warm.py"
    short = re.sub(r"LIBRARIES = \(.*?\)\nSWITCH", 'LIBRARIES = ("wave",)\nSWITCH', file.read_text(), flags=re.DOTALL)
    file.write_text(short.replace("IDLE = 30.0", "IDLE = 2.0"))
    (tmp_path / "stages/stage.py").write_text(STAGE)
    return tmp_path


def start(folder, word, warm="1"):
    return subprocess.Popen([sys.executable, "-m", "stages.stage", word], cwd=folder, text=True,
                            env=os.environ | {"TOLD": str(folder), "HEADTOHEAD_WARM": warm}, stderr=subprocess.PIPE)


def stage_of(folder) -> int:
    """The process that runs the stage, once it does."""
    file = folder / "process"
    while not file.exists() or not file.read_text():
        time.sleep(0.02)
    return int(file.read_text())


def ends(process: int) -> bool:
    for _ in range(250):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("word", ["fine", "fail", "7"])
def test_what_a_stage_says_and_how_it_ends_are_the_same(folder, word):
    warmed = start(folder, word)
    said = warmed.communicate()[1]
    assert stage_of(folder) != warmed.pid
    alone = start(folder, word, warm="0")
    assert said == alone.communicate()[1].replace("False", "True", 1)
    assert warmed.returncode == alone.returncode == {"fine": 0, "fail": 1, "7": 7}[word]
    assert stage_of(folder) == alone.pid


def test_a_second_stage_is_a_fork_of_the_same_server_with_the_code_as_it_is_then(folder):
    assert "fine" in start(folder, "fine").communicate()[1]
    (folder / "stages/stage.py").write_text(STAGE.replace("print(word", "print('edited', os.getppid()"))
    (folder / "process").unlink()
    assert "edited" in start(folder, "fine").communicate()[1]


def test_an_interrupted_stage_says_so_and_a_killed_one_takes_its_fork_along(folder):
    interrupted = start(folder, "wait")
    stage_of(folder)
    interrupted.send_signal(signal.SIGINT)
    assert "stage wait was stopped" in interrupted.communicate()[1]
    assert interrupted.returncode == 130
    (folder / "process").unlink()
    killed = start(folder, "wait")
    fork = stage_of(folder)
    killed.kill()
    assert ends(fork)
    killed.communicate()


def test_a_killed_fork_is_a_killed_stage(folder):
    stage = start(folder, "wait")
    os.kill(stage_of(folder), signal.SIGKILL)
    stage.communicate()
    assert stage.returncode == -signal.SIGKILL


def test_libraries_that_cannot_be_imported_leave_the_stage_to_say_so(folder):
    file = folder / "src/headtohead/warm.py"
    file.write_text(file.read_text().replace('"wave"', '"not_there"'))
    stage = start(folder, "fine")
    assert "fine" in stage.communicate()[1]
    assert stage_of(folder) == stage.pid


def test_a_server_with_nothing_to_do_ends(monkeypatch):
    monkeypatch.setattr(warm, "LIBRARIES", ())
    monkeypatch.setattr(warm, "IDLE", 0.1)
    assert warm._serve(f"headtohead-test-{os.getpid()}") is None


def test_the_libraries_are_those_that_stages_import():
    code = "import sys, stages.train, stages.report; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(warm.LIBRARIES) - {"matplotlib.figure"} <= set(loaded.split())
