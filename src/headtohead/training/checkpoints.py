"""A training's checkpoints: which are complete, which is the best, and when they may be removed."""

import hashlib
import json
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from headtohead.inputs import identity
from headtohead.paths import CHECKPOINTS

SEAL = "sealed.json"  # the last file of a checkpoint: what identifies all others


def checkpoint_folder(variant: str, *settings: object) -> Path:
    """Where one training's checkpoints live: outside DVC's outputs, which it deletes before a stage runs.

    Args:
        variant: its name.
        settings: everything besides the code that the result depends on; a difference in any gives another folder.
    """
    versions = (torch.__version__, transformers.__version__)
    digest = hashlib.blake2b(repr((settings, versions, _code())).encode(), digest_size=8).hexdigest()
    return CHECKPOINTS / f"{variant}-{digest}"


def _code() -> list[str]:
    """The source of all our loaded modules: no training continues with other code than it began with."""
    files = {module.__file__ for name, module in sys.modules.items() if name.startswith("headtohead.")}
    return [Path(file).read_text(encoding="utf-8") for file in sorted(filter(None, files))]


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint to resume from; later ones, which are incomplete or damaged, are removed."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1])):
        if _sealed(checkpoint) and _sealed(best_checkpoint(folder, state_of(checkpoint))):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def remove_finished(keep: Collection[Path]) -> None:
    """Remove the checkpoints of finished trainings, except the folders in `keep`.

    They stay until another training begins, because DVC may be killed or find the disk full before it has the model.
    """
    for folder in CHECKPOINTS.glob("*"):
        if folder not in keep and finished(folder):
            shutil.rmtree(folder)


def finished(folder: Path) -> bool:
    """Whether the training with these checkpoints has finished."""
    return any(map(_is_last, folder.glob("checkpoint-*")))


def _sealed(checkpoint: Path) -> bool:
    """Whether its files are exactly those that training wrote."""
    try:
        return bool(json.loads((checkpoint / SEAL).read_text()) == _contents(checkpoint))
    except (OSError, ValueError):
        return False


def _is_last(checkpoint: Path) -> bool:
    return _sealed(checkpoint) and state_of(checkpoint)["global_step"] == state_of(checkpoint)["max_steps"]


def _contents(checkpoint: Path) -> dict[str, dict[str, str | int]]:
    return identity({file.name: file for file in checkpoint.iterdir() if file.name != SEAL})


def state_of(checkpoint: Path) -> dict[str, Any]:
    """Trainer's own state in a complete checkpoint."""
    return json.loads((checkpoint / "trainer_state.json").read_text())


def best_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """The checkpoint with the lowest validation loss so far."""
    return folder / f"checkpoint-{state['best_global_step']}"


class Seal(TrainerCallback):
    """Marks a checkpoint as complete, and only then removes older ones, so that there is always a complete one."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        PartialState().wait_for_everyone()  # each process writes its random state
        if not state.is_world_process_zero:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (checkpoint / SEAL).write_text(json.dumps(_contents(checkpoint)))
        rotate_checkpoints(args.output_dir, save_total_limit=2, best_model_checkpoint=state.best_model_checkpoint)
