"""Measure what one variant costs on this machine, beside standard: latency, memory, training steps, operations."""

from pathlib import Path

from headtohead.params import read_params
from headtohead.profiling.fresh import serve
from headtohead.profiling.profile import HEAVY, profile
from headtohead.progress import Bar
from headtohead.records import write_json
from headtohead.stage import run, writing


def main(variant: str) -> None:
    params = read_params()
    serve([HEAVY])
    details = Path(f"data/details/{variant}")
    details.mkdir(parents=True, exist_ok=True)
    with Bar(f"profile of {variant}", total=None) as bar, writing(details):
        flat, rest = profile(params, variant, details / "trace.json.gz", bar.note)
    write_json(Path(f"metrics/variants/{variant}/efficiency.json"), flat)
    write_json(details / "efficiency.json", rest)


if __name__ == "__main__":
    run(main, memory="profile.train_batch_sizes, tokenizer.max_length or the model's size")
