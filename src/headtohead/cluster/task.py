"""What a task does, on whichever machine Ray starts it: one stage, by `dvc repro`, in a clone of its own."""

import io
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headtohead.beside import ALONE
from headtohead.caches import keep_in
from headtohead.paths import CHECKPOINTS
from headtohead.progress import PROGRESS

# DVC's words for a stage that was killed, as Linux does when the machine is out of memory; its own when a GPU is.
LOST = re.compile(r"exited with (?:-9|137)\b|^out of memory; ", re.MULTILINE)
# Ends all that it has started as soon as the worker, at the other end of its standard input, has died.
LEASHED = 'exec 3<&0; (cat <&3; kill -9 0) >/dev/null 2>&1 & exec "$@" 3<&- </dev/null'
# `dvc push --run-cache` leaves out metrics and plots, which are not in dvc.lock's cache but in the run cache's.
PUSH = """
from dvc.repo import Repo
with Repo() as repo:
    for objects in repo.stage_cache.get_used_objs(repo.stage_cache.push(None)).values():
        repo.cloud.push(objects)
"""


class Lost(Exception):
    """A stage that was killed or ran out of memory, and may well end elsewhere, or when it is alone."""


@dataclass(frozen=True)
class Place:
    """Where and how a task runs.

    Args:
        folder: that of the clones; None: one in the node's own cache, named `project`.
        config: DVC's config.local.
        remote: whether inputs and results go through a DVC remote.
        environment: of the stage, in addition to the node's; with `whole`, instead of it.
    """

    folder: str | None
    project: str
    config: str
    remote: bool
    environment: dict[str, str]
    whole: bool = False


def run_stage(stage: str, needed: Collection[str], files: bytes, lock: bytes, place: Place,
              tell: Callable[[str, str, str], Any]) -> bool:
    """Run a stage and keep its results in the cache or the remote.

    Args:
        needed: the stages whose outputs it reads.
        files: from `snapshot.pack`.
        lock: a dvc.lock with the entries of the stage and of those in `needed`, as they are by now.
        tell: is called with the stage, the kind of news (began, said, progress) and a text.

    Returns:
        Whether it succeeded.

    Raises:
        Lost: it may succeed in another try.
    """
    folder = _folder(place)
    clone = folder / "clones" / stage
    tell(stage, "began", _where())
    _unpack(files, clone)
    (clone / "dvc.lock").write_bytes(lock)
    (clone / ".dvc/config.local").write_text(place.config, encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=clone, check=True)
    environment = _environment(place, folder)
    if place.remote:
        commands = [["-m", "dvc", "pull", *needed], ["-m", "dvc", "repro", "--pull", "-s", stage], ["-c", PUSH]]
    else:
        commands = [["-m", "dvc", "checkout", *needed], ["-m", "dvc", "repro", "-s", stage]]
    said = ""
    for words in commands:
        code, more = _follow([sys.executable, *words], clone, environment, partial(tell, stage))
        said += more
        if code:
            if code < 0 or LOST.search(said):
                raise Lost(f"{stage} was killed or ran out of memory")
            return False
    shutil.rmtree(clone)
    return True


def _folder(place: Place) -> Path:
    if place.folder:
        return Path(place.folder)
    caches = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(caches, "headtohead", place.project)


def _where() -> str:
    """This machine, and the GPU that Ray has chosen there."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    return socket.gethostname() + (f" GPU {gpus}" if gpus else "")


def _unpack(files: bytes, clone: Path) -> None:
    """Make the clone anew; of an earlier try, the checkpoints stay."""
    if clone.exists():
        for path in clone.iterdir():
            if path.name != CHECKPOINTS.name:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    with tarfile.open(fileobj=io.BytesIO(files)) as tar:
        tar.extraction_filter = lambda member, _: member  # our own files; extractall knows no filter before 3.11.4
        tar.extractall(clone)
    for folder in (".cache", ".dvc/tmp"):
        (clone / folder).mkdir(parents=True, exist_ok=True)
    (clone / PROGRESS).touch()


def _environment(place: Place, folder: Path) -> dict[str, str]:
    if place.whole:
        found = place.environment
    else:
        keep_in(folder)
        given = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # set by Ray
        found = given | place.environment | {ALONE: "1"}
    # Ray's own variables differ between workers, which would then share no process with the libraries imported.
    found = {name: value for name, value in found.items() if not name.startswith("RAY_")}
    return found | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{found.get('PATH', os.defpath)}",
                    "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder / "dvc")}


def _follow(command: list[str], clone: Path, environment: dict[str, str],
            tell: Callable[[str, str], Any]) -> tuple[int, str]:
    """Run a command and pass on what it says and how far it is; its exit code, and all that it said."""
    process = subprocess.Popen(["sh", "-c", LEASHED, "sh", *command], cwd=clone, env=environment, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    assert process.stdin
    assert process.stdout
    said, progress = b"", ""
    while process.poll() is None:
        if select.select([process.stdout], [], [], 1.0)[0]:
            if not (more := os.read(process.stdout.fileno(), 65536)):  # closed, though the process has not ended yet
                process.wait()
                break
            said += more
            tell("said", more.decode(errors="replace"))
        elif (now := (clone / PROGRESS).read_text(encoding="utf-8")) != progress:
            tell("progress", progress := now)
    process.stdin.close()  # which ends what a killed process has left behind
    rest = process.stdout.read()
    tell("said", rest.decode(errors="replace"))
    return process.returncode, (said + rest).decode(errors="replace")
