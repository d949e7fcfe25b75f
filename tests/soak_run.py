"""Kill processes of tasks while `h2h run` runs: it must end with the bytes of `dvc repro`.

    python tests/soak_run.py --kills 10 --seed 1
    python tests/soak_run.py --kills 10 --seed 1 --nodes 2

Two nodes are two raylets on this machine, with a working folder each; a DVC remote in a folder is all that they share.
"""

import argparse
import random
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from clone import Clone, contents
from soak import RESULTS

from headtohead.cluster.pipeline import FIRST

PORT = 6399
STAGES = tuple(f"ray::{kind}" for kind in ("tokenize", "baselines", "train", "generate", "score", "profile"))
PATIENCE = 30.0  # seconds that nodes may take to find each other
LOOK = 0.2  # seconds between two looks at what has ended
PAUSE = 5.0  # seconds at most from there to a kill


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=1)
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="soak-") as folder, ExitStack() as at_end:
        clone = Clone(Path(folder) / "clone")
        del clone.environment["TMPDIR"]  # sockets' paths must be short
        started = time.monotonic()
        clone.run("dvc", "repro")
        expected, lock = contents(clone.path, *RESULTS), names(clone)
        print(f"dvc repro: {time.monotonic() - started:.1f} s, {len(expected)} files", flush=True)
        clone.clear()
        roots, words = [], []
        if arguments.nodes > 1:
            clone.run("dvc", "remote", "add", "-d", "storage", str(Path(folder) / "remote"))
            roots = start_nodes(clone, Path(folder), arguments.nodes, at_end)
            words = ["--address", f"127.0.0.1:{PORT}"]
        started = time.monotonic()
        run = subprocess.Popen(["h2h", "run", *words], cwd=clone.path, env=clone.environment)
        killed = kill_tasks(run, clone, [*roots, psutil.Process(run.pid)], random.Random(arguments.seed),
                            arguments.kills, len(lock))
        code = run.wait()
        found = contents(clone.path, *RESULTS)
        differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        print(f"h2h run: {time.monotonic() - started:.1f} s, code {code}, {killed} of {arguments.kills} killed; "
              f"{'differs: ' + ', '.join(differing) if differing else 'equal'}; dvc.lock's stages "
              f"{'in the same order' if names(clone) == lock else 'in another order'}", flush=True)
        sys.exit(1 if code or killed < arguments.kills or differing or names(clone) != lock else 0)


def start_nodes(clone: Clone, folder: Path, count: int, at_end: ExitStack) -> list[psutil.Process]:
    """The first one is this machine's, and all have as many cores as it has by half."""
    cores = max(1, psutil.cpu_count() // count)
    found = []
    for number in range(count):
        where = (["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={folder}/ray"] if number == 0
                 else [f"--address=127.0.0.1:{PORT}"])
        node = subprocess.Popen(["ray", "start", "--block", *where, f"--num-cpus={cores}", "--disable-usage-stats",
                                 "--object-store-memory=100000000"],
                                env=clone.environment | {"XDG_CACHE_HOME": str(folder / f"node{number}")},
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        at_end.callback(node.wait)
        at_end.callback(node.terminate)
        found.append(psutil.Process(node.pid))
        time.sleep(PATIENCE / 3)
    return found


def kill_tasks(run: subprocess.Popen[bytes], clone: Clone, roots: list[psutil.Process], chance: random.Random,
               kills: int, stages: int) -> int:
    """Kill random processes of tasks at random moments while `run` runs; how many it has killed.

    A moment is a number of stages that dvc.lock has by then, and some seconds more. None comes before the first task or
    after the last but one, so that there is something to kill.
    """
    for killed, recorded in enumerate(sorted(chance.sample(range(len(FIRST), stages - 2), kills))):
        while len(names(clone)) < recorded and run.poll() is None:
            time.sleep(LOOK)
        time.sleep(chance.uniform(0, PAUSE))
        while not (name := kill_one(roots, chance)):
            if run.poll() is not None:
                return killed
            time.sleep(LOOK)
        print(f"killed {name}", flush=True)
    return kills


def kill_one(roots: list[psutil.Process], chance: random.Random) -> str:
    """Kill a random process of a task; its name, empty if there is none."""
    try:
        victim = chance.choice([process for root in roots for process in root.children(recursive=True)
                                if of_a_task(process)])
        name = " ".join(victim.cmdline())[:60]
        victim.kill()
    except (IndexError, psutil.NoSuchProcess):
        return ""
    return name


def of_a_task(process: psutil.Process) -> bool:
    """Whether it is a worker that runs a stage, or anything that one has started."""
    try:
        title = (process.cmdline() or [""])[0]  # of a worker: that of its task
        return "clones" in Path(process.cwd()).parts or title.startswith(STAGES)
    except psutil.Error:
        return False


def names(clone: Clone) -> list[str]:
    """The stages in dvc.lock."""
    lock = clone.path / "dvc.lock"
    lines = lock.read_text(encoding="utf-8").splitlines() if lock.exists() else []
    return [line for line in lines if line.startswith("  ") and line[2] not in " -"]


if __name__ == "__main__":
    main()
