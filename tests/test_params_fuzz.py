"""Thirty mutated copies of params.yaml: each is refused with its key named, or the stages run on it."""

import copy
import datetime
import math
import re
from collections import Counter
from pathlib import Path

import yaml
from closure import ROOT
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from headtohead.models.gpt2 import ModelError
from headtohead.params import ParamsError, read_params
from headtohead.records import DataError
from stages import baselines, fetch_subset, fingerprint, generate, profile, score, tokenize, train

EXAMPLES = 30
BASE = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"preset": "smoke", "seeds": [13]}

# Wrong types, nothing at all, the huge and the negative, names that lead elsewhere.
WRONG = [None, True, "", " ", "3", "0.5", "x" * 3000, "../x", "a/b", "a\nb", "a\0b", "\ud800", "${seed}", 0, -1, 10**9,
         10**30, -(10**30), 0.0, -0.5, 1e300, math.nan, math.inf, -math.inf, datetime.date(2024, 1, 1), b"bytes",
         [], [0], [1, 1], ["x"] * 30, {}, {"a": {"b": [1]}}, [[[[]]]]]
KEYS = ["stepz", "Steps", "windows", "hub", "layers", "window", "spare", "Bad Name", "untrained", "a\nb", "\ud800", "",
        "x" * 3000, "../x", 3, True, None]
# What only an editor writes: numbers in other spellings, dates, tags, aliases, and what is no YAML.
LITERALS = ["5e-3", "1e1", "1_0", "012", "0x10", "on", "2024-13-01", "9" * 5000, "0x" + "f" * 5000, "1e999", "*nowhere",
            "&a [*a]", "!!python/object:os.system x", "!!bool maybe", "!!binary aGVsbG8=", "<<", "- 3", "{", "'", "@x",
            "[" * 1000]
PLACEHOLDER = "a literal stands here"
BOMB = "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9 if i else '1'}]\n" for i in range(20))  # 9**19 values, if unfolded
SPOILT = ["tab", "twice", "control", "byte order mark", "bomb", "latin-1", "utf-16"]

# Texts that are right for some key or might be.
TEXTS = {"precision": ["bfloat16", "float16"], "kernel": ["eager", "flash", "cuda"], "positions": ["alibi", "learned"],
         "pattern": ["full", "window", "windows"], "source": ["files", "hub", "newswires"],
         "separator": ["###", "=>", " ", "\nTL;DR:", "Summary: ", "<|endoftext|>", "\u2028", "é\U0001f600 -"]}
OTHER_TEXTS = ["flash", "flash_sparse", "text", "Überschrift", "articles.csv", "smoke", "laptop"]

# Files with at most so much of each are run; larger ones would be the same work for longer.
SMALL = {"train": 130, "validation": 130, "test": 50, "steps": 36, "accumulation": 7, "layers": 7, "width": 100,
         "max_length": 600, "max_new_tokens": 84, "beams": 7, "new_tokens": 50, "pairs": 3, "min_repeats": 7,
         "min_seconds": 0.5}


