"""The report's first tables: quality and cost of every variant, and every training."""

from collections.abc import Iterable, Mapping
from statistics import median

from headtohead.quality.measures import BLEU, FACT_RECALL, LOSS, ROUGE
from headtohead.reporting.claims import CONTROL, Claims
from headtohead.reporting.results import Results, System, Training, Variant
from headtohead.reporting.tables import LABELS, NOTHING, Table, bracketed, give_or_take, short

SHOWN = (ROUGE[0], ROUGE[3], BLEU, LOSS)  # beside the primary measure
FLAT = {"forward": "forward_ms", "first_token": "first_token_ms", "generate": "generate_ms",
        "train_step": "train_step_ms", "memory": "peak_memory_mb"}


def quality(claims: Claims) -> Table:
    """A row for each variant and baseline: the primary measure and its verdict, then other measures."""
    primary = claims.results.primary
    others = [name for name in SHOWN if name != primary and name in claims.results.standard.quality]
    header = ["variant", claims.primary, "sd (seeds)", f"vs {CONTROL}", "verdict",
              *(LABELS[name] for name in others), "words"]
    rows = []
    for system in (*claims.results.variants, *claims.results.baselines):
        scores = [_score(system, name) for name in others]
        rows.append([system.name, *_primary_cells(claims, system), *scores, f"{system.details['summary_words']:.1f}"])
    return Table(header, rows)


def _primary_cells(claims: Claims, system: System) -> list[str]:
    """The primary measure, its spread over seeds, the difference to full attention and the verdict."""
    score = give_or_take(system.details, claims.results.primary)
    if not isinstance(system, Variant):
        return [score, NOTHING, NOTHING, NOTHING]
    spread, seeds = system.details[f"{claims.results.primary}_spread"], len(system.trainings)
    spread = f"{NOTHING if spread is None else f'{spread:.3f}'} ({seeds})"
    if system.name not in claims.quality:
        return [score, spread, NOTHING, CONTROL]
    return [score, spread, claims.shown(claims.results.primary, system.name), claims.quality[system.name].words]


def _score(system: System, name: str) -> str:
    return f"{system.quality[name]:.3f}" if name in system.quality else NOTHING


def cost(claims: Claims) -> Table:
    """A row for each variant: each cost and its ratio to standard's; then what the variant sees and keeps."""
    costs = _costs(claims, {"forward": "forward ms", "generate": "generate ms", "train_step": "step ms",
                            "memory": "peak MB"})
    kept = [[short(100 * variant.profile["seen_share"]), short(variant.profile["cache_mb"])]
            for variant in claims.results.variants]
    return Table([*costs.header, "seen %", "cache MB"],
                 [[*row, *more] for row, more in zip(costs.rows, kept, strict=True)])


def first_token(claims: Claims) -> Table:
    """The same for the one cost that does not affect the choice."""
    return _costs(claims, {"first_token": "first token ms"})


def _costs(claims: Claims, works: Mapping[str, str]) -> Table:
    header = ["variant"]
    for title in works.values():
        header += [title, "ratio"]
    rows = []
    for variant in claims.results.variants:
        row = [variant.name]
        for work in works:
            row += [short(variant.efficiency[FLAT[work]]), in_times(claims, variant, work)]
        rows.append(row)
    return Table(header, rows)


def in_times(claims: Claims, variant: Variant, work: str) -> str:
    """"0.52 faster (0.51 to 0.53)"."""
    found = claims.costs[variant.name][work]
    value, *interval = found.evidence.partition(" ")
    return f"{value}\u00a0{found.words}{''.join(interval)}".strip()


def controls(claims: Claims) -> list[str]:
    """The kernels of full attention."""
    return [variant.name for variant in claims.results.variants if variant.name not in claims.quality]


def differences(claims: Claims) -> Table:
    """The differences to full attention on every measure, with their intervals."""
    measures = list(claims.others)
    return Table(["variant", *(LABELS[name] for name in measures)],
                 [[name, *(claims.shown(measure, name) for measure in measures)] for name in claims.quality])


def spreads(results: Results) -> Table:
    """The lowest, median and highest score over each variant's trainings."""
    rows = []
    for variant in results.variants:
        cells = []
        for name in _measures(results):
            scores = [training.details[name] for training in variant.trainings]
            cells.append(bracketed(f"{median(scores):.3f}", f"{min(scores):.3f}", f"{max(scores):.3f}"))
        rows.append([variant.name, f"{len(variant.trainings):,}", *cells])
    return Table(["variant", "trainings", *(LABELS[name] for name in _measures(results))], rows)


def trainings(results: Results) -> Table:
    """Every training: its scores, and where its validation loss was lowest."""
    measures = _measures(results)
    rows = [[variant.name, str(training.seed), *(f"{training.details[name]:.4f}" for name in measures),
             f"{training.details['summary_words']:.1f}", *_lowest(training)]
            for variant, training in all_trainings(results)]
    return Table(["variant", "seed", *(LABELS[name] for name in measures), "words", "lowest validation loss", "at step",
                  "of"], rows, words=1)


def _measures(results: Results) -> list[str]:
    return [name for name in (FACT_RECALL, *ROUGE, BLEU, LOSS) if name in results.standard.quality]


def all_trainings(results: Results) -> Iterable[tuple[Variant, Training]]:
    return ((variant, training) for variant in results.variants for training in variant.trainings)


def _lowest(training: Training) -> list[str]:
    step, loss = training.lowest
    return [f"{loss:.4f}", f"{step:,.0f}", f"{training.steps:,.0f}"]
