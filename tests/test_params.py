"""params.yaml: what is wrong is refused before any work, with the key named and what is allowed."""

import copy
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from clone import Clone, executed
from closure import ROOT
from dvc.utils.hydra import apply_overrides

from headtohead.params import STUDY, ParamsError, read_params

TEXT = (ROOT / "params.yaml").read_text()
RAW = yaml.safe_load(TEXT)


def write(path, change):
    raw = copy.deepcopy(RAW)
    change(raw)
    file = path / "params.yaml"
    file.write_text(yaml.dump(raw))
    return file


def test_the_projects_own_parameters_are_right():
    params = read_params(ROOT / "params.yaml")
    assert set(params.presets) == {"laptop", "smoke", "news", "paper"}
    assert params.compared == list(STUDY)


def test_a_backend_is_named_or_left_to_dispatch(tmp_path):
    assert read_params(ROOT / "params.yaml").asked_backend is None
    assert read_params(write(tmp_path, lambda raw: raw.update(backend="flex"))).asked_backend == "flex"


def test_what_a_step_costs_follows_from_the_same_keys_whether_they_are_left_out_or_not():
    explicit = read_params().presets["laptop"].train.step
    assert explicit == {"article_weight": 0.0, "precision": "float32", "optimizer": "adamw", "weights": "float32",
                        "gradient_checkpointing": False}
    assert read_params().presets["smoke"].train.step == explicit


def test_repeats_collapse_and_further_variants_join(tmp_path):
    def change(raw):
        raw["variants"]["wide"] = {"kernel": "flash", "positions": "alibi", "pattern": "window", "window": 100}
        raw["attention"], raw["also"] = "wide", ["flash", "wide", "standard", "flash_alibi", "flash_rope"] * 2

    assert read_params(write(tmp_path, change)).compared == [*STUDY, "wide", "flash_rope"]


def test_dvc_sets_one_place_of_the_variants_that_are_compared_too(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    apply_overrides(tmp_path / "params.yaml", ["also.0=flash_rope", "also.9=flash_none"])
    assert read_params(tmp_path / "params.yaml").compared == [*STUDY, "flash_rope", "flash_none"]


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: p.update(attention="nope"), "attention: unknown variant 'nope'; there are flash, flash_alibi"),
    (lambda p: p.update(also=["standard"] * 9 + ["no"]), r"also\[9\]: unknown variant 'no'"),
    (lambda p: p.update(also="standard"), "also: .*valid list"),
    (lambda p: p.update(also=["flash_rope"]), r"also: has 1 names and needs 10.*single ones: -S also\.0=NAME"),
    (lambda p: (p.update(attention="flash_rope"), p["presets"]["laptop"]["model"].update(width=60, heads=4)),
     r"variants: flash_rope turns pairs of channels .* heads of 15, an odd number"),
    (lambda p: p.update(preset="nope"), "preset: unknown preset 'nope'; there are laptop, news, paper, smoke"),
    (lambda p: p.update(sed=1), "sed: unknown key; keys there: attention, also, .*did you mean seed"),
    (lambda p: p.update(seeds=[]), "seeds: .*at least 1 item"),
    (lambda p: p.update(seeds=[13, 14, 13]), "seeds: 13 stands there twice; a training that is repeated"),
    (lambda p: p.update(seeds=13), "seeds: .*valid list"),
    (lambda p: p["margins"].update(speed=0.1), "margins.speed: unknown key; keys there: quality, fact"),
    (lambda p: p["margins"].update(time=0), "margins.time: .*greater than 0"),
    (lambda p: p.update(backend="cuda"), "backend: Input should be 'auto', 'flash-attn', 'flex' or 'sdpa'"),
    (lambda p: p.pop("backend"), "backend: Field required"),
    (lambda p: p["presets"]["laptop"]["train"].update(stepz=3), "laptop.train.stepz: unknown key; .*mean steps"),
    (lambda p: p["presets"]["laptop"]["train"].pop("steps"), "presets.laptop.train.steps: Field required"),
    (lambda p: p["presets"]["laptop"]["train"].update(steps=0), "train.steps: .*greater than or equal to 1 .is 0"),
    (lambda p: p["presets"]["laptop"]["train"].update(steps=2.5), "train.steps: .*valid integer"),
    (lambda p: p["presets"]["laptop"]["train"].update(learning_rate=float("nan")), "learning_rate"),
    (lambda p: p["presets"]["laptop"]["model"].update(pretrained="gpt2"), "vocab_size: is null exactly when"),
    (lambda p: p["presets"]["laptop"]["model"].pop("layers"), "needs layers"),
    (lambda p: p["presets"]["laptop"]["data"].update(source="files"), "source: files needs `path`"),
    (lambda p: p["presets"]["laptop"]["generate"].update(max_new_tokens=500), "leaves no room for an article"),
    (lambda p: p["presets"]["laptop"]["generate"].update(beams=2, lookup=6),
     "lookup: 6 tokens are drafted in greedy search alone, and beams is 2; set beams: 1, or lookup: auto"),
    (lambda p: p["presets"]["laptop"]["generate"].update(lookup=16), r"generate\.lookup.*16"),
    (lambda p: p["presets"]["laptop"]["profile"]["lengths"].append(0), r"laptop.profile.lengths.4: .*equal to 1 .is 0"),
    (lambda p: p["variants"].pop("flash"), "'flash'|flash cannot be left out"),
    (lambda p: p["variants"].update({"Bad Name": {}}), "Bad Name"),
    (lambda p: p["variants"].update(untrained={}), "untrained is the name of a reference row"),
    (lambda p: p["presets"].update({"a.b": p["presets"]["smoke"]}), r"presets\.a\.b: String should match pattern"),
])
def test_what_is_wrong_is_named(tmp_path, change, message):
    with pytest.raises(ParamsError, match=message):
        read_params(write(tmp_path, change))


