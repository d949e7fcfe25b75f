"""How far `dvc repro` is, and how long the rest takes, by how long each stage took here before.

Imports only the standard library, because every stage does this before anything else.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from headtohead.paths import BASELINES

if TYPE_CHECKING:
    from headtohead.params import Params

KEPT = 10  # settings whose times are kept
FILE = Path(".cache/pace.json")
NOTHING: dict[str, Any] = {"stages": [], "settings": "", "seconds": {}}


def stages_of(params: "Params") -> list[str]:
    """The pipeline's stages as DVC names them, in the order in which it runs them."""
    variants = params.compared
    trainings = [f"train@{variant}-{seed}" for variant in variants for seed in params.seeds]
    rest = [f"{kind}@{name}" for kind, names in (("generate", variants), ("score", [*variants, *BASELINES]),
                                                  ("profile", variants)) for name in names]
    return ["fingerprint", "fetch-subset", "tokenize", "baselines", *trainings, *rest, "report"]


def begin(params: "Params") -> None:
    """Note which stages a run has, and say how many and how long they take if all have to run."""
    settings = blake2b(params.chosen.model_dump_json().encode(), digest_size=6).hexdigest()
    kept, stages = _read(), stages_of(params)
    seconds = {key: times for key, times in kept["seconds"].items() if key != settings}
    recent = dict(list(seconds.items())[1 - KEPT:])
    kept = {"stages": stages, "settings": settings,
            "seconds": recent | {settings: kept["seconds"].get(settings, {})}}
    _write(kept)
    known = _rest(kept, 0)
    how_long = "not known yet with these settings" if known is None else f"{_words(known)} if all have to run"
    _say(f"{len(stages)} stages; time on this machine: {how_long}")


@contextmanager
def paced() -> Iterator[None]:
    """Say which stage this is, if DVC runs it, and keep how long it takes."""
    stage, began = os.environ.get("DVC_STAGE"), time.monotonic()
    kept = _read()
    if stage in kept["stages"][1:]:  # the first one says more, when it has read the parameters
        place = kept["stages"].index(stage)
        known = _rest(kept, place)
        _say(f"stage {place + 1} of {len(kept['stages'])}"
             + (f"; at most {_words(known)} to the end" if known is not None else ""))
    yield
    if stage in (kept := _read())["stages"]:
        kept["seconds"].setdefault(kept["settings"], {})[stage] = round(time.monotonic() - began, 1)
        _write(kept)


def _rest(kept: dict[str, Any], place: int) -> float | None:
    """Seconds from a stage to the end, if none is skipped; None if no stage of one of the kinds has run yet."""
    times = kept["seconds"].get(kept["settings"], {})
    total = 0.0
    for stage in kept["stages"][place:]:
        alike = [seconds for name, seconds in times.items() if _kind(name) == _kind(stage)]
        if not alike:
            return None
        total += times.get(stage, mean(alike))
    return total


def _kind(stage: str) -> str:
    return stage.partition("@")[0]


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _read() -> dict[str, Any]:
    """What is kept; nothing if that cannot be read, because no stage depends on it."""
    with suppress(OSError, ValueError):
        kept = json.loads(FILE.read_text(encoding="utf-8"))
        if isinstance(kept, dict) and kept.keys() == NOTHING.keys():
            return kept
    return NOTHING


def _write(kept: dict[str, Any]) -> None:
    with suppress(OSError):
        beside = FILE.with_name(f"{FILE.name}.{os.getpid()}")
        FILE.parent.mkdir(exist_ok=True)
        beside.write_text(json.dumps(kept), encoding="utf-8")
        beside.replace(FILE)
