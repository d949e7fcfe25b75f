"""Which machine this is, for metrics/machine.json. Imports no torch: the `fingerprint` stage takes under a second."""

import os
import platform
import re
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pynvml

from headtohead.attention.table import Table
from headtohead.inputs import resolve
from headtohead.measured import read_table
from headtohead.models.processor import processor
from headtohead.paths import MEASURED
from headtohead.profiling.nvml import opened

# Those that can move a number of the report.
PACKAGES = ("torch", "triton", "flash-attn", "transformers", "accelerate", "datasets", "tokenizers", "numpy",
            "evaluate", "rouge-score", "nltk", "sacrebleu", "snowballstemmer", "py3langid", "sentencex")

DECISIVE = ("gpu", "driver", "cuda_visible_devices", "torch", "triton", "flash-attn")  # for kernels' speed

MACHINE_ID = Path("/etc/machine-id")
MEMORY_INFO = Path("/proc/meminfo")


def describe() -> dict[str, str | int | None]:
    """Hardware, driver and versions, flat: the same again on the same machine, another on another.

    Nothing in it may change by itself (a time, a clock, memory, which virtual machines grow): DVC measures again
    whenever it changes. GPU memory is in GB of 2**30 bytes; what a machine lacks is None.
    """
    return {
        "machine": hashed_id(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        **_gpus(),
        # These decide which of the hardware a run uses, and so belong to its identity.
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
        **versions(),
    }


def decisive() -> dict[str, str | None]:
    """Of `describe`, what decides how fast kernels are: a table of backends was measured with the same, or is void."""
    here = describe()
    return {name: None if here[name] is None else str(here[name]) for name in DECISIVE}


def measured_here() -> Table:
    """The table that `h2h doctor --measure` made on this machine, as it is now; empty if there is none.

    Raises:
        DataError: its file is damaged.
    """
    machine = decisive()
    return read_table(resolve(MEASURED), machine).model_copy(update={"machine": machine})


def versions() -> dict[str, str | None]:
    """Installed version of each of `PACKAGES`, without importing it; None if it is not installed."""
    return {package: _version(package) for package in PACKAGES}


def hashed_id() -> str:
    """12 hex digits that tell machines apart and do not reveal the id they come from."""
    own = MACHINE_ID.read_text().strip() if MACHINE_ID.exists() else ""
    # A container image may bring no id, or an empty one.
    source = own or f"{platform.node()} {processor()}"
    return blake2b(source.encode(), digest_size=6, key=b"headtohead").hexdigest()


def cores() -> int:
    """Processor cores that this process may use; on Linux those of its affinity mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> tuple[int, int]:
    """Bytes that processes may still take, and bytes in all; where the system tells only the latter, both are these."""
    text = MEMORY_INFO.read_text() if MEMORY_INFO.exists() else ""
    found = {name: 1024 * int(kb) for name, kb in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    total = found.get("MemTotal") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return found.get("MemAvailable", total), total


def _gpus() -> dict[str, str | None]:
    """Every NVIDIA GPU with its memory, and what drives them."""
    with opened() as available:
        if not available:
            return {"gpu": None, "driver": None, "cuda": None}
        gpus = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()  # 13000 is 13.0
        return {"gpu": ", ".join(map(_gpu, gpus)) or None, "driver": pynvml.nvmlSystemGetDriverVersion(),
                "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}"}


def _gpu(gpu: object) -> str:
    return f"{pynvml.nvmlDeviceGetName(gpu)} {round(pynvml.nvmlDeviceGetMemoryInfo(gpu).total / 2**30)} GB"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
