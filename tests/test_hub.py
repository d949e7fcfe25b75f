"""The hub's own libraries against a hub on this machine: articles, the pretrained model, the preset `paper` whole."""

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import yaml
from clone import Clone, executed
from safetensors.torch import load_file
from stand_in_hub import Repository, Request, StandInHub, make_articles, make_paper

import headtohead
from headtohead.articles.hub import stream
from headtohead.articles.newswire import newswire
from headtohead.articles.sources import open_splits
from headtohead.attention import AttentionSpec
from headtohead.inputs import pretrained_source
from headtohead.models.checkpoints import build
from headtohead.models.pretrained import check_pretrained
from headtohead.params import STUDY, Hub, read_params
from headtohead.records import DataError, Record, read_jsonl
from headtohead.tokens.tokenizer import pretrained_tokenizer

PAPER = read_params().presets["paper"]
STORIES = list(newswire("train", 288, seed=1, words=(55, 100), distractors=0.2))
TEST, VALIDATION = STORIES[:36], STORIES[36:72]
LARGE = Hub(name="someone/large", config="3.0.0", revision="1" * 40)
GROUP = 400  # rows in each of its row groups, of which training has 80
Ask = Callable[..., object]


def random_articles(count: int) -> list[Record]:
    """Text that does not compress, so that its bytes can be told from what surrounds them."""
    rng = random.Random(0)
    return [{"id": str(i), "article": " ".join(rng.randbytes(4).hex() for _ in range(150)), "summary": f"Of {i}."}
            for i in range(count)]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> dict[str, Repository]:
    folder = tmp_path_factory.mktemp("hub")
    repositories = make_paper(folder, TEST + VALIDATION + STORIES, small=True)  # training repeats the other splits
    repositories["datasets/someone/large"] = Repository(
        make_articles(folder / "large", random_articles(100 * GROUP)), LARGE.revision)
    numbers = [row | {"article": len(row["article"])} for row in STORIES]
    repositories["datasets/someone/numbers"] = Repository(
        make_articles(folder / "numbers", numbers), PAPER.data.hub.revision)
    shutil.copytree(folder / "model", folder / "pickles", ignore=shutil.ignore_patterns("*.safetensors"))
    repositories["someone/pickles"] = Repository(folder / "pickles", "2" * 40)
    config = json.loads((shutil.copytree(folder / "model", folder / "crossing") / "config.json").read_text())
    (folder / "crossing/config.json").write_text(json.dumps(config | {"add_cross_attention": True}))
    repositories["someone/crossing"] = Repository(folder / "crossing", "6" * 40)
    return repositories


@contextmanager
def user_of(hub: StandInHub, home: Path) -> Iterator[Ask]:
    """Calls functions in a process of its own, which finds the hub's address in its environment as a user's does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(home))
        with ProcessPoolExecutor(1, get_context("spawn"), initializer=wait_for_no_threads) as process:
            yield lambda *call: process.submit(*call).result()


def wait_for_no_threads() -> None:
    """`datasets` sleeps for five seconds after each split, for Arrow's threads to end."""
    import datasets
    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0


@pytest.fixture(scope="module")
def hub(repositories) -> Iterator[StandInHub]:
    with StandInHub(repositories) as hub:
        yield hub


@pytest.fixture(scope="module")
def ask(hub, tmp_path_factory) -> Iterator[Ask]:
    with user_of(hub, tmp_path_factory.mktemp("home")) as ask:
        yield ask


def data(hub: dict[str, str] | None = None, **changes):
    return PAPER.data.model_copy(update={"train": 150, "validation": 20, "test": 20, **changes,
                                         "hub": PAPER.data.hub.model_copy(update=hub or {})})


def read(settings, seed=1):
    splits, tallies = open_splits(settings, seed)
    return {name: list(rows) for name, rows in splits.items()}, tallies


