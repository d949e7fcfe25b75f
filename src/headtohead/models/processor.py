"""Which processor this is. Imports no torch: the `fingerprint` stage takes under a second."""

import platform
import re
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def processor() -> str:
    """Model name, or the architecture where the system does not tell (Linux on Arm, for one)."""
    text = CPU_INFO.read_text() if CPU_INFO.exists() else ""
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.machine()
