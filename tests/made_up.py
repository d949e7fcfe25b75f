"""A run that never ran: every file that the report reads, made up from seeds, and scored as a real one is."""

import json
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from headtohead.articles.newswire import moved, newswire
from headtohead.paths import FACTS, LENGTHS, MACHINE, SUBSET, Run, details, metrics
from headtohead.quality.lead import lead3
from headtohead.quality.measures import ROUGE
from headtohead.quality.reading import read_articles
from headtohead.quality.scoring import over_seeds, score
from headtohead.reporting.results import Results, System, Training, Variant

ARTICLES, MOVED = 60, 8
EVIL = "<script>alert('x')</script> | a `tick` *bold* [link](http://evil.example/) ![i](http://evil.example/i.png) &lt;"
SEEDS = (13, 14, 15)
LENGTH = 176  # of the preset laptop
# Which share of facts each variant states rightly, and how long its forward pass takes, in ms.
SKILL = {"standard": 0.80, "flash": 0.80, "flash_alibi": 0.78, "flash_sparse": 0.40}
SPEED = {"standard": 4.0, "flash": 3.0, "flash_alibi": 3.1, "flash_sparse": 3.95}
LUCK = 0.02  # sd over seeds of the share
RUN = {"preset": "laptop", "data": "0" * 64}
TRAINED_ON = {"device": "Virtual CPU", "threads": 1, "backend": "sdpa", "devices": 1}
ACHIEVED = {"tflops": 0.05, "tflops_share": 0.25, "gb_per_s": 2.0, "gb_per_s_share": 0.05}
FALL = (1.34, 0.63, 0.39, 0.19, 0.17, 0.148, 0.139, 0.136)  # validation losses of a training to its end
STEPS = 1200
WRITTEN = ("Dora Quill", "Far Quarry", "Odd Ladder", "999", "31 May")  # by whom misses a fact of each kind


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def random(*of):
    return np.random.default_rng(zlib.crc32(repr(of).encode()))


def make_run(root, seeds=SEEDS, skill=SKILL, speed=SPEED):
    """All files of a run of `skill`'s variants, below `root`."""
    sets = make_sets(root)
    for name in skill:
        make_quality(root, name, seeds, sets, skill[name])
        make_efficiency(root, name, speed[name], speed["standard"])
    make_baselines(root, sets)
    write(root / LENGTHS, json.dumps([
        {"split": split, "articles": articles, "longest article": 222, "cut": 3, "longest summary": 44, "too long": 1}
        for split, articles in (("test", ARTICLES), ("train", 8000), ("validation", 200))]))
    write(root / MACHINE, {"machine": "0123abcd", "processor": "Virtual CPU", "cores": 2, "gpu": None})