@pytest.mark.parametrize(("key", "value", "message"), [
    ("preset", "../laptop", r"String should match pattern .* \(is '../laptop'\)"),
    ("presets.laptop.train", 5, r"Input should be a valid dictionary \(is 5\)"),
    ("presets.laptop.trian", {}, r"unknown key; keys there: data, .* did you mean train\?"),
    ("presets.laptop.data.path", "a\0b", r"String should match pattern .* \(is 'a\\x00b'\)"),
    ("presets.paper.data.hub.name", "../x", "String should match pattern"),
    ("presets.laptop.data.newswire.word", 1, r"unknown key; keys there: words, distractors, longer; did you mean word"),
    ("presets.laptop.data.newswire.words", [60], r"List should have at least 2 items .* \(is \[60\]\)"),
    ("presets.laptop.data.newswire.words", [60, 70], r"the second must be at least 20 above .* \(is \[60, 70\]\)"),
    ("presets.laptop.tokenizer.vocab_size", 257, "Input should be greater than or equal to 258"),
    ("presets.laptop.model.dropout", float("nan"), "Input should be a finite number"),
    ("presets.laptop.model.layers", 10**9, "Input should be less than or equal to 1000"),
    ("presets.laptop.model.width", 65, "65 is not a multiple of heads 4"),
    ("presets.laptop.model.pretrained", "", "String should have at least 1 character"),
    ("presets.laptop.train.learning_rate", True, r"Input should be a valid number \(is True\)"),
    ("presets.laptop.train.learning_rate", "0.005", r"Input should be a valid number \(is '0.005'\)"),
    ("presets.laptop.train.warmup_steps", 5000, "5000 is more than steps 1000"),
    ("presets.laptop.profile.new_tokens", 175, "175 leaves no room for an article .* tokenizer.max_length 176"),
    ("presets.laptop.profile.batch_sizes", [], "List should have at least 1 item"),
    ("presets.paper.generate.max_new_tokens", 505, "505 leaves no room for an article"),  # beside a separator in bytes
    ("presets.laptop.score.language", "german", "unknown language 'german'; there are auto and .* de "),
    ("variants.flash.kernel", "cuda", r"Input should be 'eager', 'flash' or 'performer' \(is 'cuda'\)"),
    ("variants.flash.kernal", "eager", "pattern 'full' knows no kernal; keys: kernel, positions, pattern"),
    ("variants.flash.pattern", ["full", "window"], "is the name of one pattern, .* `layers: .{pattern: win"),
    ("variants.flash.pattern", "spiral", "unknown pattern 'spiral'; there are full, window, strided"),
    ("variants.flash.window", 3, "pattern 'full' knows no window"),
    ("variants.flash_sparse.window", 0, r"Input should be greater than or equal to 1 \(is 0\)"),
])
def test_a_wrong_value_is_named_by_its_key(tmp_path, key, value, message):
    def change(raw):
        *sections, last = key.split(".")
        for section in sections:
            raw = raw[section]
        raw[last] = value

    with pytest.raises(ParamsError, match=rf"params\.yaml: {re.escape(key)}: {message}"):
        read_params(write(tmp_path, change))


