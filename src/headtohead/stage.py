"""How a stage runs: arguments, details on request, and one clear message however it ends.

Imports only the standard library, because it has to report when another library is missing.
"""

import argparse
import ctypes
import errno
import inspect
import logging
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

LOGS = Path("logs")
MALLOPT = {-3: 2**25, -1: 2**28}  # M_MMAP_THRESHOLD, to glibc's own ceiling; M_TRIM_THRESHOLD, to four times its own
NO_MEMORY = re.compile(r"out of memory|allocate memory|ALLOC_FAILED", re.IGNORECASE)  # CUDA, the CPU, cuBLAS
NO_SPACE = re.compile(r"No space left|quota exceeded|unexpected pos|iostream error")  # the last two: torch.save


class StageError(RuntimeError):
    """The machine has no more memory or disk; the message says what to do."""


def run(main: Callable[..., None], memory: str = "the model's size or the number of articles") -> None:
    """Call a stage's `main` with its arguments from the command line: a variant's name, a training's seed.

    Args:
        memory: what to lower if memory runs out.

    Raises:
        StageError: out of memory or disk space. `explain` turns this and every other error into one message.
    """
    parser = argparse.ArgumentParser(prog=f"python -m stages.{Path(sys.argv[0]).stem}",
                                     description=sys.modules["__main__"].__doc__)
    for name, parameter in inspect.signature(main).parameters.items():
        parser.add_argument(name, type=int if parameter.annotation is int else str)
    parser.add_argument("-v", "--verbose", action="store_true", help="say in detail what is done")
    arguments = vars(parser.parse_args())
    level = logging.INFO if arguments.pop("verbose") else logging.WARNING
    logging.basicConfig(level=level, format="%(name)s: %(message)s")
    keep_freed_memory()
    try:
        with writing(Path(f"an output of {_name()}")):
            main(**arguments)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise StageError(f"out of memory; lower {memory}") from error


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor instead of returning it to the system at once.

    On a CPU each training step asks again for the memory that the last one freed. Getting it back page by page took a
    varying share of a step's time, up to a third.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for parameter, size in MALLOPT.items():
            mallopt(parameter, size)


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """A context in which `what` is written.

    Raises:
        StageError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if not _disk_full(error):
            raise
        there = next(path for path in (what, *what.parents) if path.exists())
        raise StageError(f"{getattr(error, 'filename', None) or what} cannot be written: the disk is full, "
                         f"{shutil.disk_usage(there).free / 2**20:,.1f} MB are free; free space and run `dvc repro` "
                         "again, which resumes from here") from error


def explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's `sys.excepthook` in a stage: one message says what ended it; the traceback goes to a log.

    Raises:
        SystemExit: with code 130, as in shells, if the user stopped the stage. Otherwise Python exits with code 1.
    """
    log = _log_traceback("".join(traceback.format_exception(kind, error, trace)))
    print(f"{_message(error)}\n({kind.__name__}; {log})", file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        sys.exit(130)


def _message(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return f"{_name()} was stopped; `dvc repro` resumes from here"
    if isinstance(error, ImportError):
        return f"a library is missing or broken: {error}; set the environment up again: rm -r .venv; make setup"
    return str(error) or "an error without a message"


def _log_traceback(trace: str) -> str:
    """Write the traceback to a log and say where it is; a full disk must not hide the message."""
    log = LOGS / f"{_name().replace(' ', '-')}.log"
    try:
        log.parent.mkdir(exist_ok=True)
        log.write_text(trace, encoding="utf-8")
    except OSError as error:
        return f"no traceback: {log}: {error.strerror}"
    return f"traceback in {log}"


def _name() -> str:
    """The stage with its arguments, as it was called."""
    return " ".join([Path(sys.argv[0]).stem, *(word for word in sys.argv[1:] if not word.startswith("-"))])


def out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, (OSError, RuntimeError)) and bool(NO_MEMORY.search(str(error))))


def _disk_full(error: Exception) -> bool:
    """Whether the disk is full, as Python says it or a library that reports it only in its message."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return bool(NO_SPACE.search(str(error)))
