"""How a stage runs: arguments, detail on request, and one clear message however it ends.

Imports the standard library alone: it has to say so when another library is missing.
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
    """Call a stage's `main` with what it takes from the command line: a variant's name, a training's seed.

    Args:
        memory: what to lower where memory does not suffice.

    Raises:
        StageError: memory or disk did not suffice. This and every other error becomes one message by `explain`.
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
        if not _out_of_memory(error):
            raise
        raise StageError(f"out of memory; lower {memory}") from error


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next tensor, and not return it to the system at once.

    On a CPU a training step asks again for what the one before freed. To get it back page by page took up to a third
    of its time, now more, now less.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for parameter, size in MALLOPT.items():
            mallopt(parameter, size)


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """Where `what` is written.

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
                         "again, which goes on from here") from error


def explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's `sys.excepthook` in a stage: says in one message what ended it; the traceback goes to a log.

    Raises:
        SystemExit: with code 130, as shells have it, if the user stopped the stage. Python makes any other 1.
    """
    log = _log_traceback("".join(traceback.format_exception(kind, error, trace)))
    print(f"{_message(error)}\n({kind.__name__}; {log})", file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        sys.exit(130)


def _message(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return f"{_name()} was stopped; `dvc repro` goes on from here"
    if isinstance(error, ImportError):
        return f"a library is missing or broken: {error}; set the environment up again: rm -r .venv; make setup"
    return str(error) or "an error without a message"


def _log_traceback(trace: str) -> str:
    """Where the traceback is; a full disk must not hide the message."""
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


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, (OSError, RuntimeError)) and bool(NO_MEMORY.search(str(error))))


def _disk_full(error: Exception) -> bool:
    """Whether Python, or a library that tells by its text alone, found no room."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return bool(NO_SPACE.search(str(error)))