@pytest.mark.parametrize("separator", ["a", "the", "###", "1", "'s", "<|endoftext|>"])
def test_a_separator_that_a_text_could_spell_is_refused(tmp_path, separator):
    """Byte-level BPE may make one token of it; every text that holds it would then lose it, or end the article."""
    change = write(tmp_path, lambda raw: raw["presets"]["smoke"]["tokenizer"].update(separator=separator))
    with pytest.raises(ParamsError, match=r"smoke\.tokenizer\.separator: .* could become a token of the text itself"):
        read_params(change)


def test_a_pretrained_model_spells_any_separator(tmp_path):
    read_params(write(tmp_path, lambda raw: raw["presets"]["paper"]["tokenizer"].update(separator="\n###")))


@pytest.mark.parametrize(("old", "new", "message"), [
    ("config: 3.0.0", "config: 3.0", r"hub\.config: Input should be a valid string; put it in quotes \(is 3\.0\)$"),
    ("config: 3.0.0", "config: 2024-01-31", r"config: .*; put it in quotes \(is datetime\.date\(2024, 1, 31\)\)$"),
    ("config: 3.0.0", "config: 2024-13-31", r", line \d+: '2024-13-31' cannot be read: month must be in 1\.\.12$"),
    ("seed: 13", "seed: 13\nseed: 14", r', line 7: .*found duplicate key "seed" with value "14" '),
    ("seed: 13", "\tseed: 13", r", line 6: .*found character '\\t' that cannot start any token$"),
    ("seed: 13", "seed: 13\a", r", line 6: character '\\x07' is not allowed$"),
    ("seed: 13", "seed: " + "9" * 5000, r", line 6: '9+\.\.\.9+' cannot be read: Exceeds the limit"),
    ("seed: 13", "seed: 0x" + "f" * 5000, r", line 6: '0xf+\.\.\.f+' cannot be read: Exceeds the limit"),
    ("seed: 13", "seed: !!bool maybe", r", line 6: 'maybe' cannot be read"),
    ("seed: 13", "seed: !!python/object:os.system x", r", line 6: could not determine a constructor for the tag"),
    ("seed: 13", "seed: *a", r", line 6: found undefined alias 'a'$"),
    ("seed: 13", "seed: &a [*a]", r"seed: Input should be a valid integer \(is \[\[\.\.\.\]\]\)$"),
    ("seed: 13", "seed: " + "[" * 1000, r"params\.yaml: is nested too deeply$"),
    ("seed: 13", f"seed: {'s' * 5000}", r"seed: Input should be a valid integer \(is '.{50,60}'\)$"),
    ("seed: 13", f"? {'s' * 5000}\n: 13", r"\n.*: 's+\.\.\.s+': unknown key; keys there: attention, also, preset,"),
    ("seed: 13", 'seed: 13\n"a\\nb\\ud800": 1', r"\(is 'a\\nb\\ud800'\)$"),
])
def test_what_is_no_yaml_is_named_by_its_line_and_what_is_long_is_cut(tmp_path, old, new, message):
    (tmp_path / "params.yaml").write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ParamsError, match=message) as caught:
        read_params(tmp_path / "params.yaml")
    assert all(line.isprintable() for line in str(caught.value).split("\n"))


