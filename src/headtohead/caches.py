"""What libraries read from the environment: where they keep their caches, how their threads wait, what they say.

Imports only the standard library, and runs before any other library is imported.
"""

import os
import sys
from pathlib import Path

from headtohead.inputs import resolve

FOLDERS = {"MPLCONFIGDIR": "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton",
           "CUDA_CACHE_PATH": "cuda"}


def keep_in(repository: Path) -> None:
    """Point libraries to .cache/ in this repository by environment variables, unless these are already set.

    Queued experiments share the workspace's. Downloads from the hub are shared by all of a user's projects and stay in
    the home folder, if it can be written to.
    """
    cache = resolve(".cache", repository)
    for variable, folder in FOLDERS.items():
        os.environ.setdefault(variable, str(cache / folder))
    if not _can_write("~/.cache"):
        os.environ.setdefault("XDG_CACHE_HOME", str(cache))


def settle_libraries() -> None:
    """Let threads wait as suits small models on shared cores, and libraries say nothing that is intended.

    On shared cores, OpenMP threads that spin while they wait slow everything, including themselves, twenty-fold; but
    waking threads that sleep takes longer than most operations of a small model. GNU's can spin for a moment.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Libraries warn about what is intended, and draw progress bars even into files.
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
                   "HF_HUB_DISABLE_TELEMETRY": "1"}
    if not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def _can_write(folder: str) -> bool:
    """Whether the folder can be written to, or created."""
    try:
        path = Path(folder).expanduser()
    except RuntimeError:  # the user is not known
        return False
    there = next(parent for parent in (path, *path.parents) if os.path.exists(parent))
    return os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)
