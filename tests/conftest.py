"""What all tests share: tiny models of every variant, and the GPU marker."""

import os
import shutil
import signal

import pytest

# Two test workers on two cores: more threads than one each only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import PreTrainedTokenizerBase

from headtohead.attention import AttentionSpec
from headtohead.models.gpt2 import GPT2, from_scratch
from headtohead.params import Model, Tokenizer, read_params
from headtohead.profiling.fresh import serve
from headtohead.profiling.profile import HEAVY
from headtohead.tokens.tokenizer import train_tokenizer

# A shell lets what runs in the background ignore Ctrl+C, and our child processes would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

STUDY_VARIANTS = {**{name: read_params().variants[name] for name in ("standard", "flash", "flash_alibi")},
                  "flash_sparse": AttentionSpec(kernel="flash", pattern="window", window=5),
                  "alibi_window": AttentionSpec(kernel="flash", positions="alibi", pattern="window", window=7)}
NEAR, ALL = {"pattern": "window", "window": 4}, {"pattern": "full"}
BIGBIRD = {"pattern": "bigbird", "block": 3, "window_blocks": 2, "global_blocks": 1, "random_blocks": 1}
# Every pattern and every kind of position, in the numbers of a tiny model.
VARIANTS = {**STUDY_VARIANTS,
            "rope": AttentionSpec(kernel="flash", positions="rope"),
            "none_eager": AttentionSpec(positions="none", pattern="longformer", window=5, globals=2),
            "strided": AttentionSpec(kernel="flash", positions="rope", pattern="strided", stride=4),
            "block": AttentionSpec(kernel="flash", positions="learned", pattern="block", block=6),
            "alibi_longformer": AttentionSpec(kernel="flash", positions="alibi", pattern="longformer", window=5,
                                              globals=3),
            "bigbird": AttentionSpec(kernel="flash", positions="none", **BIGBIRD),
            "alibi_local_global": AttentionSpec(kernel="flash", positions="alibi", layers=[NEAR, ALL]),
            "rope_mixed": AttentionSpec(kernel="flash", positions="rope",
                                        layers=[BIGBIRD, {"pattern": "block", "block": 5}]),
            "performer": AttentionSpec(kernel="performer", features=24),
            "rope_performer": AttentionSpec(kernel="flash", positions="rope",
                                            layers=[NEAR, {"kernel": "performer", "features": 16}])}
SOFTMAX = {name: spec for name, spec in VARIANTS.items() if "performer" not in name}
# These files come first, so that two workers end at about the same time.
LONG = ("test_pipeline.py", "test_params_fuzz.py", "test_hub.py", "test_own_data.py", "test_interruptions.py")
VOCABULARY = 300
MAX_LENGTH = 64


@pytest.fixture(scope="session")
def server() -> None:
    """Fresh processes come from a server that has imported the libraries, whichever test is the first to start it."""
    serve([HEAVY])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


# torch compiles for the CPU through a C++ compiler.
compiles = pytest.mark.skipif(not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))),
                              reason="needs a C++ compiler")


def tiny(spec: AttentionSpec, heads: int = 4, max_length: int = MAX_LENGTH, seed: int = 3, head_dim: int = 16,
         layers: int = 2) -> GPT2:
    """A small GPT-2 with random weights, large enough in scale for its logits to differ clearly."""
    settings = Model(pretrained=None, layers=layers, width=head_dim * heads, heads=heads, init_std=0.2,
                     position_init_std=0.2, dropout=0.0)
    return from_scratch(spec, settings, vocab_size=VOCABULARY, max_length=max_length, end_of_text=0, seed=seed).eval()


def random_ids(batch: int, length: int, seed: int) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    settings = Tokenizer(vocab_size=VOCABULARY, separator="<|summary|>", max_length=MAX_LENGTH)
    return train_tokenizer(settings, ["The mayor of Ashfield opened a new bridge on Monday."] * 5)
