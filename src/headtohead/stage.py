"""How a stage runs: arguments, details on request, and one clear message however it ends.

Imports only the standard library, because it has to report when another library is missing.
"""

import argparse
import ast
import ctypes
import errno
import logging
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from headtohead.pace import paced
from headtohead.paths import BASELINES

LOGS = Path("logs")
MALLOPT = {-3: 2**25, -1: 2**28}  # M_MMAP_THRESHOLD, to glibc's own ceiling; M_TRIM_THRESHOLD, to four times its own
NO_MEMORY = re.compile(r"out of memory|allocate memory|ALLOC_FAILED", re.IGNORECASE)  # CUDA, the CPU, cuBLAS
ARGUMENTS: dict[str, Any] = {}  # of this process's stage, once `read_arguments` has read them
NO_SPACE = re.compile(r"No space left|quota exceeded|unexpected pos|iostream error")  # the last two: torch.save


class StageError(RuntimeError):
    """The machine has no more memory or disk; the message says what to do."""


def run(main: Callable[..., None], memory: str = "the model's size or the number of articles") -> None:
    """Call a stage's `main` with the arguments that `read_arguments` found: a variant's name, a training's seed.

    Args:
        memory: what to lower if memory runs out.

    Raises:
        StageError: out of memory or disk space. `explain` turns this and every other error into one message.
    """
    arguments = dict(ARGUMENTS)
    level = logging.INFO if arguments.pop("verbose", False) else logging.WARNING
    logging.basicConfig(level=level, format="%(name)s: %(message)s")
    keep_freed_memory()
    try:
        with writing(Path(f"an output of {_name()}")), paced():
            main(**arguments)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise StageError(f"out of memory; lower {memory}") from error


class _Parser(argparse.ArgumentParser):
    """A stage's command line."""

    def __init__(self, stage: str, about: str | None, types: Mapping[str, type[int] | type[str]]) -> None:
        super().__init__(prog=f"python -m stages.{stage}", description=about)
        self._types = types
        for name, kind in types.items():
            self.add_argument(name, type=kind)
        self.add_argument("-v", "--verbose", action="store_true", help="say in detail what is done")

    def error(self, message: str) -> NoReturn:
        """Say, too, which variants and seeds there are."""
        there = [f"\n{name}: {', '.join(map(str, known))}" for name, known in _known().items() if name in self._types]
        super().error("".join([message, *there]))


def read_arguments(script: Path) -> None:
    """Read a stage's arguments, before it imports its libraries, which takes seconds; answer wrong ones and `--help`.

    They are the parameters of the `main` in `script`, which is not imported for that.
    """
    tree = ast.parse(script.read_text(encoding="utf-8"))
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    types = {argument.arg: int if ast.unparse(argument.annotation or main) == "int" else str
             for argument in main.args.args}
    parser = _Parser(script.stem, ast.get_docstring(tree), types)
    ARGUMENTS.update(vars(parser.parse_args()))
    name = ARGUMENTS.get("variant")
    # Reading all of params.yaml takes as long as all else here, so only a name that seems not to be in it is checked.
    if name in (None, *BASELINES) or re.search(rf"\b{re.escape(str(name))}\b", _text("params.yaml")):
        return
    if (variants := _known().get("variant")) and name not in variants:
        near = get_close_matches(name, variants, n=1)
        parser.error(f"there is no variant {name!r}" + (f"; did you mean {near[0]}?" if near else ""))


def _text(path: str) -> str:
    with suppress(OSError, ValueError):
        return Path(path).read_text(encoding="utf-8")
    return ""


def _known() -> dict[str, list[Any]]:
    """The variants and seeds of params.yaml; nothing if that cannot be read, which the stage itself will say."""
    with suppress(ImportError, ValueError):
        from headtohead.params import read_params

        params = read_params()
        return {"variant": list(params.variants), "seed": params.seeds}
    return {}


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
