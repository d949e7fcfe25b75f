"""Measure what one variant costs on this machine, beside standard: latency, memory, training steps, operations."""

from headtohead.inputs import run_identity
from headtohead.params import read_params
from headtohead.paths import EFFICIENCY, details, metrics
from headtohead.profiling.fresh import serve
from headtohead.profiling.profile import HEAVY, profile
from headtohead.progress import Bar
from headtohead.records import write_json
from headtohead.stage import run, writing


def main(variant: str) -> None:
    params = read_params()
    serve([HEAVY])
    folder = details(variant, EFFICIENCY).parent
    folder.mkdir(parents=True, exist_ok=True)
    with Bar(f"profile of {variant}", total=None, thread=False) as bar, writing(folder):
        flat, rest = profile(params, variant, folder / "trace.json.gz", bar.note)
    write_json(metrics(variant, EFFICIENCY), flat)
    write_json(details(variant, EFFICIENCY), {**rest, "run": run_identity(params.preset)})


if __name__ == "__main__":
    run(main, memory="profile.train_batch_sizes, tokenizer.max_length or the model's size")
