"""Check params.yaml whole, and write down the machine and the input's identity; imports no torch."""

from pathlib import Path
from typing import Any

from headtohead.data.inputs import identity
from headtohead.data.records import write_json
from headtohead.params import Params, read_params
from headtohead.profiling.machine import describe
from headtohead.stage import run


def main() -> None:
    params = read_params()
    write_json(Path("metrics/machine.json"), describe())
    write_json(Path("data/source.json"), source_identity(params))


def source_identity(params: Params) -> dict[str, Any]:
    """What `fetch-subset` reads besides the parameters: the files' contents."""
    data = params.chosen.data
    return {"source": data.source, "files": identity(data.path) if data.source == "files" and data.path else {}}


if __name__ == "__main__":
    run(main)
