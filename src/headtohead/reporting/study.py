"""The study's tables, with ours beside them."""

from headtohead.quality.measures import BLEU, ROUGE
from headtohead.reporting.results import Results
from headtohead.reporting.tables import LABELS, NOTHING, Table, short, with_interval

# "Reducing Inference Time in GPT Models", Tables I and II: A100 40 GB, batch 1, 512 tokens claimed.
STUDY = {
    "standard": {"rouge1": 0.1806, "rouge2": 0.0804, "rougeL": 0.1215, "bleu": 0.0263, "ms": 96.22, "mb": 9465.81},
    "flash": {"rouge1": 0.1608, "rouge2": 0.0691, "rougeL": 0.1076, "bleu": 0.0221, "ms": 73.42, "mb": 8867.81},
    "flash_alibi": {"rouge1": 0.1975, "rouge2": 0.0868, "rougeL": 0.1320, "bleu": 0.0295, "ms": 87.08, "mb": 8865.81},
    "flash_sparse": {"rouge1": 0.1943, "rouge2": 0.0856, "rougeL": 0.1303, "bleu": 0.0282, "ms": 86.86, "mb": 8877.81},
}


def quality(results: Results) -> Table:
    """The study's Table I: ours with its interval, and the study's."""
    measures = (*ROUGE[:3], BLEU)
    header = ["model", *(title for name in measures for title in (LABELS[name], "study's"))]
    rows = [[system.name, *(cell for name in measures for cell in
                            (with_interval(system.details, name), _study(system.name, name, "{:.4f}")))]
            for system in [*results.variants, *results.baselines]]
    return Table(header, rows)


def efficiency(results: Results) -> Table:
    """The study's Table II: median forward latency and peak memory, ours and the study's."""
    header = ["model", "forward ms", "study's inference ms", "peak MB", "study's MB"]
    return Table(header, [[variant.name, short(variant.efficiency["forward_ms"]), _study(variant.name, "ms", "{:.2f}"),
                           short(variant.efficiency["peak_memory_mb"]), _study(variant.name, "mb", "{:,.2f}")]
                          for variant in results.variants])


def _study(name: str, column: str, form: str) -> str:
    return form.format(STUDY[name][column]) if name in STUDY else NOTHING
