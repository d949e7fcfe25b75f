"""What DVC does in the repository itself: the first stages, recording what ran elsewhere, and the proof at the end."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dumps_yaml, load_yaml, modify_yaml

from headtohead.cluster.pipeline import FIRST, LAST, Graph, changed
from headtohead.cluster.record import PULL

LOCK = Path("dvc.lock")


class RunError(ValueError):
    """Stages that cannot be run; the message says why and what to do."""


class Records:
    """Writes to dvc.lock what stages have produced elsewhere, and checks it out.

    Args:
        pull: whether their results are in a remote, not yet in this repository's cache.
    """

    def __init__(self, graph: Graph, pull: bool) -> None:
        self._graph, self._pull = graph, [PULL] if pull else []
        self._known = set(read_lock())

    def add(self, stages: Sequence[str]) -> None:
        """Raises: RunError: DVC does not find their results in its run cache."""
        command = [sys.executable, "-m", "headtohead.cluster.record", *self._pull, *stages]
        # DVC runs commands by $SHELL: none can run here. An interruption is not to end it half-way.
        environment = {**os.environ, "SHELL": shutil.which("false") or "/bin/false"}
        done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              start_new_session=True)
        if done.returncode:
            raise RunError(f"DVC's run cache does not have the results of {', '.join(stages)}:\n{done.stdout[-2000:]}")

    def sort(self) -> None:
        """Put the new entries of dvc.lock in the order in which `dvc repro` adds them, whichever ended first."""
        with modify_yaml(LOCK) as lock:
            entries = lock["stages"]
            for stage in [stage for stage in self._graph if stage in entries and stage not in self._known]:
                entries[stage] = entries.pop(stage)


def read_lock() -> dict[str, Any]:
    """The entries of dvc.lock by stage."""
    entries: dict[str, Any] = load_yaml(LOCK)["stages"]
    return entries


def as_lock(entries: Mapping[str, Any], stages: Iterable[str]) -> bytes:
    """A dvc.lock that has the entries of `stages` alone."""
    own = {stage: entries[stage] for stage in sorted(stages) if stage in entries}
    text: str = dumps_yaml({"schema": "2.0", "stages": own})
    return text.encode()


def reproduce(*stages: str) -> None:
    """Run `dvc repro`; with `stages`, those alone.

    Raises:
        RunError: one has failed, and has said why.
    """
    single = ["-s", *stages] if stages else []
    if subprocess.run([sys.executable, "-m", "dvc", "repro", *single]).returncode:
        raise RunError("`dvc repro` has failed")


def push(stages: Iterable[str]) -> None:
    """Put the outputs of stages that are up to date into the default remote, for others to read.

    Raises:
        RunError: it does not take them; DVC has said why.
    """
    if subprocess.run([sys.executable, "-m", "dvc", "push", "--quiet", *stages]).returncode:
        raise RunError("`dvc push` has failed, and tasks need what they read in the remote")


def prove() -> None:
    """Run a plain `dvc repro`, in which only those stages may run that always run here.

    Raises:
        RunError: it would run others, too; or one has failed.
    """
    if others := changed() - {*FIRST, LAST}:
        raise RunError(f"these have changed while they ran elsewhere: {', '.join(sorted(others))}; run it again")
    reproduce()
