"""Call functions in fresh processes, which have imported the libraries and have run nothing yet.

They are forked from a process that has imported the libraries and does nothing else, so they start in milliseconds and
inherit no thread, model or CUDA context. That process is this one if it is itself a fork of the stages' server
(`warm`), else multiprocessing's server. Imports only the standard library: the calling process needs nothing else.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection
from typing import Any

from headtohead.warm import is_fork

GRACE_S = 2.0
DEEPEST = 60  # characters; a socket's path has at most 107, and multiprocessing adds its own


class ProcessError(RuntimeError):
    """A fresh process failed; the message is its error's, the traceback a note."""


class Line:
    """A fresh process's connection to its caller."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def announce(self, what: str) -> None:
        """Say what comes next."""
        self._connection.send(("announcement", what))

    def turn(self) -> None:
        """Let the others continue, and wait for this process's next turn."""
        self._connection.send(("turn", None))
        self._connection.recv()


def serve(modules: list[str]) -> None:
    """Have `modules` imported where processes are forked from; without it, every process imports them.

    multiprocessing's server looks for them where this process does, which older Pythons do not tell it (their issue
    gh-117378).
    """
    if is_fork():
        for module in modules:
            import_module(module)
        return
    _keep_sockets_near()
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    _context().set_forkserver_preload(modules)
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        os.environ |= {} if before is None else {"PYTHONPATH": before}


def _context() -> Any:
    return multiprocessing.get_context("fork" if is_fork() else "forkserver")


def _keep_sockets_near() -> None:
    """Let multiprocessing put its sockets below /tmp if the user's own folder for temporary files lies too deep."""
    own = tempfile.gettempdir()
    if len(own) > DEEPEST:
        tempfile.tempdir = "/tmp"
    util.get_temp_dir()  # it keeps to the first one
    tempfile.tempdir = own


def in_turns(function: Callable[..., Any], calls: list[tuple[object, ...]], announce: Callable[[str], object]
             ) -> list[Any]:
    """`function(*arguments, line)` for each of `calls`, each in a process of its own, and one at a time.

    A process runs until it gives way by `line.turn()` or is done; then the next one does, in the order of `calls`,
    over and over. A process does not start before its first turn.

    Args:
        function, calls: something that can be pickled, and so can what the function returns.
        announce: told here what a function announces by `line.announce`.

    Raises:
        ProcessError: a function raised an error, or its process ended without an answer.
    """
    workers = [_Worker(function, arguments) for arguments in calls]
    waiting = deque(workers)
    try:
        while waiting:
            worker = waiting.popleft()
            if not worker.take_turn(announce):
                waiting.append(worker)
    finally:
        for worker in workers:
            worker.stop()
    return [worker.answer for worker in workers]


class _Worker:
    """One process, as the one that asks sees it."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
        self.answer: Any = None
        self._call = function, arguments
        self._connection: Any = None
        self._process: Any = None

    def take_turn(self, announce: Callable[[str], object]) -> bool:
        """Let it run until it gives way or is done; whether it is done."""
        self._start_or_go_on()
        while True:
            try:
                kind, what = self._connection.recv()
            except EOFError as error:
                self._process.join()
                raise ProcessError(f"a process that measured {_ended(self._process.exitcode)}") from error
            if kind == "turn":
                return False
            if kind == "announcement":
                announce(what)
                continue
            self._process.join()  # it ends by itself, and cleans up
            if kind == "error":
                message, trace = what
                failed = ProcessError(message)
                failed.add_note(trace)
                raise failed
            self.answer = what
            return True

    def stop(self) -> None:
        """End it if it runs; interrupted, it has a moment to clean up."""
        if self._process is None:
            return
        if self._process.is_alive():
            os.kill(self._process.pid, signal.SIGINT)
            self._process.join(GRACE_S)
            self._process.kill()
        self._process.join()
        self._connection.close()

    def _start_or_go_on(self) -> None:
        if self._process is not None:
            self._connection.send("go on")
            return
        context = _context()
        self._connection, theirs = context.Pipe()  # not before: an earlier fork would hold its ends, too
        self._process = context.Process(target=_run, args=(theirs, os.getcwd(), *self._call), daemon=True)
        self._process.start()
        theirs.close()  # or the end of the process would not show


def _run(connection: Connection, folder: str, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    """In the fresh process. Of an interruption, which the terminal sends to all, the process that asked tells."""
    with suppress(KeyboardInterrupt, OSError):  # OSError: the process that asked is no more
        try:
            os.chdir(folder)
            connection.send(("answer", function(*arguments, Line(connection))))
        except Exception as error:
            connection.send(("error", (f"{error}" or type(error).__name__, traceback.format_exc())))


def _ended(exitcode: int | None) -> str:
    """How a process ended that gave no answer."""
    if exitcode == -signal.SIGKILL:
        return "was killed, as Linux does with a process when the machine is out of memory"
    return f"ended without an answer (exit code {exitcode})"
