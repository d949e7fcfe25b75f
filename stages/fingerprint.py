"""Check params.yaml whole, and write down what the machine, the input and the variants are; imports no torch."""


from headtohead.articles.folders import locate
from headtohead.inputs import identity, pretrained_files
from headtohead.models.pretrained import check_pretrained
from headtohead.params import read_params
from headtohead.paths import MACHINE, PRETRAINED, SOURCE, VARIANTS
from headtohead.profiling.machine import describe
from headtohead.records import write_json
from headtohead.stage import run


def main() -> None:
    params = read_params()
    write_json(MACHINE, describe())
    for name, spec in params.variants.items():
        write_json(VARIANTS / f"{name}.json", {**spec.model_dump(), "sees": spec.digest()})
    data, pretrained = params.chosen.data, params.chosen.model.pretrained
    articles = locate(data) if data.source == "files" else {}
    files = {f"{split} {number}": file for split, parts in articles.items() for number, file in enumerate(parts, 1)}
    write_json(SOURCE, {"source": data.source, "files": identity(files)})
    if pretrained:
        check_pretrained(pretrained)
    model = pretrained_files(pretrained) if pretrained else {}
    write_json(PRETRAINED, {"pretrained": pretrained, "files": identity(model)})


if __name__ == "__main__":
    run(main)
