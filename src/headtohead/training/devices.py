"""One training on several devices: torchrun's launcher runs a process on each, and the first one speaks for all."""

import json
import logging
import os
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from uuid import uuid4

import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from headtohead.beside import end_with_parent
from headtohead.models.gpt2 import best_device
from headtohead.params import Train
from headtohead.progress import console
from headtohead.stage import keep_freed_memory

PATIENCE = timedelta(hours=1)  # that processes have with one that writes a large checkpoint

T = TypeVar("T")


class DeviceError(RuntimeError):
    """Training on several devices cannot begin or has failed; the message says why."""


def count_devices(settings: Train, key: str) -> int:
    """How many devices a training uses. On a CPU they are processes, as many as asked for; the CPU itself is one.

    Args:
        key: where the settings are, for messages.

    Raises:
        DeviceError: there are fewer GPUs, or none to split a model over.
    """
    asked = settings.devices
    there = torch.cuda.device_count() if best_device().type == "cuda" else None
    if there is None and settings.sharding == "full":
        raise DeviceError(f"{key}.sharding: full needs GPUs, and none can be seen here")
    if not isinstance(asked, int):  # all
        return there or 1
    if there is not None and asked > there:
        raise DeviceError(f"{key}.devices: asks for {asked} GPUs, and {there} can be seen here; lower it, or set all")
    return asked


def launch(work: Callable[..., object], *arguments: object, devices: int) -> None:
    """Call `work(*arguments)` in a fresh process on each device, and wait for all. Only the first one shows anything.

    Args:
        work: a function of a module, because processes find it by its name; the arguments are pickled.

    Raises:
        DeviceError: a process failed; the message is that of the first that did. The others are stopped.
    """
    for name in ("distributed.elastic.agent.server.api", "distributed.elastic.multiprocessing.api", "multiprocessing"):
        logging.getLogger(f"torch.{name}").setLevel(logging.CRITICAL)  # the error says it in one line
    with TemporaryDirectory() as folder:
        config = LaunchConfig(1, 1, devices, run_id=uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
                              local_addr="localhost", max_restarts=0, logs_specs=DefaultLogsSpecs(folder))
        try:
            elastic_launch(config, _process)(work, arguments, torch.get_num_threads(), logging.root.level)
        except ChildFailedError as error:
            raise _first(Path(folder), error, devices) from None
        except SignalException as error:
            raise KeyboardInterrupt from error


def _process(work: Callable[..., object], arguments: tuple[object, ...], cores: int, level: int) -> None:
    """What runs on each device."""
    rank, count = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    end_with_parent()
    keep_freed_memory()
    logging.basicConfig(level=logging.ERROR if rank else level, format="%(name)s: %(message)s")
    if rank:
        console.quiet = True
        warnings.simplefilter("ignore")
    if best_device().type == "cuda":
        torch.cuda.set_device(rank)
        backends = "cpu:gloo,cuda:nccl"  # the first for full state dictionaries of sharded models
    else:
        threads = max(1, cores // count)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # or accelerate would choose
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"  # not cpu:0, onto which torch.load puts nothing
        backends = "gloo"
    distributed.init_process_group(backends, timeout=PATIENCE)
    work(*arguments)
    distributed.destroy_process_group()


def from_first(find: Callable[[], T]) -> T:
    """What `find` returns, called in the first process alone if there are several, because it may change files."""
    if not distributed.is_initialized():
        return find()
    found: list[Any] = [find() if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(found)
    return found[0]


def _first(folder: Path, error: ChildFailedError, devices: int) -> DeviceError:
    """The error of the process that failed first: those of the others, who miss it, are its consequences.

    torchrun's own choice is to the second.
    """
    rank, failure = error.get_first_failure()
    files = sorted(folder.rglob("error.json"), key=lambda file: file.stat().st_mtime_ns)
    if failure.exitcode < 0 or not files:
        return DeviceError(f"process {rank + 1} of {devices} ended: {failure.message}")
    found = json.loads(files[0].read_text())["message"]
    _, _, message = found["message"].partition(": ")  # after the exception's type
    told = DeviceError(f"process {int(files[0].parent.name) + 1} of {devices}: {message}")
    told.add_note(found["extraInfo"]["py_callstack"])
    return told
