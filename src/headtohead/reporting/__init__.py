"""The report: `build` writes it from the files of the other stages, `print_comparison` shows its main table."""

from headtohead.reporting.publish import publish
from headtohead.reporting.report import build, print_comparison

__all__ = ["build", "print_comparison", "publish"]
