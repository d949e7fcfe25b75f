"""Run work in a fork of this process, beside other work that does not fill the cores."""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TypeVar

PR_SET_PDEATHSIG = 1
ALONE = "HEADTOHEAD_ALONE"  # in the environment: train no further model beside, `h2h run` does so elsewhere

T = TypeVar("T")


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[Any]:
    """Run `work` in a fork of this process beside the body, and wait for it; if the body fails, stop it.

    Its output is discarded. Call this before PyTorch has computed anything: a fork has no OpenMP threads.

    Yields:
        The process; after the body, its `exitcode` says whether the work succeeded.
    """
    process = multiprocessing.get_context("fork").Process(target=_silently, args=(work,), daemon=True)
    process.start()
    try:
        yield process
        process.join()
    finally:
        process.kill()
        process.join()


def halved(work: Callable[[T], object], items: Sequence[T]) -> None:
    """Do `work` with each of `items`, every second one in a fork. If that fails, its items are done here instead."""
    rest = items[1::2]
    with beside(lambda: [work(item) for item in rest]) as other:
        for item in items[::2]:
            work(item)
    if other.exitcode:
        for item in rest:
            work(item)


def end_with_parent() -> None:
    """Let this process be killed when its parent ends: two must never write the same files. Only Linux can."""
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _silently(work: Callable[[], object]) -> None:
    end_with_parent()
    with open(os.devnull, "r+") as null, redirect_stdout(null), redirect_stderr(null):
        for stream in range(3):
            os.dup2(null.fileno(), stream)
        try:
            work()
        except Exception:
            os._exit(1)
