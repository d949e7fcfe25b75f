"""Where libraries keep what they make to be quicker the next time: in the repository, not in the user's home.

Imports the standard library alone, and runs before any library is imported.
"""

import os
from pathlib import Path

from headtohead.inputs import resolve

FOLDERS = {"MPLCONFIGDIR": "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton",
           "CUDA_CACHE_PATH": "cuda"}


def keep_in(repository: Path) -> None:
    """Tell libraries by the environment, where it does not say otherwise, to use .cache/ of this repository.

    Queued experiments share that of the workspace. What the hub's libraries download is shared by all of a user's
    projects and stays in the home folder, if one can write there.
    """
    cache = resolve(".cache", repository)
    for variable, folder in FOLDERS.items():
        os.environ.setdefault(variable, str(cache / folder))
    if not _can_write("~/.cache"):
        os.environ.setdefault("XDG_CACHE_HOME", str(cache))


def _can_write(folder: str) -> bool:
    """Whether there is such a folder to write in, or it can be made."""
    try:
        path = Path(folder).expanduser()
    except RuntimeError:  # who the user is is not known
        return False
    there = next(parent for parent in (path, *path.parents) if os.path.exists(parent))
    return os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)
