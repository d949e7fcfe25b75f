"""Check params.yaml whole, and write down what the machine, the input and the variants are; imports no torch."""

import logging

from headtohead.articles.folders import locate
from headtohead.inputs import identity, pretrained_files
from headtohead.models.pretrained import check_pretrained
from headtohead.params import Params, read_params
from headtohead.paths import MACHINE, PRETRAINED, SOURCE, VARIANTS
from headtohead.profiling.machine import describe
from headtohead.records import write_json
from headtohead.stage import run

log = logging.getLogger(__name__)


def main() -> None:
    params = read_params()
    tell_of_layers_left_out(params)
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


def tell_of_layers_left_out(params: Params) -> None:
    """A model of fewer layers than a variant names takes the first ones, which may be another thing than was meant."""
    depth = params.chosen.model.layers
    for name in params.compared:
        if depth and len(params.variants[name].layers) > depth:
            log.warning("variants.%s names %d layers; a model of %d (presets.%s.model.layers) has the first ones alone",
                        name, len(params.variants[name].layers), depth, params.preset)


if __name__ == "__main__":
    run(main)
