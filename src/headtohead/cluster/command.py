"""`h2h run`: `dvc repro` in parallel, on this machine or on a Ray cluster."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory, gettempdir

import ray

import headtohead
from headtohead.cluster.home import Records, RunError, prove, push, reproduce
from headtohead.cluster.pipeline import FIRST, Graph, out_of_date, read_graph
from headtohead.cluster.scheduling import Tasks
from headtohead.cluster.screen import Screen
from headtohead.cluster.slots import Slots, compare_machines
from headtohead.cluster.snapshot import config_of_clones, pack, read_storage
from headtohead.cluster.task import Place
from headtohead.models.sharing import is_small
from headtohead.params import read_params
from headtohead.profiling.machine import cores
from headtohead.progress import console

FOLDER = Path(".cache/run")  # clones, if they are on this machine, and logs
DEEPEST = 25  # characters of a folder for temporary files; a socket's path has at most 107, and Ray adds 81
OBJECTS = 2**28  # bytes for what Ray shares between processes, which is the repository's files


def run(address: str | None, per_gpu: int, keep_going: bool) -> None:
    """Run what is out of date, then a plain `dvc repro`.

    Raises:
        RunError: stages failed, or machines do not suit each other; the message says what to do.
    """
    reproduce(*FIRST)
    graph = read_graph()
    if todo := out_of_date(graph):
        console.print(f"{len(todo)} of {len(graph)} stages are out of date", highlight=False)
        with _connected(address):
            failed = _run(graph, todo, address is None, per_gpu, keep_going)
        if failed:
            raise RunError(f"{len(failed)} failed: {', '.join(failed)}. What has succeeded is recorded, and the same "
                           "command goes on from there")
    prove()


def _run(graph: Graph, todo: Graph, local: bool, per_gpu: int, keep_going: bool) -> dict[str, str]:
    """Run the stages that are out of date; those that failed, and why."""
    for line in compare_machines():
        console.print(line, highlight=False)
    storage, preset = read_storage(), read_params().chosen
    remote = None if local else storage.remote
    threads = int(os.environ.get("OMP_NUM_THREADS", min(2, cores())))
    place = Place(folder=str(FOLDER.resolve()) if local else None, project=_project(),
                  config=config_of_clones(None if remote else storage.cache, remote), remote=remote is not None,
                  environment=_environment(threads))
    if remote:
        push(set().union(*(graph[stage] for stage in todo)) - todo.keys())
    files = pack([preset.data.path, preset.model.pretrained])
    records = Records(graph, pull=remote is not None)
    with Screen(len(todo), FOLDER / "logs") as screen:
        tasks = Tasks(graph, todo, files, place, Slots(per_gpu, threads, is_small(preset.model)), screen, records.add,
                      keep_going)
        try:
            return tasks.run()
        finally:
            records.sort()


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connected to a cluster, or to one that is started on this machine and ends with the context."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0",  # of the processes that are started here
                   "RAY_IGNORE_UNHANDLED_ERRORS": "1"}  # of tasks that are taken back
    quiet = {"log_to_driver": False, "logging_level": "error"}
    near = None if len(gettempdir()) <= DEEPEST else "/tmp"
    with TemporaryDirectory(prefix="ray-", dir=near) as sessions:
        if address is None:
            os.environ.setdefault("RAY_AUTH_TOKEN", token_hex())  # or Ray keeps one in the home folder
            ray.init("local", num_cpus=cores(), object_store_memory=OBJECTS, include_dashboard=False,
                     _temp_dir=sessions, **quiet)
        else:
            try:
                _knock(address)
                ray.init(address, runtime_env={"py_modules": [str(Path(headtohead.__file__).parent)]}, **quiet)
            except OSError as error:
                raise RunError(f"no Ray cluster answers at {address}: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raises: OSError: nothing listens at HOST:PORT, which Ray itself would find out in minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _environment(threads: int) -> dict[str, str]:
    """What tasks find in the environment besides the node's own; on a CPU, the threads decide results."""
    on_gpu = ray.cluster_resources().get("GPU") and "OMP_NUM_THREADS" not in os.environ
    return {} if on_gpu else {"OMP_NUM_THREADS": str(threads)}


def _project() -> str:
    """A name for this repository that no other one has."""
    here = Path.cwd()
    return f"{here.name}-{blake2b(str(here).encode(), digest_size=4).hexdigest()}"
