"""Which task runs when: Ray starts each as soon as what it reads is there and a machine has room for it."""

import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from headtohead.cluster.home import as_lock, read_lock
from headtohead.cluster.pipeline import Graph
from headtohead.cluster.screen import Screen
from headtohead.cluster.slots import PROFILE, Slots
from headtohead.cluster.task import Lost, Place, run_stage

TRIES = 5
LOOK = 1.0  # seconds between two looks at the tasks


class News:
    """A Ray actor: what tasks have to say, until it is read."""

    def __init__(self) -> None:
        self._news: list[tuple[str, str, str]] = []

    def tell(self, *news: str) -> None:
        self._news.append(news)  # type: ignore[arg-type]

    def take(self) -> list[tuple[str, str, str]]:
        taken, self._news = self._news, []
        return taken


def remote_stage(stage: str, needed: set[str], files: bytes, lock: bytes, place: Place, news: Any) -> bool:
    return run_stage(stage, needed, files, lock, place, news.tell.remote)


@dataclass
class Tasks:
    """All tasks of a run.

    Args:
        record: is given the stages that have just succeeded.
    """

    graph: Graph
    todo: Graph
    files: bytes
    place: Place
    slots: Slots
    screen: Screen
    record: Callable[[Sequence[str]], None]
    keep_going: bool
    failed: dict[str, str] = field(default_factory=dict)  # stage, and why

    def __post_init__(self) -> None:
        self._files = ray.put(self.files)
        self._running: dict[Any, str] = {}  # and what waits for a slot
        self._begun: set[str] = set()
        self._news = ray.remote(News).options(num_cpus=0, scheduling_strategy=self.slots.home()).remote()

    def run(self) -> dict[str, str]:
        """Run all of them; those that failed, with the reason. Interrupted, it records what has succeeded."""
        order = TopologicalSorter(self.todo)
        order.prepare()
        profiles: list[str] = []
        with _interruption() as interrupted:
            while order.is_active():
                if self.keep_going or not self.failed:
                    ready = order.get_ready()
                    profiles += [stage for stage in ready if _is_profile(stage)]
                    self._start([stage for stage in ready if not _is_profile(stage)])
                    if not self._running and profiles:  # nothing runs beside what is timed
                        self._start([profiles.pop(0)])
                if not self._running:
                    break
                for stage in self._finished(LOOK):
                    order.done(stage)
                if interrupted.is_set():
                    raise KeyboardInterrupt
        return self.failed

    def _start(self, stages: Sequence[str]) -> None:
        if stages:
            entries = read_lock()  # once, because with many trainings it takes seconds
            for stage in stages:
                self._start_one(stage, as_lock(entries, {stage, *self.graph[stage]}))

    def _start_one(self, stage: str, lock: bytes) -> None:
        """Start a task; `lock` is a dvc.lock of what concerns it, because DVC writes all of it anew in the clone."""
        place = self.place
        if _is_profile(stage):  # as `dvc repro` does here
            place = dataclasses.replace(place, environment=dict(os.environ), whole=True)
        options = self.slots.needs(stage) | {"max_retries": TRIES - 1, "retry_exceptions": [Lost], "name": stage}
        self._running[ray.remote(remote_stage).options(**options).remote(
            stage, self.graph[stage], self._files, lock, place, self._news)] = stage

    def _finished(self, seconds: float) -> list[str]:
        """The stages that have succeeded by now; waits so long for the first one."""
        done, _ = ray.wait([*self._running], num_returns=1, timeout=seconds)
        if done:
            done, _ = ray.wait([*self._running], num_returns=len(self._running), timeout=0)
        for news in ray.get(self._news.take.remote()):
            self.screen.tell(*news)
            self._begun.add(news[0])
        succeeded = []
        for result in done:
            stage = self._running.pop(result)
            if reason := _reason(result):
                self.failed[stage] = reason
                self.screen.failed(stage, reason)
            else:
                succeeded.append(stage)
        if self.failed and not self.keep_going:
            self._withdraw()
        if succeeded:
            self.record(succeeded)
        for stage in succeeded:
            self.screen.succeeded(stage)
        self.screen.draw()
        return succeeded

    def _withdraw(self) -> None:
        """Take back what waits for a slot."""
        for result, stage in [*self._running.items()]:
            if stage not in self._begun:
                ray.cancel(result)
                del self._running[result]


@contextmanager
def _interruption() -> Iterator[threading.Event]:
    """Set by the first Ctrl+C, which is not to cut short what is being recorded; the second one interrupts as usual.

    SIGTERM, by which schedulers of clusters end a job, does the same.
    """
    pressed = threading.Event()

    def press(*_: object) -> None:
        pressed.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, press) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield pressed
    finally:
        restore()


def _is_profile(stage: str) -> bool:
    return stage.partition("@")[0] == PROFILE


def _reason(result: Any) -> str | None:
    """Why a task failed; None if it did not."""
    try:
        return None if ray.get(result) else "it has failed"
    except Lost:
        return f"it was killed or ran out of memory {TRIES} times"
    except RayTaskError as error:
        return f"it could not be run: {type(error.cause).__name__}: {error.cause}"
    except RayError as error:
        return f"its worker or machine has died {TRIES} times ({type(error).__name__})"