def paths(tree, here=()):
    """Every place in it."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*here, key)
        yield from paths(value, (*here, key))


def fitting(value, key, rng):
    """A value of the same type, which is often right."""
    if isinstance(value, dict):
        return dict(rng.sample(list(value.items()), len(value)))
    if isinstance(value, list):
        return [fitting(value[0], key, rng) for _ in range(rng.randrange(6))] if value else [2]
    if isinstance(value, int):
        return rng.choice([value // 2, value + 1, 2 * value, 3 * value, 0, 1, 2, 7])
    if isinstance(value, float):
        return rng.choice([value / 2, 2 * value, value + 0.1, 0.0, 0.3, 1.0, 5.0, -0.1])
    return rng.choice(TEXTS.get(key, OTHER_TEXTS))


def mutant(rng):
    """A params.yaml as bytes, and the places that were changed in it, None for one that only its line tells."""
    tree, places, literal = copy.deepcopy(BASE), [], PLACEHOLDER
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        everywhere = list(paths(tree))
        *parents, key = rng.choice([path for path in everywhere if path[0] != "presets" or "smoke" in path] * 9
                                   + everywhere)
        section = tree
        for parent in parents:
            section = section[parent]
        match rng.choice(["fitting"] * 9 + ["wrong", "literal", "delete", "add"]):
            case "wrong":
                section[key] = copy.deepcopy(rng.choice(WRONG))
            case "literal":
                section[key], literal = PLACEHOLDER, rng.choice(LITERALS)
                places.append(None)
            case "delete":
                del section[key]
            case "add" if isinstance(section, dict):
                key = rng.choice(KEYS)
                section[key] = copy.deepcopy(rng.choice(WRONG))
            case _:
                section[key] = fitting(section[key], key, rng)
        places.append((*parents, key))
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).replace(PLACEHOLDER, literal)
    if rng.random() < 0.8:
        return text.encode(), places
    return spoilt(text, rng.choice(SPOILT), rng), [*places, None]


def spoilt(text, how, rng):
    """The text as bytes, broken or nearly so."""
    lines = text.splitlines(keepends=True)
    number = rng.choice([i for i, line in enumerate(lines) if ":" in line])
    match how:
        case "tab":
            lines[number] = "\t" + lines[number].lstrip()
        case "twice":
            lines.insert(number, lines[number])
        case "control":
            lines[number] = lines[number].rstrip("\n") + rng.choice("\x00\x07\x1b\x7f\ufffe") + "\n"
        case "byte order mark":
            lines[0] = "\ufeff" + lines[0]
        case "bomb":
            lines.append(BOMB)
        case _:
            return ("# Größe\n" + text).encode(how, errors="replace")
    return "".join(lines).encode()


def names(error, place):
    """Whether it tells the place: the keys on the way, but which preset it is only for params.yaml itself."""
    if place is None:
        return re.search(r"params\.yaml, line \d+: |nested too deeply|a0: unknown key", str(error))
    keys = [key for key in place if not isinstance(key, int) or isinstance(key, bool)]
    needed = keys[2 if isinstance(error, DataError) else 1:] or keys
    return all(repr(str(key))[1:-1][:20] in str(error) for key in needed)


def assert_clear(error, places):
    assert any(names(error, place) for place in places), error
    lines = str(error).split("\n")
    assert len(lines) <= 21, error
    assert all(len(line) < 600 and line.isprintable() for line in lines), error


def is_small(preset):
    """Whether the stages run on it here, in seconds and without a network."""
    if preset.data.source != "newswire" or preset.model.pretrained is not None:
        return False
    flat = {name: value for section in preset.model_dump().values() for name, value in section.items()}
    return (all(flat[name] <= limit for name, limit in SMALL.items()) and preset.data.newswire.words[1] <= 250
            and max(preset.profile.train_batch_sizes) <= 8)


def run_stages(variant, with_profile):
    fetch_subset.main()
    tokenize.main()
    baselines.main()
    for seed in read_params().seeds:
        train.main(variant, seed)
    generate.main(variant)
    score.main(variant)
    if with_profile:
        profile.main(variant)


def outcome(places, done):
    """What becomes of the params.yaml in the current directory; `done` knows what has been run before."""
    try:
        fingerprint.main()
    except (ParamsError, DataError) as error:
        assert_clear(error, places)
        return "refused"
    params = read_params()
    keys = {key for place in places for key in place or ()}
    variant = next((name for name in params.variants if name in keys), params.attention)
    work = repr((params.chosen, params.seed, params.seeds, params.variants[variant]))
    if work in done:
        return "accepted, and run before"
    if not is_small(params.chosen):
        return "accepted, and too large to be run here"
    done.add(work)
    try:
        run_stages(variant, with_profile="profile" in keys)
    except (DataError, ModelError) as error:
        if not re.search(r"(data|tokenizer|model)\.\w+", str(error)):  # the key to change
            raise
        return "accepted, and stopped by a clear error"
    return "accepted, and run"


def test_every_mutated_file_is_refused_by_name_or_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcomes, done = Counter(), set()

    @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=[HealthCheck.too_slow])
    @given(st.randoms(use_true_random=True))
    def check(rng):
        content, places = mutant(rng)
        note(f"changed: {places}")
        Path("params.yaml").write_bytes(content)
        outcomes[outcome(places, done)] += 1

    check()
    assert outcomes.total() == EXAMPLES, outcomes
    assert outcomes["refused"] >= 10, outcomes
    assert outcomes["accepted, and run"] >= 5, outcomes
