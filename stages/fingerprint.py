"""Check params.yaml whole, and write down the machine and the input's identity; imports no torch."""

from pathlib import Path

from headtohead.data.folders import locate
from headtohead.data.inputs import identity, pretrained_files
from headtohead.data.pretrained import check_pretrained
from headtohead.data.records import write_json
from headtohead.params import read_params
from headtohead.profiling.machine import describe
from headtohead.stage import run


def main() -> None:
    params = read_params()
    write_json(Path("metrics/machine.json"), describe())
    data, pretrained = params.chosen.data, params.chosen.model.pretrained
    articles = locate(data) if data.source == "files" else {}
    files = {f"{split} {number}": file for split, parts in articles.items() for number, file in enumerate(parts, 1)}
    write_json(Path("data/source.json"), {"source": data.source, "files": identity(files)})
    if pretrained:
        check_pretrained(pretrained)
    model = pretrained_files(pretrained) if pretrained else {}
    write_json(Path("data/pretrained.json"), {"pretrained": pretrained, "files": identity(model)})


if __name__ == "__main__":
    run(main)