def make_sets(root):
    """Test sets with their facts, by name: (articles, facts)."""
    settings = {"seed": 13, "words": (55, 100), "distractors": 0.5}
    articles = {"test": list(newswire("test", ARTICLES, **settings)),
                **{f"test-{scale}x": list(newswire("test", ARTICLES // 3, scale=scale, **settings))
                   for scale in (2, 8)},
                "test-moved": list(moved(MOVED, **settings))}
    articles["test"][0]["article"] += f" {EVIL}"
    sets = {name: (rows, [{"set": name, "id": row["id"], "facts": [with_distance(row, fact) for fact in row["facts"]]}
                          for row in rows]) for name, rows in articles.items()}
    for name, (rows, _) in sets.items():
        write(root / SUBSET / f"{name}.jsonl", rows)
    write(root / FACTS, [fact for _, facts in sets.values() for fact in facts])
    return sets


def with_distance(row, fact):
    behind = len(row["article"][fact["start"]:].split()) + len(row["summary"].partition(fact["value"])[0].split())
    return {key: fact[key] for key in ("kind", "value", "position") if key in fact} | {"distance": round(1.5 * behind)}


def predict(articles, share, rng):
    """Each fact of the reference survives with the probability `share`."""
    rows = []
    for row in articles:
        summary = row["summary"]
        for fact, wrong in zip(row["facts"], WRITTEN, strict=False):
            summary = summary if rng.random() < share else summary.replace(fact["value"], wrong)
        rows.append({"id": row["id"], "reference": row["summary"], "loss": 1.2 - share + rng.normal(0, 0.05),
                     "tokens": 30, "cut": 0, "written_by": "flex, then ours", "later_tokens": 30, "passes": 12,
                     "summary": summary})
    return rows


def make_training(root, ours, sets, share):
    """Predictions, scores and curve of one training."""
    rng = random("training", ours.seed, share)
    rows = predict(sets["test"][0], share, rng)
    rows[0]["summary"] += EVIL
    further = [{"set": name, **row} for name in sets if name != "test" for row in predict(sets[name][0], share, rng)]
    write(root / ours.predictions, rows)
    write(root / ours.trained_on, TRAINED_ON)
    write(root / ours.curve, curve([loss + (1 - share) / 5 for loss in FALL]))
    scores = score([*rows, *further], [fact for _, facts in sets.values() for fact in facts],
                   read_articles(root / SUBSET), "en")
    write(root / ours.quality, {**scores, "run": RUN})
    return scores


def make_quality(root, name, seeds, sets, skill):
    """Every training of a variant; kernels with the same skill have the same luck."""
    shares = {seed: skill + LUCK * random("luck", seed, skill).normal() for seed in seeds}
    flat, rest = over_seeds([make_training(root, Run(name, seed), sets, share) for seed, share in shares.items()])
    write(root / metrics(name, "quality"), flat)
    write(root / details(name, "quality"), {**rest, "run": RUN})


def make_baselines(root, sets):
    articles, facts = sets["test"]
    rows = {"lead3": [{"id": row["id"], "summary": lead3(row["article"], "en"), "reference": row["summary"]}
                      for row in articles], "untrained": predict(articles, 0.0, random("untrained"))}
    for name, own in rows.items():
        write(root / Run(name, 13).predictions, own)
        flat, rest = over_seeds([score(own, facts, read_articles(root / SUBSET), "en")])
        write(root / metrics(name, "quality"), flat)
        write(root / details(name, "quality"), {**rest, "run": RUN})


def curve(losses, steps=STEPS):
    """A curve's file; validation losses evenly spaced, training losses oftener."""
    every = steps // len(losses)
    rows = ["step,training_loss,validation_loss,learning_rate"]
    for number, (before, loss) in enumerate(pairwise((2 * losses[0], *losses)), 1):
        rows += [f"{number * every - every // 2},{(before + loss) / 2},,0.001", f"{number * every},{loss},{loss},0.001"]
    return "\n".join(rows) + "\n"


def pairs(ratio, standard, *of, noise=0.01, count=5):
    """[ours, standard's] of fresh processes, side by side."""
    rng = random("pairs", *of)
    return [[float(standard * ratio * np.exp(rng.normal(0, noise))), float(standard * np.exp(rng.normal(0, noise)))]
            for _ in range(count)]


def timing(work, batch, length, out, median):
    return {"work": work, "batch": batch, "length": length, "new_tokens": out, "dtype": "float32", "median": median,
            "p10": median * 0.97, "p90": median * 1.04, "unit": "ms", "repeats": 20, "samples": [median] * 20}


def forward(kind, batch, length, value):
    """A row of a forward pass; None is a point without room."""
    if value is None:
        return {"work": "forward", "batch": batch, "length": length, "out_of_memory": True}
    if kind == "memory":
        return {"work": "forward", "batch": batch, "length": length, "peak_mb": value, "unit": "MB"}
    return timing("forward", batch, length, 0, value) | {"backend": "sdpa"} | ACHIEVED


def make_efficiency(root, name, ms, standard_ms):
    memory = 388.5 if name == "flash" else 410.0
    timings = [forward("timings", 1, LENGTH, ms), timing("first_token", 1, 144, 1, ms * 1.1),
               timing("generate", 1, 144, 32, ms * 12) | {"backend": "sdpa, then ours"} | ACHIEVED,
               forward("timings", 1, 64, ms / 2), forward("timings", 4, LENGTH, ms * 3),
               *([] if name == "flash_sparse" else [timing("lookup_pass", 1, 144, 16, ms / 2)]),
               timing("attention", 1, 64, 0, ms / 40) | {"backend": "sdpa"} | ACHIEVED,
               timing("attention", 1, LENGTH, 0, ms / 10) | {"backend": "sdpa"} | ACHIEVED,
               *(timing("train_step", batch, LENGTH, 0, batch * ms * 2) | {"backend": "flex"} | ACHIEVED
                 for batch in (4, 8, 16))]
    write(root / metrics(name, "efficiency"), {
        "forward_ms": ms, "generate_ms": ms * 12, "first_token_ms": ms * 1.1, "tokens_per_s": 32 / ms / 12 * 1000,
        "peak_memory_mb": memory, "train_step_ms": ms * 32, "backend": "torch sdpa"})
    operations = [{"name": f"aten::op_{i}", "self_ms": 3 / i, "share": 0.4 / i, "calls": 12} for i in range(1, 9)]
    write(root / details(name, "efficiency"), {
        "device": "Virtual CPU, 2 cores", "dtype": "float32", "backend": "torch sdpa", "run": RUN, "layers": 2,
        "seen_share": 0.6 if name == "flash_sparse" else 1.0, "cache_mb": 0.0625 if name == "flash_sparse" else 0.1719,
        "versions": {"torch": "2"}, "threads": 2, "timings": timings, "operations": operations, "nvml": None,
        "peaks": {"tflops": 0.2, "gb_per_s": 40.0},
        "attention_share": [{"length": 64, "share": 0.1}, {"length": LENGTH, "share": 0.2}],
        "length_limit": None if name == "flash_alibi" else LENGTH,
        "lengths_left_out": [] if name == "flash_alibi" else [256, 512],
        "pairs": {work: pairs(ms / standard_ms, standard_ms * times, name, work) for work, times in
                  {"forward": 1, "first_token": 1.1, "generate": 12, "train_step": 32}.items()}
        | {"memory": pairs(memory / 410, 410.0, name, "memory", noise=0.002)},
        "memory": [forward("memory", 1, LENGTH, 410.0), forward("memory", 1, 64, 400.0),
                   forward("memory", 4, LENGTH, 440.0)]})


def rows(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def edit(path, change):
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    change(content)
    Path(path).write_text(json.dumps(content), encoding="utf-8")


# --- the same in memory, for what is claimed of it


def results(params, recall, ratios=None, *, lead=0.3, words=None, curves=None, noise=0.004, facts=True):
    """`reporting.results.Results` of which claims can be made.

    Args:
        recall: [trainings, articles] of each variant, its share of facts; ROUGE-1 is the same.
        ratios: what a variant's costs are to standard's, by variant and work; 1 if not given.
        words: of a variant's summaries.
        curves: validation losses of a variant's trainings, in order.
    """
    seeds = list(range(13, 13 + len(next(iter(recall.values())))))
    params = params.model_copy(update={"seeds": seeds})
    variants = [_variant(params.variants[name], name, scores, seeds, (ratios or {}).get(name, {}), noise, facts,
                         (words or {}).get(name, 20.0), (curves or {}).get(name, [FALL] * len(seeds)))
                for name, scores in recall.items()]
    return Results(params, variants, [System("Lead-3", {"fact_recall": lead, "rouge1": lead}, {})], {}, [
        {"split": "test", "articles": 1000, "cut": 0}])


def _variant(spec, name, scores, seeds, ratios, noise, facts, words, curves):
    trainings = [Training(seed, {"articles": _columns(own, facts)},
                          [{"step": 100.0 * (i + 1), "validation_loss": loss} for i, loss in enumerate(losses)])
                 for seed, own, losses in zip(seeds, scores, curves, strict=True)]
    mean = float(np.mean(scores))
    quality = {"rouge1": mean, "seeds": len(seeds)} | ({"fact_recall": mean} if facts else {})
    costs = {work: pairs(ratios.get(work, 1.0), 10.0, name, work, noise=noise)
             for work in ("forward", "first_token", "generate", "train_step", "memory")}
    return Variant(name, quality, quality | {"summary_words": words}, spec, trainings, {},
                   {"pairs": costs, "device": "Virtual CPU", "threads": 2})


def _columns(recall, facts):
    return {**dict.fromkeys(ROUGE, recall), "loss": 1.0 - recall, "tokens": np.full(len(recall), 30),
            "bleu_statistics": [[10, 10, 5, 4, 3, 2, 10, 9, 8, 7]] * len(recall),
            **({"facts": np.full(len(recall), 5), "facts_found": 5 * recall} if facts else {})}
