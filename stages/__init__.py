"""The pipeline's stages, one short script each: read the parameters, call the package, write the outputs.

They run as modules (`python -m stages.tokenize`): as scripts, `tokenize` and `profile` would shadow the standard
library's modules.
"""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# A queued experiment is a copy of the repository: it must run its own code, not the installed package.
sys.path.insert(0, str(ROOT / "src"))

# On shared cores, OpenMP threads that spin while they wait slow everything, including themselves, twenty-fold; but
# waking threads that sleep takes longer than most operations of a small model. GNU's can spin for a moment.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Stages and their measurements are forks, and a process cannot fork after asking CUDA itself whether it is available.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

# Libraries warn about what is intended, and draw progress bars even into files; they read this when imported.
os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
               "HF_HUB_DISABLE_TELEMETRY": "1"}
if not sys.stderr.isatty():
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

# `.venv/bin/dvc repro` without an activated environment finds another python first; queued copies are below ROOT.
if sys.prefix == sys.base_prefix:
    for folder in (ROOT, *ROOT.parents):
        if (python := folder / ".venv/bin/python").exists():
            os.execv(python, [str(python), *sys.orig_argv[1:]])

# From here on, even while the stage imports its libraries, whatever ends it is reported in one message.
if sys.argv[0] == "-m":  # it runs, and is not just imported
    from headtohead.caches import keep_in
    from headtohead.stage import check_arguments, explain
    from headtohead.warm import hand_over, is_fork
    sys.excepthook = explain
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    keep_in(ROOT)
    if not is_fork():  # else they have been checked
        check_arguments(ROOT / f"{sys.orig_argv[sys.orig_argv.index('-m') + 1].replace('.', '/')}.py")
    hand_over(here=("stages.fingerprint", "stages.fetch_subset"))  # they import nothing heavy
