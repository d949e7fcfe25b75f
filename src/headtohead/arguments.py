"""What arguments of the command line may be: each function reads one from text, or says what is wrong with it."""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from math import isfinite

SIZES = {"MB": 1.0, "MiB": 1.0, "GB": 1024.0, "GiB": 1024.0}  # MB is 2**20 bytes everywhere, as in the report
TIMES = {"ms": 1.0, "s": 1000.0}
MOST = 1_000_000  # tokens, or sequences


def whole_number(most: int) -> Callable[[str], int]:
    """From 1 to `most`."""
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
            raise ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most:,}")
        return int(text)

    return read


def share(text: str) -> float:
    if not (re.fullmatch(r"[0-9]*\.?[0-9]+", text) and float(text) <= 1):
        raise ArgumentTypeError(f"{text!r} is not a number from 0 to 1, such as 0.01")
    return float(text)


def with_unit(units: Mapping[str, float]) -> Callable[[str], float]:
    """Reads "4GB" as a number in the first of `units`."""
    def read(text: str) -> float:
        found = re.fullmatch(rf"([0-9]+\.?[0-9]*|\.[0-9]+) ?({'|'.join(units)})", text)
        value = float(found[1]) * units[found[2]] if found else 0.0
        if not (value > 0 and isfinite(value)):
            raise ArgumentTypeError(f"{text!r} is not a number above 0 with a unit ({', '.join(units)}), such as "
                                    f"50{next(iter(units))}")
        return value

    return read


def minutes(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not (isfinite(found) and found > 0):
        raise ArgumentTypeError(f"{text!r} is not a number of minutes above 0, such as 60")
    return found


def preset_name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{,39}", text):
        raise ArgumentTypeError(f"{text!r} is not a name for a preset; use lower-case letters, digits and _")
    return text