def first(count: int, seed: int) -> list[int]:
    return [int(row["id"]) for row in islice(stream(LARGE, "train", "article", "highlights", seed), count)]


def files(requests: list[Request]) -> Counter[str]:
    """How often each file's content was sent."""
    return Counter(Path(request.path).name for request in requests if request.sent and "/api/" not in request.path)


def test_articles_come_from_their_own_splits_and_none_is_in_two(ask, hub):
    splits, tallies = ask(read, data())
    assert "/main" not in str(hub.requests)  # the pinned revision alone
    assert {name: len(rows) for name, rows in splits.items()} == {"test": 20, "validation": 20, "train": 150}
    ids = {name: {row["id"] for row in rows} for name, rows in splits.items()}
    assert ids["test"] < {row["id"] for row in TEST}
    assert ids["validation"] < {row["id"] for row in VALIDATION}
    assert not ids["train"] & (ids["test"] | ids["validation"])
    assert tallies[-1].dropped["exact duplicates"]
    originals = {row["id"]: row for row in STORIES}
    assert all(row[side] == originals[row["id"]][side]
               for rows in splits.values() for row in rows for side in ("article", "summary"))


def test_the_seed_decides_the_sample_from_many_places_and_the_rest_is_not_downloaded(ask, hub, repositories):
    hub.requests.clear()
    articles = ask(first, 100, 1)
    sent = sum(request.sent for request in hub.requests if "train-" in request.path)
    sizes = {path: entry["size"] for path, entry in repositories["datasets/someone/large"].entries.items()}
    assert sent < sum(size for path, size in sizes.items() if "train-" in path) / 4
    assert len({number // GROUP for number in articles}) >= 8
    assert ask(first, 100, 1) == articles
    assert len(set(ask(first, 100, 2)) & set(articles)) < 50


@pytest.mark.parametrize(("changes", "message"), [
    ({"hub": {"name": "abisee/cnn"}}, r"hub refuses abisee/cnn, revision \w+ \(data\.hub\): Repository Not Found"),
    ({"hub": {"revision": "3" * 40}}, r"refuses abisee/cnn_dailymail, revision 3+ \(data\.hub\): Revision Not Found"),
    ({"hub": {"config": "4.0.0"}}, r"\(4\.0\.0, test\) cannot be read from the hub: .*'4\.0\.0' not found.*'3\.0\.0'"),
    ({"article": "text"}, r"has no column 'text' \(data\.article, .*its columns are article, highlights, id"),
    ({"hub": {"name": "someone/numbers"}}, r"someone/numbers: column 'article' holds int '\d+', and must hold text"),
])
def test_what_the_hub_does_not_have_is_named(ask, changes, message):
    with pytest.raises(DataError, match=f"^[^\n]*{message}[^\n]*$"):
        ask(read, data(**changes))


def load() -> tuple[int, dict[str, np.ndarray]]:
    """How many tokens the pretrained model's tokenizer has, and its weights."""
    tokenizer = pretrained_tokenizer(PAPER.tokenizer, pretrained_source(PAPER.model.pretrained), [])
    model = build(AttentionSpec(), PAPER.model, tokenizer, PAPER.tokenizer.max_length, seed=1)
    return len(tokenizer), {name: weight.detach().numpy() for name, weight in model.transformer.named_parameters()}


def same(weights: dict[str, np.ndarray], repository: Repository) -> bool:
    served = load_file(repository.folder / "model.safetensors")
    return all(np.array_equal(weights.pop(name), served[name]) for name in set(weights)) and not weights


def test_the_pretrained_model_is_downloaded_once_without_pickles_and_then_needs_no_hub(repositories, tmp_path):
    hub = StandInHub(repositories)
    with user_of(hub, tmp_path) as ask:
        with hub:
            tokens, weights = ask(load)
            assert tokens == 50257
            assert same(weights, repositories["openai-community/gpt2"])
            assert files(hub.requests) == dict.fromkeys(
                ["config.json", "generation_config.json", "merges.txt", "model.safetensors", "tokenizer.json",
                 "tokenizer_config.json", "vocab.json"], 1)
            hub.requests.clear()
            ask(load)
            assert not files(hub.requests)
        started = time.monotonic()
        assert same(ask(load)[1], repositories["openai-community/gpt2"])
        assert time.monotonic() - started < 10
        with pytest.raises(DataError, match=r"^model.pretrained someone/new@5+: .* does not give it: .*refused$"):
            ask(pretrained_source, f"someone/new@{'5' * 40}")


@pytest.mark.parametrize(("name", "message"), [
    (f"someone/pickles@{'2' * 40}", "it has no weights in safetensors, and pickled ones can run any code"),
    ("someone/pickles", "it has no weights in safetensors"),
    ("someone/gpt2", "Repository Not Found for url"),
    (f"someone/pickles@{'4' * 40}", "Revision Not Found for url"),
])
def test_a_model_that_is_not_there_or_is_pickled_is_refused(ask, hub, name, message):
    hub.requests.clear()
    with pytest.raises(DataError, match=f"^model.pretrained {name}: no such folder .* does not give it: {message}"):
        ask(pretrained_source, name)
    assert not files(hub.requests)


def test_a_models_settings_are_looked_at_before_its_weights_are_downloaded(ask, hub):
    name = f"someone/crossing@{'6' * 40}"
    hub.requests.clear()
    with pytest.raises(DataError, match=rf"^model\.pretrained {name}: its settings ask for add_cross_attention True"):
        ask(check_pretrained, name)
    assert files(hub.requests).keys() == {"config.json", "generation_config.json"}
    ask(check_pretrained, PAPER.model.pretrained)
    ask(check_pretrained, "someone/gpt2")  # not there: `tokenize` says so


def test_the_preset_paper_runs_whole(repositories, tmp_path):
    (tmp_path / "clone").mkdir()
    clone = Clone(tmp_path / "clone")
    params = yaml.safe_load((clone.path / "params.yaml").read_text())
    params |= {"preset": "paper", "seeds": [13]}
    paper = params["presets"]["paper"]
    paper["data"] |= {"train": 16, "validation": 4, "test": 4}
    paper["tokenizer"] |= {"max_length": 96}
    paper["train"] |= {"steps": 2, "batch_size": 2, "warmup_steps": 1, "evaluations": 1}
    paper["generate"] |= {"max_new_tokens": 40}
    paper["profile"] |= {"new_tokens": 2, "lengths": [32], "batch_sizes": [1, 2], "train_batch_sizes": [1],
                         "pairs": 2, "min_repeats": 2, "min_seconds": 0.0}
    (clone.path / "params.yaml").write_text(yaml.safe_dump(params))
    with StandInHub(repositories) as hub:
        output = clone.run("env", "--unset", "HF_HUB_OFFLINE", "--unset", "HF_HOME", f"HF_ENDPOINT={hub.url}",
                           "dvc", "repro")
    assert list(clone.path.glob(".cache/huggingface/hub/models--*"))  # for want of a home folder
    assert executed(output)[-1] == "report"
    assert all(stage in output for stage in (f"generate@{variant}" for variant in STUDY))
    assert "Traceback" not in output
    assert files(hub.requests)["model.safetensors"] == 1
    assert not any(name in str(hub.requests) for name in ("/main", ".bin"))
    assert {row["id"] for row in read_jsonl(clone.path / "data/subset/test.jsonl")} < {row["id"] for row in TEST}
    for variant in STUDY:
        assert clone.json(f"metrics/variants/{variant}/quality.json")["loss"] > 0
        model, tokenizer = headtohead.load(clone.path / f"models/{variant}/13")
        assert len(tokenizer) == model.config.vocab_size == 50257
        assert model.config.n_positions == 1024
    assert "the hub" in (clone.path / "report/report.md").read_text()
