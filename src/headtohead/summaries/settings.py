"""How a checkpoint summarizes: as in its training, unless told otherwise. Imports nothing heavy."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headtohead.inputs import identity
from headtohead.params import Generate, ParamsError, Preset, read_params
from headtohead.records import DataError

FILES = ("config.json", "*.safetensors", "tokenizer*.json")  # what a summary depends on


@dataclass(frozen=True)
class Wishes:
    """What is set by hand; None leaves it to the checkpoint."""

    max_length: int | None = None
    max_new_tokens: int | None = None
    beams: int | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Settings:
    """How a checkpoint summarizes.

    Args:
        max_length: tokens of article, separator and summary together; None if only the model's own limit counts.
        backend: see `load`.
    """

    generate: Generate
    max_length: int | None
    backend: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        search = "greedy" if self.generate.beams == 1 else f"{self.generate.beams} beams"
        together = f", {self.max_length:,} with the article" if self.max_length else ""
        return f"{search}, summaries of up to {self.generate.max_new_tokens:,} tokens{together}"


def settings_of(checkpoint: Path, wishes: Wishes) -> Settings:
    """A checkpoint's settings: those that are wished, then those that it was trained with, then its preset's.

    Raises:
        DataError: it is no checkpoint, or neither it nor params.yaml says how long a summary may be.
    """
    training = _config(checkpoint).get("training") or {}
    preset, backend = _preset(training.get("preset"))
    chosen: dict[str, Any] = preset.generate.model_dump() if preset else {
        "batch_size": 16, "beams": 1, "no_repeat_ngram": 0, "precision": "float32"}
    chosen |= {key: training[key] for key in ("max_new_tokens",) if key in training}
    chosen |= {key: value for key, value in asdict(wishes).items() if value is not None and key != "max_length"}
    if chosen["beams"] > 1:  # the preset's prompt lookup is for greedy search
        chosen.pop("lookup", None)
    if "max_new_tokens" not in chosen:
        raise DataError(f"{checkpoint} does not say how long its summaries may be; give --max-new-tokens")
    trained = training.get("max_length", preset.tokenizer.max_length if preset else None)
    return Settings(Generate(**chosen), wishes.max_length or trained, backend)


def digest_of(checkpoint: Path, settings: Settings) -> str:
    """Identifies what a summary follows from, besides its article. The batch size may change it by no more than
    rounding, and neither counts nor does prompt lookup."""
    files = {file.name: file for pattern in FILES for file in sorted(checkpoint.glob(pattern))}
    chosen = settings.generate.model_dump(exclude={"batch_size", "lookup"}) | {"max_length": settings.max_length}
    return short_digest(json.dumps([identity(files), chosen]))


def short_digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _config(checkpoint: Path) -> dict[str, Any]:
    try:
        return json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{checkpoint} is no checkpoint folder: it has no config.json; `dvc repro` makes "
                        "models/VARIANT/SEED") from error
    except ValueError as error:
        raise DataError(f"{checkpoint}/config.json is not JSON: {error}; get the model again") from error


def _preset(name: str | None) -> tuple[Preset | None, str | None]:
    """The preset in params.yaml, and the backend that is set there; there may be none where a model is used."""
    with suppress(ParamsError):
        params = read_params()
        return params.presets.get(name or ""), params.asked_backend
    return None, None
