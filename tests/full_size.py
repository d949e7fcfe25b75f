"""Peak memory and speed of fetch-subset and tokenize on as many articles of real length as CNN/DailyMail has.

    python tests/full_size.py [--articles 287113] [--file news.csv]

Makes the articles with the bundled generator, unless a file with columns article and highlights is given.
"""

import argparse
import csv
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import yaml

from headtohead.articles.newswire import newswire
from headtohead.progress import Bar

WORDS = (450, 750)  # CNN/DailyMail's articles have 593 words on average in the sample that this was tried with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=int, default=287_113, help="rows of the file, of which 95 %% are used")
    parser.add_argument("--file", type=Path, help="use this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        file = arguments.file.resolve() if arguments.file else write_articles(work / "news.csv", arguments.articles)
        for name in ("src", "stages"):
            shutil.copytree(ROOT / name, work / name)
        (work / "params.yaml").write_text(yaml.safe_dump(params(file, arguments.articles)))
        for stage in ("fingerprint", "fetch_subset", "tokenize"):
            run(stage, work)


def write_articles(file: Path, count: int) -> Path:
    rows = newswire("train", count, seed=1, words=WORDS, distractors=0.2)
    with file.open("w", newline="", encoding="utf-8") as out, Bar("writing articles", total=count) as bar:
        writer = csv.writer(out)
        writer.writerow(["article", "highlights"])
        for row in rows:
            writer.writerow([row["article"], row["summary"]])
            bar.advance()
    print(f"{count:,} articles, {file.stat().st_size / 1e9:.2f} GB")
    return file


def params(file: Path, count: int) -> dict:
    """The news preset on `file`, with nearly all of it: some rows may be near duplicates."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["preset"] = "news"
    small = count // 40
    settings["presets"]["news"]["data"] |= {
        "path": str(file), "article": "article", "summary": "highlights",
        "train": int(count * 0.95) - 2 * small, "validation": small, "test": small}
    return settings


def run(stage: str, work: Path) -> None:
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=work, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6  # the largest so far: tokenize is the largest
    print(f"{stage}: {time.monotonic() - started:,.1f} s, peak memory {peak:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
