"""A temporary clone of the repository on the smoke preset, to be driven as a user drives it: through dvc."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from closure import ROOT

from headtohead.caches import FOLDERS

HOME = "/proc/sys/home"  # is not there, and not even root can make it
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in FOLDERS} | {  # torch sets one of these
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1",
    "OMP_NUM_THREADS": "1", "HOME": HOME}


class Clone:
    """A repository of its own with the files of this one."""

    def __init__(self, path: Path) -> None:
        self.path, self.temporary = path, path.with_name(f"{path.name}-temporary")
        self.temporary.mkdir()
        self.environment = ENVIRONMENT | {"TMPDIR": str(self.temporary), "DVC_SITE_CACHE_DIR": str(path / ".cache/dvc")}
        listed = self.run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT).split("\0")
        for name in (name for name in listed if name and (ROOT / name).is_file()):
            if not name.startswith(("metrics/", "plots/", "dvc.lock")):
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, path / name)
        self.run("git", "init", "-q")
        self.run("git", "config", "user.email", "test@example.org")
        self.run("git", "config", "user.name", "test")
        self.edit("preset: laptop", "preset: smoke")
        self.commit()

    def run(self, *command: str, cwd: Path | None = None, fails: bool = False) -> str:
        done = subprocess.run(command, cwd=cwd or self.path, env=self.environment, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert (done.returncode != 0) == fails, done.stdout[-4000:]
        return done.stdout

    def run_and_kill(self, *command: str, when: Callable[[], object]) -> str:
        """What a command said until it and all that it had started were killed, as soon as `when` returned."""
        process = subprocess.Popen(command, cwd=self.path, env=self.environment, text=True, start_new_session=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        when()
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]

    def clear(self) -> None:
        """Back to nothing computed: no outputs, DVC cache, checkpoints or dvc.lock."""
        self.run("git", "clean", "-xdfq")

    def edit(self, old: str, new: str) -> None:
        text = (self.path / "params.yaml").read_text()
        assert old in text
        (self.path / "params.yaml").write_text(text.replace(old, new, 1))

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "state", "--allow-empty")

    def reset(self) -> None:
        """Back to the commit, in the workspace too."""
        self.run("git", "checkout", "-q", ".")
        self.run("dvc", "checkout", "-q")

    def json(self, name: str) -> dict:
        return json.loads((self.path / name).read_text())


def contents(path: Path, *patterns: str) -> dict[str, bytes]:
    """Every file that a pattern names, or that lies in a folder that it names."""
    named = [file for pattern in patterns for found in path.glob(pattern) for file in (found, *found.rglob("*"))]
    return {str(file.relative_to(path)): file.read_bytes() for file in named if file.is_file()}


def executed(output: str) -> list[str]:
    return re.findall(r"Running stage '(.*)':", output)
