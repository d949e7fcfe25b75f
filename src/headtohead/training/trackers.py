"""Experiment trackers that follow a training: those that the environment asks for."""

import os

from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

VARIABLE = "HEADTOHEAD_REPORT_TO"


def trackers() -> list[TrainerCallback]:
    """The trackers that `VARIABLE` names, such as "mlflow,wandb"; none without it, because some send data away.

    Raises:
        ValueError: one is unknown, or not installed.
    """
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    found = []
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            raise ValueError(f"{VARIABLE}: there is no tracker {name!r}; there are {known}")
        try:
            found.append(INTEGRATION_TO_CALLBACK[name]())
        except (ImportError, RuntimeError) as error:
            raise ValueError(f"{VARIABLE}: {name} does not work here: {error}") from error
    return found
