"""One test for each mistake of the study's published code. Each fails when the mistake is put in."""

import os

import children
import pytest
import torch
import yaml
from closure import ROOT
from conftest import VARIANTS, random_ids, tiny
from transformers import GPT2Config, GPT2LMHeadModel

from headtohead.attention import alibi_slopes, attend
from headtohead.inference.predictions import predict
from headtohead.models.batches import IGNORED, collate
from headtohead.models.checkpoints import from_pretrained
from headtohead.params import Generate, read_params
from headtohead.profiling import fresh
from headtohead.profiling.timing import measure
from headtohead.quality.scoring import score
from headtohead.tokens.layout import Layout

variants = pytest.mark.parametrize("name", VARIANTS)
LAYOUT = Layout([1], end=0, max_length=64, new_tokens=12)
GREEDY = Generate(batch_size=4, max_new_tokens=12, beams=1, no_repeat_ngram=0, precision="float32")

pytestmark = pytest.mark.usefixtures("server")


def test_the_attention_layers_keep_the_pretrained_weights(tmp_path):
    """The study swapped in attention layers with fresh random weights."""
    torch.manual_seed(1)
    original = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=64, n_embd=48, n_layer=2, n_head=3,
                                          initializer_range=0.2)).eval()
    original.save_pretrained(tmp_path)
    ids = random_ids(1, 40, seed=1)
    flash = from_pretrained(VARIANTS["flash"], tmp_path, dropout=0.0, max_length=64).eval()
    torch.testing.assert_close(flash(ids).logits, original(ids).logits, atol=1e-4, rtol=1e-4)


@variants
def test_every_variant_is_causal(name):
    """The study's ALiBi and sparse variants saw the words that they were to predict."""
    model, ids = tiny(VARIANTS[name]), random_ids(1, 24, seed=2)
    changed = ids.clone()
    changed[:, 12:] = random_ids(1, 12, seed=3)
    torch.testing.assert_close(model(changed).logits[:, :12], model(ids).logits[:, :12])


@pytest.mark.parametrize("name", [name for name, spec in VARIANTS.items() if spec.kernel == "flash"])
def test_what_is_called_flash_runs_a_fused_kernel(name):
    """The study's ALiBi and sparse variants materialised the scores and were called flash all the same."""
    q, k, v = (torch.randn(1, 4, 20, 16) for _ in range(3))
    with torch.profiler.profile() as profile:
        attend(q, k, v, VARIANTS[name])
    ran = {event.key for event in profile.key_averages()}
    assert any("flash_attention" in key for key in ran)
    assert not ran & {"aten::softmax", "aten::_softmax", "aten::bmm", "aten::baddbmm"}


def test_an_alibi_model_has_no_position_embeddings():
    """The study's kept them beside the bias."""
    model = tiny(VARIANTS["flash_alibi"])
    assert not [name for name, _ in model.named_parameters() if "wpe" in name]
    hidden = model.transformer.wpe(torch.arange(9)[None])
    assert not hidden.any()


def test_slopes_fall_and_far_keys_lose():
    """The study's slopes grew from head to head."""
    slopes = alibi_slopes(8)
    assert (slopes.diff() < 0).all()
    assert slopes[0] == 0.5
    q, k = torch.zeros(1, 8, 1, 4), torch.zeros(1, 8, 10, 4)
    v = torch.eye(10)[None, None].expand(1, 8, 10, 10)[..., :4]  # the output is the weight of the first four keys
    weights = attend(q, k, v, VARIANTS["flash_alibi"])
    assert (weights.diff(dim=-1) > 0).all()  # nearer keys weigh more


@variants
def test_labels_are_the_summarys_own_tokens_at_their_own_positions(name):
    """The study laid the summary over the article's positions: words were learned in the wrong places."""
    article, summary = [9, 8, 7, 6, 5], [21, 22, 23]
    batch = collate([LAYOUT.example(article, summary)], filler=0, article_weight=0.0)
    assert batch["input_ids"].tolist() == [[*article, 1, *summary, 0]]
    assert batch["labels"].tolist() == [[IGNORED] * 6 + [*summary, 0]]
    model = tiny(VARIANTS[name])
    with torch.no_grad():
        log_p = model(batch["input_ids"]).logits[0].log_softmax(-1)
        expected = -sum(log_p[5 + i, token] for i, token in enumerate([*summary, 0])) / 4
        torch.testing.assert_close(model(**batch).loss, expected)


def test_the_article_is_never_part_of_the_summary_that_is_scored(tokenizer):
    """The study took ROUGE on article and summary together."""
    article = tokenizer(" The mayor of Ashfield opened a new bridge on Monday.")["input_ids"]
    rows = [{"id": "1", "article": article, "summary": [5, 6], "reference": "The mayor opened a bridge."}]
    [row] = predict(tiny(VARIANTS["flash"]), tokenizer, rows, GREEDY, 64, "test")
    assert "mayor of Ashfield" not in row["summary"]
    prompted = row | {"summary": "The mayor of Ashfield opened a new bridge on Monday. " + row["summary"]}
    assert score([row], [], {}, "en")["rouge1"] < score([prompted], [], {}, "en")["rouge1"]


def test_the_timer_waits_for_the_device(monkeypatch):
    """The study's timers stopped before the GPU did."""
    events: list[str] = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, *_):
            events.append("record")

        def synchronize(self):
            events.append("wait")

        def elapsed_time(self, _end):
            assert events[-2:] == ["record", "wait"]  # the end was reached before the time is read
            return 1.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: events.append("wait"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: None)
    measure(lambda: events.append("work"), torch.device("cuda"), min_repeats=3, min_seconds=0.0, warmup=1)
    assert events.count("work") == 4


def test_each_variant_is_profiled_in_a_process_of_its_own():
    """The study held all models on the GPU while it read the memory of each."""
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["profile"]
    assert stage["cmd"] == "python -m stages.profile ${item.variant}"
    pids = fresh.in_turns(children.tell, [("one",), ("other",)], lambda what: None)
    assert len({os.getpid(), *(one["pid"] for one in pids)}) == 3


def test_the_paper_preset_is_what_the_study_says_it_did():
    """The study ran distilgpt2 with 256 tokens on 50 training and 10 test articles."""
    paper = read_params(ROOT / "params.yaml").presets["paper"]
    assert paper.model.pretrained.split("@")[0] == "openai-community/gpt2"
    assert (paper.data.train, paper.data.test, paper.tokenizer.max_length) == (1000, 200, 512)
    assert paper.data.hub.name == "abisee/cnn_dailymail"
