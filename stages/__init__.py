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

# Stages and their measurements are forks, and a process cannot fork after asking CUDA itself whether it is available.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

# `.venv/bin/dvc repro` without an activated environment finds another python first; queued copies are below ROOT.
if sys.prefix == sys.base_prefix:
    for folder in (ROOT, *ROOT.parents):
        if (python := folder / ".venv/bin/python").exists():
            os.execv(python, [str(python), *sys.orig_argv[1:]])

# From here on, even while the stage imports its libraries, whatever ends it is reported in one message.
if sys.argv[0] == "-m":  # it runs, and is not just imported
    from headtohead.caches import keep_in, settle_libraries
    from headtohead.stage import explain, read_arguments
    from headtohead.warm import hand_over
    sys.excepthook = explain
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settle_libraries()
    keep_in(ROOT)
    read_arguments(ROOT / f"{sys.orig_argv[sys.orig_argv.index('-m') + 1].replace('.', '/')}.py")
    hand_over(here=("stages.fingerprint", "stages.fetch_subset"))  # they import nothing heavy