def test_bytes_that_are_no_utf_8_are_named_by_their_line(tmp_path):
    (tmp_path / "params.yaml").write_bytes(TEXT.replace("seed: 13", "seed: 13   # Größe").encode("latin-1"))
    with pytest.raises(ParamsError, match=r"params\.yaml, line 6: is not UTF-8: invalid"):
        read_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(("old", "new"), [
    ("learning_rate: 0.01", "learning_rate: 1e-2"),  # a number to DVC, which reads YAML 1.2
    ("vocab_size: 2048", "vocab_size: 2_048"),
    ("# Everything", "\ufeff# Everything"),
    ("seed: 13", "seed: &seed 13"),
])
def test_what_means_the_same_to_dvc_means_the_same_here(tmp_path, old, new):
    assert old in TEXT
    (tmp_path / "params.yaml").write_text(TEXT.replace(old, new, 1))
    assert read_params(tmp_path / "params.yaml") == read_params(ROOT / "params.yaml")


def test_of_many_problems_the_first_twenty_are_shown(tmp_path):
    change = write(tmp_path, lambda raw: raw.update({f"key{i}": 1 for i in range(50)}))
    with pytest.raises(ParamsError) as caught:
        read_params(change)
    lines = str(caught.value).split("\n")
    assert len(lines) == 21
    assert lines[-1] == "and 30 more"


def test_aliases_that_would_unfold_to_more_than_memory_holds_do_no_harm(tmp_path):
    bomb = "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9 if i else '1'}]\n" for i in range(20))
    bombed = TEXT.replace("window: 64", "window: *a19", 1).replace("seed: 13", "seed: *a19")
    (tmp_path / "params.yaml").write_text(bomb + bombed)
    with pytest.raises(ParamsError, match=r"seed: Input should be a valid integer \(is \[\[\.\.\.\], ") as caught:
        read_params(tmp_path / "params.yaml")
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("text", ["", "just text", "attention: [", "\tattention: flash", "- 1"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        read_params(tmp_path / "params.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ParamsError, match=r"params\.yaml: cannot be read"):
        read_params(tmp_path / "params.yaml")


def test_a_stage_fails_with_one_message_and_leaves_the_traceback_in_a_log(tmp_path):
    for folder in ("stages", "src"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    write(tmp_path, lambda raw: raw.update(attention="nope"))
    done = subprocess.run([sys.executable, "-m", "stages.fingerprint"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "attention: unknown variant 'nope'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "logs/fingerprint.log" in done.stderr
    assert "Traceback" in (tmp_path / "logs/fingerprint.log").read_text()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return Clone(tmp_path_factory.mktemp("clone"))


@pytest.mark.parametrize(("old", "new", "stages", "message"), [
    ("attention: flash ", "atention: flash ", [], "Could not find 'attention'"),  # DVC's own words, as it needs the key
    ("also: [standard, ", "also: [", [], "Could not find 'also.9'"),
    ("seed: 13", "seed:\n\t13", [], "line:? 7"),
    ("preset: smoke", "preset: ../smoke", ["fingerprint"], "params.yaml: preset: String should match pattern"),
    ("preset: smoke", "preset: nope", ["fingerprint"], "preset: unknown preset 'nope'; there are laptop, smoke, "),
    ("steps: 12\n", "steps: 0\n", ["fingerprint"], "presets.smoke.train.steps: Input should be greater than or equal"),
])
def test_dvc_repro_stops_before_any_work_and_names_the_key_or_line(clone, old, new, stages, message):
    clone.edit(old, new)
    output = clone.run("dvc", "repro", fails=True)
    clone.edit(new, old)
    assert executed(output) == stages
    assert re.search(message, output)
    assert "Traceback" not in output
