"""The files of measured tables: this machine's, and the parts of it that the stages of a variant read."""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from headtohead.attention.table import Table
from headtohead.records import DataError, write_json


def read_table(path: Path, machine: Mapping[str, str | None] | None = None) -> Table:
    """The table in a file; an empty one if there is no file, or it was measured on another machine.

    Args:
        machine: this one, as `profiling.machine.decisive` has it; None takes the table of any machine.

    Raises:
        DataError: the file is damaged.
    """
    try:
        table = Table.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Table()
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise DataError(f"{path} is no table of measured backends ({str(error).splitlines()[0]}); delete it, and "
                        "`h2h doctor --measure` makes a new one, or do without") from error
    return table if machine is None or table.machine == machine else Table()


def write_table(path: Path, table: Table) -> None:
    """Write a table, as a whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    write_json(new, table.model_dump())
    os.replace(new, path)
