"""Our checkpoints say what they are: to transformers' Auto classes by their model type, to people by their card."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from closure import ROOT
from conftest import VARIANTS, tiny

import headtohead
from headtohead.inference.engine import Engine
from headtohead.inference.search import generate
from headtohead.models.card import card, origin
from headtohead.params import read_params
from headtohead.paths import Run


@pytest.fixture
def trained(tmp_path, tokenizer) -> Path:
    """A folder as training leaves it, of a variant that GPT-2 is not."""
    model = tiny(VARIANTS["flash_sparse"])
    model.config.training = origin(read_params(), Run("flash_sparse", 13))
    model.save_pretrained(tmp_path / "flash_sparse")
    tokenizer.save_pretrained(tmp_path / "flash_sparse")
    return tmp_path / "flash_sparse"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=False)


AUTO = """
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
folder = {folder!r}
assert AutoConfig.from_pretrained(folder).attention_variant["window"] == 5
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
ours, its_tokenizer = headtohead.load(folder)
ids = its_tokenizer("The mayor of Ashfield opened a new bridge on Monday.", return_tensors="pt")["input_ids"]
assert tokenizer("The mayor")["input_ids"] == its_tokenizer("The mayor")["input_ids"]
assert type(model) is type(ours) and not model.training
assert (model(ids).logits == ours(ids).logits).all()
"""


@pytest.mark.parametrize("imports", [
    "import headtohead",
    "from transformers import AutoModelForCausalLM; import headtohead",
    "import headtohead; from transformers import GPT2LMHeadModel",  # whose own import reaches the registry half-way
])
def test_auto_classes_load_the_right_model_whichever_is_imported_first(trained, imports):
    done = run(imports + AUTO.format(folder=str(trained)))
    assert done.returncode == 0, done.stderr


def test_without_us_transformers_says_that_it_does_not_know_the_model(trained):
    done = run(f"from transformers import AutoModelForCausalLM as Auto; Auto.from_pretrained({str(trained)!r})")
    assert "model type `headtohead_gpt2` but Transformers does not recognize this architecture" in done.stderr


def test_importing_the_package_imports_neither_torch_nor_transformers():
    done = run("import sys, headtohead; print({'torch', 'transformers', 'pydantic'} & set(sys.modules))")
    assert done.stdout.strip() == "set()"


def test_a_checkpoint_from_before_there_was_a_model_type_still_loads(trained):
    wanted, _ = headtohead.load(trained)
    config = json.loads((trained / "config.json").read_text())
    (trained / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    model, _ = headtohead.load(trained)
    ids = torch.arange(1, 31)[None]
    assert model.variant == VARIANTS["flash_sparse"]
    assert torch.equal(model(ids).logits, wanted(ids).logits)
    assert model.config.model_type == "headtohead_gpt2"


def test_another_attention_than_the_variants_is_refused(trained):
    model, _ = headtohead.load(trained)
    for ask in (lambda: type(model).from_pretrained(trained, attn_implementation="sdpa"),
                lambda: model.set_attn_implementation("eager")):
        with pytest.raises(ValueError, match="this model's attention is its variant's"):
            ask()


def test_a_checkpoint_has_a_card_that_says_what_it_is_and_how_to_load_it(trained, tmp_path):
    text = (trained / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers\n")
    params = read_params()
    data, training = params.chosen.data, params.chosen.train
    for said in ("attention `flash_sparse`", "kernel flash, positions learned, pattern window, window 5",
                 f"the bundled newswire; {data.train:,} training articles (preset `{params.preset}`)",
                 "| starting weights | random |", "headtohead.load(", "AutoModelForCausalLM",
                 f"{training.steps:,} steps of {training.batch_size}, seed 13"):
        assert said in text
    model, _ = headtohead.load(trained)  # what it was trained from stays with it
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/README.md").read_text() == text


@pytest.mark.parametrize(("preset", "data"), [
    ("news", "cnn_dailymail; "), ("paper", "abisee/cnn_dailymail, 3.0.0, revision 96df5e6")])
def test_the_card_names_data_and_base_model(preset, data):
    params = read_params()
    said = origin(params.model_copy(update={"preset": preset}), Run("flash", 13))
    assert said["data"].startswith(data)
    assert said["pretrained"] == params.presets[preset].model.pretrained


def test_the_card_names_the_devices_if_they_were_several():
    model = tiny(VARIANTS["flash"])
    for devices, said in ((1, ", seed 13 |"), (4, ", seed 13, on 4 devices |")):
        model.config.training = origin(read_params(), Run("flash", 13), devices)
        assert said in card(model.config, model.variant)


@pytest.mark.parametrize("name", ["flash_sparse", "flash_alibi"])
def test_a_checkpoint_from_before_layers_loads_and_writes_the_same(tmp_path, tokenizer, name):
    """Written by the commit before a variant could have `layers`, with what its engine made of some prompts."""
    shutil.copytree(Path(__file__).parent / "checkpoints" / name, tmp_path / name)
    tokenizer.save_pretrained(tmp_path / name)
    model, _ = headtohead.load(tmp_path / name)
    before = json.loads((tmp_path / name / "written.json").read_text())
    ids, padding = torch.tensor(before["prompts"]), torch.tensor(before["padding"])
    for beams, written in before["written"].items():
        again = generate(Engine(model), ids, padding, max_new_tokens=12, beams=int(beams), no_repeat_ngram=2)
        assert again.tolist() == written
