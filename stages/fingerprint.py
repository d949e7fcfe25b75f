"""Check all of params.yaml, and record the machine with its measured backends, the input and the variants.

Imports no torch.
"""

import logging

from headtohead.articles.folders import locate
from headtohead.inputs import identity, pretrained_files
from headtohead.measured import write_table
from headtohead.models.pretrained import check_pretrained
from headtohead.pace import begin
from headtohead.params import Params, read_params
from headtohead.paths import BACKENDS, MACHINE, PRETRAINED, SOURCE, STEP, VARIANTS
from headtohead.profiling.machine import describe, measured_here
from headtohead.records import write_json
from headtohead.stage import run

log = logging.getLogger(__name__)


def main() -> None:
    params = read_params()
    begin(params)
    warn_about_unused_layers(params)
    write_json(MACHINE, describe())
    for name, spec in params.variants.items():
        write_json(VARIANTS / f"{name}.json", {**spec.model_dump(), "sees": spec.digest()})
    record_backends(params)
    write_json(STEP, params.chosen.train.step)  # DVC cannot depend on keys that may be left out
    data, pretrained = params.chosen.data, params.chosen.model.pretrained
    articles = locate(data) if data.source == "files" else {}
    files = {f"{split} {number}": file for split, parts in articles.items() for number, file in enumerate(parts, 1)}
    write_json(SOURCE, {"source": data.source, "files": identity(files)})
    if pretrained:
        check_pretrained(pretrained)
    model = pretrained_files(pretrained) if pretrained else {}
    write_json(PRETRAINED, {"pretrained": pretrained, "files": identity(model)})


def record_backends(params: Params) -> None:
    """Write for each variant what the table of this machine changes for it, so that only what it changes re-runs."""
    table, preset = measured_here(), params.chosen
    dtypes = {preset.profile.precision, preset.generate.precision}
    for name, spec in params.variants.items():
        layers = spec.layers or (spec,)
        write_table(BACKENDS / f"{name}.json", table.part(layers, dtypes, preset.model.heads))


def warn_about_unused_layers(params: Params) -> None:
    """Warn if the model has fewer layers than a variant names: it takes the first ones, which may not be intended."""
    depth = params.chosen.model.layers
    for name in params.compared:
        if depth and len(params.variants[name].layers) > depth:
            log.warning("variants.%s names %d layers; a model of %d (presets.%s.model.layers) has the first ones alone",
                        name, len(params.variants[name].layers), depth, params.preset)


if __name__ == "__main__":
    run(main)
