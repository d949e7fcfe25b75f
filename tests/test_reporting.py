"""The report, built from small made-up results of every stage."""

import csv
import json
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headtohead import reporting
from headtohead.params import read_params
from headtohead.quality.lead import lead3
from headtohead.quality.rows import read_predictions
from headtohead.quality.scoring import score
from headtohead.records import DataError
from headtohead.reporting.figures import COLOURS, MARKERS
from headtohead.reporting.page import escape, to_html
from headtohead.reporting.results import read_results, read_variants
from headtohead.reporting.sweeps import BY_LENGTH, Curve, Point, compare, crossings
from headtohead.reporting.tables import changes_marked, facts_marked, side_by_side
from headtohead.reporting.verdict import Finding, answers, judge, noise_floors, recommend

ROOT = Path(__file__).parents[1]
ARTICLES = 60
EVIL = "<script>alert('x')</script> | a `tick` *bold* [link](http://evil.example/) ![i](http://evil.example/i.png) &lt;"
WORDS = ("the", "school", "in", "a", "town", "of", "rain", "and", "wind", "opened", "its", "first", "day", "many")
FIGURES = {f"{name}.svg" for name in ("overview", "quality", "inference_time", "training_time", "memory", "fact_recall",
                                      "learning_curves", "time_by_length", "memory_by_length", "batch_sizes")}
# How well each variant's summaries match the reference, and how long its forward pass takes, in ms.
SKILL = {"standard": 0.80, "flash": 0.80, "flash_alibi": 0.82, "flash_sparse": 0.4, "untrained": 0.02}
SPEED = {"standard": 4.0, "flash": 3.0, "flash_alibi": 3.1, "flash_sparse": 4.05}
LENGTH = 176  # of the preset laptop
ACHIEVED = {"tflops": 0.05, "tflops_share": 0.25, "gb_per_s": 2.0, "gb_per_s_share": 0.05}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def make_set(name, scale, rng):
    """Articles with two facts each, also as the bundled source has them, and the facts with their distances."""
    articles, facts = [], []
    for i in range(ARTICLES):
        number, day = str(100 + i), ["Monday", "Friday"][i % 2]
        values = {"number": number, "day": day}
        summary = f"The {' '.join(rng.choice(WORDS, 6))} {number}.\nIt was {day} {' '.join(rng.choice(WORDS, 5))}."
        articles.append({"id": f"{name}-{i}", "article": f"{summary} {' '.join(rng.choice(WORDS, 40 * scale))}. "
                                                         f"{EVIL if i == 0 else ''}", "summary": summary,
                         "facts": [{"kind": kind, "value": value, "start": summary.index(value)}
                                   for kind, value in values.items()]})
        distances = rng.integers(0, 140 * scale, 2).tolist()
        facts.append({"set": name, "id": f"{name}-{i}", "facts": [
            {"kind": kind, "value": value, "distance": distance}
            for (kind, value), distance in zip(values.items(), distances, strict=True)]})
    return articles, facts


def predict(articles, skill, rng):
    """Each word of the reference survives with probability `skill`."""
    return [{"id": row["id"], "reference": row["summary"], "loss": 1.2 - skill + rng.normal(0, 0.05), "tokens": 20,
             "summary": re.sub(r"[\w]+", lambda word: word[0] if rng.random() < skill else "wrong", row["summary"])
             + (EVIL if row["id"] == "test-0" else "")} for row in articles]


def timing(work, batch, length, out, median):
    return {"work": work, "batch": batch, "length": length, "new_tokens": out, "dtype": "float32", "median": median,
            "p10": median * 0.97, "p90": median * 1.04, "unit": "ms", "repeats": 20, "samples": [median] * 20}


def forward(rows, batch, length, value):
    """A row of a forward pass; None is a point without room."""
    if value is None:
        return {"work": "forward", "batch": batch, "length": length, "out_of_memory": True}
    if rows == "memory":
        return {"work": "forward", "batch": batch, "length": length, "peak_mb": value, "reset": True}
    return timing("forward", batch, length, 0, value) | {"backend": "sdpa"} | ACHIEVED


def efficiency(name, ms):
    timings = [timing("yardstick", 1, 512, 0, 4.0), forward("timings", 1, LENGTH, ms),
               timing("first_token", 1, 144, 1, ms * 1.1),
               timing("generate", 1, 144, 32, ms * 12) | {"backend": "sdpa, then ours"} | ACHIEVED,
               forward("timings", 1, 64, ms / 2), forward("timings", 4, LENGTH, ms * 3),
               timing("attention", 1, 64, 0, ms / 40) | {"backend": "sdpa"} | ACHIEVED,
               timing("attention", 1, LENGTH, 0, ms / 10) | {"backend": "sdpa"} | ACHIEVED,
               *(timing("train_step", batch, LENGTH, 0, batch * ms * 2) | {"backend": "flex"} | ACHIEVED
                 for batch in (4, 8, 16))]
    flat = {"forward_ms": ms, "generate_ms": ms * 12, "first_token_ms": ms * 1.1, "tokens_per_s": 32 / ms / 12 * 1000,
            "peak_memory_mb": 410.0 if name != "flash" else 388.5, "train_step_ms": ms * 32, "backend": "torch sdpa"}
    operations = [{"name": f"aten::op_{i}", "self_ms": 3 / i, "share": 0.4 / i, "calls": 12} for i in range(1, 9)]
    return flat, {"device": "Virtual CPU, 2 cores", "dtype": "float32", "backend": "torch sdpa",
                  "versions": {"torch": "2"}, "threads": 2, "timings": timings, "operations": operations,
                  "nvml": None, "process_peak_mb": 500.0, "peaks": {"tflops": 0.2, "gb_per_s": 40.0},
                  "attention_share": [{"length": 64, "share": 0.1}, {"length": LENGTH, "share": 0.2}],
                  "length_limit": None if name == "flash_alibi" else LENGTH,
                  "lengths_left_out": [] if name == "flash_alibi" else [256, 512],
                  "memory": [forward("memory", 1, LENGTH, 410.0), forward("memory", 1, 64, 400.0),
                             forward("memory", 4, LENGTH, 440.0)]}


def make_variant(root, name, skill, ms, sets, seed):
    rng = np.random.default_rng(seed)
    rows = [row | {"written_by": "flex, then ours"} for row in predict(sets["test"][0], skill, rng)]
    longer = [{"set": "test-2x", **row} for row in predict(sets["test-2x"][0], skill * 0.8, rng)]
    quality, details = score([*rows, *longer], [fact for _, facts in sets.values() for fact in facts], 13, "en")
    flat, profile = efficiency(name, ms)
    write(root / f"data/predictions/{name}.jsonl", rows)
    write(root / f"metrics/variants/{name}/quality.json", quality)
    write(root / f"data/details/{name}/quality.json", details)
    write(root / f"metrics/variants/{name}/efficiency.json", flat)
    write(root / f"data/details/{name}/efficiency.json", profile)
    curve = "".join(f"{step},{4 - skill * step / 300},{'' if step % 300 else 3.9 - skill * step / 300},0.001\n"
                    for step in range(0, 901, 50))
    write(root / f"plots/training/{name}.csv", "step,training_loss,validation_loss,learning_rate\n" + curve)


def make_results(root):
    rng = np.random.default_rng(0)
    sets = {"test": make_set("test", 1, rng), "test-2x": make_set("test-2x", 2, rng)}
    for name, (articles, _) in sets.items():
        write(root / f"data/subset/{name}.jsonl", articles)
    write(root / "data/tokens/facts.jsonl", [fact for _, facts in sets.values() for fact in facts])
    write(root / "data/predictions/untrained.jsonl", predict(sets["test"][0], SKILL["untrained"], rng))
    write(root / "data/predictions/lead3.jsonl", [
        {"id": row["id"], "summary": lead3(row["article"], "en"), "reference": row["summary"]}
        for row in sets["test"][0]])
    write(root / "data/details/lengths.json", json.dumps([
        {"split": split, "articles": ARTICLES, "longest article": 222, "cut": 7, "longest summary": 44, "too long": 1}
        for split in ("test", "train", "validation")]))
    write(root / "metrics/machine.json", {"machine": "0123abcd", "processor": "Virtual CPU", "cores": 2, "gpu": None})
    for seed, name in enumerate(SPEED):
        make_variant(root, name, SKILL[name], SPEED[name], sets, seed)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    make_results(root)
    return root


@pytest.fixture
def params():
    return read_params(ROOT / "params.yaml")


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """A copy of the made-up results, as the current directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def built(run, params):
    reporting.build(params)
    return run


def findings(params, name="flash_sparse"):
    variants = {variant.name: variant for variant in read_variants(params)}
    floors = noise_floors(list(variants.values()), params.seed)
    return {f.measure: f.better for f in judge(variants[name], variants["standard"], floors, params.seed)}


def edit(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_the_report_says_everything_in_order(built):
    text = (built / "report/report.md").read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert titles[1:4] == ["Verdict against standard", "Table I: quality, beside the study's",
                           "Table II: inference time and memory, beside the study's"]
    opening = text.split("## Verdict")[0]
    assert opening.index("**On this machine, take flash: generation 36.0 against 48.0 ms, peak memory") \
        < opening.index("| standard |") < opening.index("plots/overview.svg")
    assert [int(number) for number in re.findall(r"^\*Figure (\d)", text, re.MULTILINE)] == [1, 2, 3, 4]
    for part in ("0.1806", "8,877.81", "Lead-3", "untrained", "test-2x", "32-63 tokens", "aten::op", "0123abcd",
                 "no evidence about sparse attention", "not the luck of training"):
        assert part in text.replace("\\", ""), part


def test_the_page_stands_alone_and_obeys_no_article(built):
    page = (built / "report/report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href|url|@import)\s*[=(]?\s*["']?(https?:)?//""", page)
    assert page.count("data:image/svg+xml;base64,") == len(FIGURES)
    assert "<script" not in page
    links = re.findall(r'<a href="(.)(.*?)"', page)
    assert len(links) == page.count("<a ") == page.count("<h2 ")
    assert all(sign == "#" and f'id="{name}"' in page for sign, name in links)
    assert "&lt;script&gt;alert('x')&lt;/script&gt; | a `tick` *bold* [link]" in page.replace("&#x27;", "'")


@pytest.mark.parametrize("text", [EVIL, "a | b \\| c \\", "# 1. * - + _x_ ~~y~~ &amp; <b>", "`` ` ``", "$x$ http://x.org"])
def test_escaped_text_is_shown_as_it_is(text, tmp_path):
    page = to_html(f"| {escape(text)} | end |\n|---|---|\n", tmp_path)
    first = re.search(r"<th>(.*?)</th>\s*<th>end</th>", page, re.DOTALL)
    shown = first[1].replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
    assert shown == " ".join(text.split())


def test_html_in_markdown_is_shown_and_not_obeyed(tmp_path):
    assert "<script" not in to_html("# Title\n\n<script>alert(1)</script>\n\nand <b>bold</b>\n", tmp_path)


def test_headline_compares_the_chosen_variant_with_standard(built, params):
    headline = json.loads((built / "metrics/headline.json").read_text())
    assert headline["attention"] == "flash"
    assert len(headline) <= 18
    assert headline["speedup_vs_standard"] == pytest.approx(4 / 3)
    assert headline["memory_vs_standard"] == pytest.approx(388.5 / 410)
    reporting.build(params.model_copy(update={"attention": "standard"}))
    standard = json.loads((built / "metrics/headline.json").read_text())
    assert list(standard) == list(headline)
    assert (standard["speedup_vs_standard"], standard["rouge1_vs_standard"]) == (1, 0)


def test_only_the_compared_variants_are_reported(run, params):
    for folder in ("metrics/variants", "data/details"):
        shutil.copytree(run / folder / "flash", run / folder / "leftover")
    reporting.build(params)
    assert "leftover" not in (run / "report/report.md").read_text(encoding="utf-8")


def test_a_further_variant_gets_its_row(run, params):
    make_variant(run, "wide", 0.7, 3.5, {name: (rows(f"data/subset/{name}.jsonl"), facts_of(name))
                                          for name in ("test", "test-2x")}, 9)
    wide = params.variants["flash_sparse"].model_copy(update={"window": 128})
    reporting.build(params.model_copy(update={"attention": "wide", "variants": {**params.variants, "wide": wide}}))
    assert len(re.findall(r"^\| wide \|", Path("report/report.md").read_text(encoding="utf-8"), re.MULTILINE)) >= 5


def rows(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def facts_of(name):
    return [row for row in rows("data/tokens/facts.jsonl") if row["set"] == name]


def test_the_figures_are_the_same_again(built, params):
    before = {path.name: path.read_bytes() for path in (built / "plots").glob("*.svg")}
    reporting.build(params)
    assert before == {path.name: path.read_bytes() for path in (built / "plots").glob("*.svg")}
    assert set(before) == FIGURES


def test_dvc_plots_show_and_the_report_have_the_same_figures(built):
    text = (built / "report/report.md").read_text(encoding="utf-8")
    listed = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]["plots"]
    assert sorted(re.findall(r"\(\.\./(plots/.*?)\)", text)) == sorted(next(iter(plot)) for plot in listed)


# What a colour (linear RGB) becomes to an eye without red or without green cones: Machado, Oliveira and Fernandes 2009,
# "A Physiologically-based Model for Simulation of Color Vision Deficiency", severity 1.
EYES = {"usual": np.eye(3),
        "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                       [-0.003882, -0.048116, 1.051998]],
        "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                         [-0.011820, 0.042940, 0.968881]]}
# Linear RGB to OKLab (Ottosson 2020), where distances are as large as they look; black and white are 1 apart.
TO_CONES = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005]]
TO_OKLAB = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660]]


def seen(colour, eye):
    """OKLab coordinates of a colour of the web, as this eye sees it."""
    rgb = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return TO_OKLAB @ np.cbrt(TO_CONES @ np.clip(EYES[eye] @ linear, 0, 1))


def nearest(colours, eye):
    return min(np.linalg.norm(seen(a, eye) - seen(b, eye)) for a, b in combinations(colours, 2))


@pytest.mark.parametrize("eye", EYES)
def test_every_eye_can_tell_the_colours_apart(eye):
    assert nearest(COLOURS, eye) > 0.07
    assert len(set(MARKERS)) == len(COLOURS) == len(MARKERS)


def test_the_measure_of_colours_knows_that_red_and_green_look_alike_to_some():
    assert nearest(["#000000", "#FFFFFF"], "usual") == pytest.approx(1, abs=1e-3)
    assert nearest(["#D62728", "#2CA02C"], "deuteranopia") < 0.07 < 0.3 < nearest(["#D62728", "#2CA02C"], "usual")


def test_verdict_claims_what_the_data_show(run, params):
    sparse = findings(params)
    assert (sparse["ROUGE-1"], sparse["fact recall"], sparse["loss"]) == (False, False, False)
    assert (sparse["forward pass"], sparse["peak memory"]) == (None, None)
    flash = findings(params, "flash")
    assert (flash["forward pass"], flash["generation"], flash["peak memory"]) == (True, True, True)


def test_verdict_claims_nothing_of_equals_or_of_noise(run, params):
    found = findings(params, "flash")
    assert all(found[name] is None for name in ("ROUGE-1", "ROUGE-L", "BLEU", "loss", "fact recall"))
    for folder in ("metrics/variants", "data/details"):
        shutil.copytree(run / folder / "standard", run / folder / "flash_sparse", dirs_exist_ok=True)
    assert set(findings(params).values()) == {None}


def test_where_nothing_beats_standard_the_answer_says_so():
    found = [Finding("generation", True, "31 against 40 ms"), Finding("peak memory", None, "+0%")]
    words = answers({"flash": found}, 200)
    assert words["For memory"] == "no variant beats standard beyond noise."
    assert words["For speed"] == "flash (generation 31 against 40 ms), at no loss of quality that shows."


@pytest.mark.parametrize(("loss", "rouge", "speed", "memory", "words"), [
    (None, None, True, None, "take flash: generation g, at no loss of quality that shows."),
    (None, True, False, None, "take flash: ROUGE-1 r, though generation g."),
    (None, None, None, True, "take flash: peak memory m, at no loss of quality that shows."),
    (False, True, True, True, "keep standard: nothing beats it beyond noise without losing quality."),
    (None, None, False, True, "keep standard: nothing beats it beyond noise without losing quality.")])
def test_the_recommendation_puts_quality_before_speed_before_memory(params, run, loss, rouge, speed, memory, words):
    found = [Finding("loss", loss, "l"), Finding("ROUGE-1", rouge, "r"), Finding("training step", True, "t"),
             Finding("generation", speed, "g"), Finding("peak memory", memory, "m")]
    assert recommend({"flash": found}, read_variants(params)) == f"On this machine, {words}"


def test_between_equals_the_recommendation_is_the_faster(params, run):
    found = [Finding("loss", None, "l"), Finding("generation", True, "g"), Finding("peak memory", None, "m")]
    judged = dict.fromkeys(("flash_alibi", "flash", "flash_sparse"), found)
    assert "take flash:" in recommend(judged, read_variants(params))


def test_summaries_stand_side_by_side_with_their_right_facts_marked(built, params):
    results = read_results(params)
    table = side_by_side(results.articles[1], results)
    assert [row[0] for row in table.rows] == ["reference", *SPEED]
    assert table.rows[0][2] == "2 of 2"
    for _, summary, stated in table.rows:
        facts = [part for part, strong in summary.parts if strong]
        assert stated.startswith(f"{len(facts)} of 2")
        assert {*facts} | {*stated.partition("missing: ")[2].split(", ")} >= {"101", "Friday"}
    assert "<strong>Friday</strong>" in (built / "report/report.html").read_text(encoding="utf-8")


def test_a_fact_is_marked_where_it_stands_as_a_word(tmp_path):
    marked = facts_marked("In 2012, 12 of\nMr. St. John's 120 (12).", ["12", "St. John", "7"])
    assert [part for part, strong in marked.parts if strong] == ["12", "St. John", "12"]
    page = to_html(escape(marked), tmp_path)
    assert page.count("<strong>") == 3
    assert "In 2012, <strong>12</strong> of Mr. <strong>St. John</strong>'s 120 (<strong>12</strong>)." in page


def test_facts_and_words_are_marked_in_scripts_without_spaces(tmp_path):
    assert [part for part, strong in facts_marked("他在北京市，北京。", ["北京"]).parts if strong] == ["北京"] * 2
    marked = changes_marked("他“昨”天，在北京。 Oslo", "他“今”日，在北京。 Oslo")
    assert (marked, [part for part, strong in marked.parts if strong]) == ("他“昨”天，在北京。 Oslo", ["昨”天"])
    assert "他“<strong>昨”天</strong>，在北京。 Oslo" in to_html(escape(marked), tmp_path)


def test_a_number_within_another_is_not_marked():
    assert [part for part, strong in facts_marked("It fell 12.5 by 12.", ["12"]).parts if strong] == ["12"]


def test_all_systems_are_scored_in_one_language_which_the_report_names(run, params):
    reporting.build(params)
    assert "scored as" not in Path("report/report.md").read_text(encoding="utf-8")
    for name in SPEED:
        edit(Path(f"data/details/{name}/quality.json"), lambda details: details["scorer"].update(language="ru"))
    rows = [row | {"summary": "Мэр открыл мост.", "reference": "Мэр открыл мост."}
            for row in read_predictions(Path("data/predictions/lead3.jsonl"))]
    write(run / "data/predictions/lead3.jsonl", rows)
    assert read_results(params).baselines[0].quality["rouge1"] == pytest.approx(1)
    reporting.build(params)
    assert ", scored as language ru." in Path("report/report.md").read_text(encoding="utf-8")


def test_without_facts_the_words_are_marked_that_differ_from_standards(tmp_path):
    marked = changes_marked("A mayor *of* Ash opened it. New", "The mayor of Ash opened it.")
    assert [part for part, strong in marked.parts if strong] == ["A", "*of*", "New"]
    assert to_html(escape(marked), tmp_path).count("<strong>") == 3
    assert changes_marked("", "The mayor") == ""


def test_a_difference_within_the_training_noise_is_not_claimed(run, params):
    """However sure the articles are: standard and flash are one function, and lie as far apart."""
    def lower(by):
        def change(details):
            details["articles"]["rouge1"] = [value - by for value in base]
        return change

    base = json.loads(Path("data/details/standard/quality.json").read_text())["articles"]["rouge1"]
    for name, by in (("flash", 0.05), ("flash_sparse", 0.05), ("flash_alibi", 0.06)):
        edit(run / f"data/details/{name}/quality.json", lower(by))
    assert findings(params, "flash_sparse")["ROUGE-1"] is None
    assert findings(params, "flash_alibi")["ROUGE-1"] is False


def test_a_difference_whose_interval_holds_zero_is_not_claimed(run, params):
    variants = {variant.name: variant for variant in read_variants(params)}
    none = dict.fromkeys(noise_floors(list(variants.values()), params.seed), 0.0)
    found = judge(variants["flash_alibi"], variants["standard"], none, params.seed)
    assert {f.measure: f.better for f in found}["ROUGE-1"] is None


def test_a_difference_that_the_machine_itself_shows_is_not_claimed(run, params):
    """A machine half as fast for one variant slows its yardstick too."""
    assert findings(params, "flash_alibi")["forward pass"] is True
    edit(run / "data/details/flash_alibi/efficiency.json",
         lambda profile: profile["timings"].__setitem__(0, timing("yardstick", 1, 512, 0, 8.0)))
    assert findings(params, "flash_alibi")["forward pass"] is None


# --- against length


LENGTHS = [2**power for power in range(5, 15)]


def line(value, noise=0.001):
    """A curve through `value` at each of `LENGTHS`, with a range of so much to each side."""
    return Curve([Point(at, value(at), value(at) * (1 - noise), value(at) * (1 + noise)) for at in LENGTHS], [])


@settings(max_examples=100, deadline=None)
@given(st.floats(40, 12_000), st.floats(0, 2), st.floats(0.2, 2))
def test_power_laws_cross_where_they_are_equal(meeting, exponent, steeper):
    flat, steep = (line(lambda at, p=power: (at / meeting)**p) for power in (exponent, exponent + steeper))
    for a, b, words in ((flat, steep, "b, from about {:,.0f} a"), (steep, flat, "a, from about {:,.0f} b")):
        found = compare(a, b, least=1.0)
        assert found.crossings == pytest.approx([meeting])
        assert found.in_words("a", "b") == words.format(found.crossings[0])


def test_lines_that_do_not_cross_say_who_takes_less_throughout():
    found = compare(line(lambda at: 2.0 * at), line(lambda at: 3.0 * at), least=1.0)
    assert (found.crossings, found.in_words("a", "b"), found.range) == ([], "a throughout", "32 to 16,384")
    assert compare(line(lambda at: 3.0), line(lambda at: 2.0), least=1.0).in_words("a", "b") == "b throughout"


@pytest.mark.parametrize(("noise", "least", "words"), [
    (0.001, 1.0, "a, from about 724 b"),
    (0.06, 1.0, "no difference beyond noise"),  # ranges overlap
    (0.001, 1.2, "no difference beyond noise")])  # the machine itself differed by more
def test_a_crossing_within_noise_is_not_claimed(noise, least, words):
    """The two differ by a tenth, with the order changed between 512 and 1,024."""
    found = compare(line(lambda at: 1.0, noise), line(lambda at: 1.1 if at < 600 else 1 / 1.1, noise), least)
    assert found.in_words("a", "b") == words


def test_an_order_that_only_noise_changes_at_the_end_is_no_crossing():
    ours, theirs = line(lambda at: at, 0.02), line(lambda at: 1.5 * at if at < 16_000 else 0.99 * at, 0.02)
    assert compare(ours, theirs, 1.0).in_words("a", "b") == "a; no difference beyond noise at 16,384"


def set_forward(run, name, values):
    """Let a variant's forward passes of batch 1 take these times; None is a point without room."""
    def change(profile):
        for rows in ("timings", "memory"):
            rest = [row for row in profile[rows] if row["work"] != "forward" or row["batch"] != 1]
            sizes = {at: 400.0 if value and rows == "memory" else value for at, value in values.items()}
            profile[rows] = [*rest, *(forward(rows, 1, at, value) for at, value in sizes.items())]

    edit(run / f"data/details/{name}/efficiency.json", change)


def test_the_report_says_where_the_lines_cross(run, params):
    set_forward(run, "standard", {64: 1.0, LENGTH: 4.0})
    set_forward(run, "flash", {64: 2.0, LENGTH: 3.0})
    set_forward(run, "flash_alibi", {64: 3.0, LENGTH: 2.0, 512: 9.0})
    found = {pair: words for pair, _, words, _ in crossings(read_results(params), BY_LENGTH).rows}
    crossing = 64 * np.exp(np.log(LENGTH / 64) * np.log(2) / (np.log(2) + np.log(4 / 3)))  # by hand
    assert found["flash / standard"] == f"standard, from about {crossing:.0f} flash"
    assert found["flash_alibi / standard"].startswith("standard, from about ")
    assert found["flash / flash_alibi"].startswith("flash, from about ")
    reporting.build(params)
    text = (run / "report/report.md").read_text(encoding="utf-8")
    assert found["flash / standard"] in text
    assert "flash_sparse / flash_alibi" not in text.replace("\\", "")  # of others only those that cross


def test_what_had_no_room_and_what_was_left_out_is_told(run, params):
    set_forward(run, "standard", {64: 1.0, LENGTH: 4.0, 512: None})
    set_forward(run, "flash_alibi", {64: 1.0, LENGTH: 4.0, 512: 9.0})
    reporting.build(params)
    text = (run / "report/report.md").read_text(encoding="utf-8").replace("\\", "")
    assert "| standard | forward ms | 1.00 | 4.00 | no room |" in text
    assert "| flash_alibi | forward ms | 1.00 | 4.00 | 9.00 |" in text
    assert "| flash | forward ms | 1.50 | 3.00 | - |" in text
    assert text.count("no room in memory (standard at 512)") == 2
    assert "Left out, for learned positions end there: standard, flash and flash_sparse beyond 176 tokens." in text


def test_a_point_without_room_is_a_cross(run, params):
    def crosses(name):
        reporting.build(params)
        return (run / f"plots/{name}.svg").read_text().count("stroke-width: 2.2")

    set_forward(run, "flash_alibi", {64: 1.0, LENGTH: 4.0, 512: 9.0})
    before = {name: crosses(name) for name in ("time_by_length", "memory_by_length", "batch_sizes")}
    set_forward(run, "flash_alibi", {64: 1.0, LENGTH: 4.0, 512: None})
    after = {name: crosses(name) for name in before}
    assert before["batch_sizes"] == after["batch_sizes"]
    assert all(after[name] > before[name] for name in ("time_by_length", "memory_by_length"))


def test_what_ran_in_inference_and_in_training_is_told(built):
    text = (built / "report/report.md").read_text(encoding="utf-8").replace("\\", "")
    assert ("| flash | kernel: flash, positions: learned, pattern: full | torch sdpa "
            "| sdpa, then ours | flex, then ours | flex | Virtual CPU") in text


def test_what_was_cut_is_told_on_the_first_screen_and_what_was_left_out_in_a_table(built):
    text = (built / "report/report.md").read_text(encoding="utf-8").replace("\\", "")
    assert "60 test articles, of which 7 were cut to fit" in text
    assert "| train | 60 | 222 | 7 | 44 | 1 |" in text


def test_attentions_share_and_what_of_the_device_is_used_are_shown(built):
    text = (built / "report/report.md").read_text(encoding="utf-8").replace("\\", "")
    assert "| flash_alibi | 10% | 20% |" in text
    assert "| flash | attention | 1 | 176 | 0.0500 | 25.0% | 2.00 | 5.0% |" in text
    assert "0.200 TFLOP/s in a large product of float32 matrices and 40.0 GB/s" in text


def test_a_step_that_did_not_fit_in_memory_is_a_dash(run, params):
    def forget(profile):
        profile["timings"][-1] = {"work": "train_step", "batch": 16, "length": LENGTH, "out_of_memory": True}

    edit(run / "data/details/standard/efficiency.json", forget)
    edit(run / "metrics/variants/standard/efficiency.json", lambda flat: flat.update(train_step_ms=None))
    reporting.build(params)
    assert findings(params, "flash")["training step"] is True  # at batch 8, which both have room for


@pytest.mark.parametrize(("device", "ms", "told"), [
    ("NVIDIA H200", (20.0, 26.0, 50.0), "Up to batch 4 a larger one takes hardly longer"),
    ("NVIDIA H200", (20.0, 30.0, 41.0), "Up to batch 8 a larger one takes hardly longer"),
    ("NVIDIA H200", (20.0, 30.0, 50.0), None),
    ("Virtual CPU, 2 cores", (20.0, 20.0, 20.0), None)])
def test_figure_3_says_where_steps_wait_for_python(run, params, device, ms, told):
    def replace(profile):
        steps = [timing for timing in profile["timings"] if timing["work"] == "train_step"]
        for step, median in zip(steps, ms, strict=True):
            step["median"] = median

    for name in SPEED:
        edit(run / f"data/details/{name}/efficiency.json", lambda profile: profile.update(device=device))
    edit(run / "data/details/flash_alibi/efficiency.json", replace)
    reporting.build(params)
    text = (run / "report/report.md").read_text(encoding="utf-8")
    assert text.count("takes hardly longer") == (told is not None)
    assert told is None or told in text


def test_on_a_gpu_its_counters_are_shown_and_no_word_of_cpus(run, params):
    for name in SPEED:
        edit(run / f"data/details/{name}/efficiency.json", lambda profile: profile.update(
            device="NVIDIA H200", nvml={"work": "generate", "runs": 3, "power_w_mean": 251.0, "energy_j": None,
                                                "energy_per_summary_j": 7.25}))
    reporting.build(params)
    text = (run / "report/report.md").read_text(encoding="utf-8")
    assert "| power_w_mean | 251 |" in text
    assert "| energy_per_summary_j | 7.25 |" in text
    assert "CPU." not in text


def test_without_facts_or_further_sets_the_rest_is_there(run, params):
    def forget(quality):
        for key in [key for key in quality if key.startswith("fact")]:
            del quality[key]
        if "articles" in quality:
            quality["further"] = {}
            del quality["articles"]["facts"], quality["articles"]["facts_found"]

    for name in SPEED:
        edit(run / f"metrics/variants/{name}/quality.json", forget)
        edit(run / f"data/details/{name}/quality.json", forget)
    write(run / "data/tokens/facts.jsonl", "")
    reporting.build(params)
    text = (run / "report/report.md").read_text(encoding="utf-8")
    assert "Fact recall by distance" not in text
    assert "facts stated" not in text
    assert "Bold: words" in text
    assert (run / "plots/fact_recall.svg").exists()  # dvc.yaml lists it


def test_what_became_of_the_rows_of_ones_own_files_is_told(run, params):
    data = params.chosen.data.model_copy(update={"source": "files", "path": "news.csv"})
    own = params.model_copy(update={"presets": {"laptop": params.chosen.model_copy(update={"data": data})}})
    with pytest.raises(DataError, match=r"articles.json is missing"):
        read_results(own)
    row = {"input": "news.csv", "read as": "csv, utf-8", "rows": 1200, "exact duplicates": 7, "used": 1100}
    write(run / "data/details/articles.json", {"inputs": [row]})
    reporting.build(own)
    text = (run / "report/report.md").read_text(encoding="utf-8")
    assert "| input | read as | rows | exact duplicates | used |" in text
    assert "| news.csv | csv, utf-8 | 1,200 | 7 | 1,100 |" in text


@pytest.mark.parametrize("path", [
    "metrics/variants/flash/quality.json", "plots/training/flash.csv", "metrics/machine.json",
    "data/predictions/untrained.jsonl", "data/predictions/lead3.jsonl", "data/details/standard/efficiency.json"])
def test_a_missing_file_is_named_with_the_command(run, params, path):
    (run / path).unlink()
    with pytest.raises(DataError, match=rf"{path}.*dvc repro"):
        read_results(params)


def test_the_comparison_is_printed_quickly(run, capsys, params):
    reporting.print_comparison(params)
    printed = capsys.readouterr().out
    assert all(name in printed for name in [*SPEED, "report/report.html", "ROUGE-1"])
    code = "import sys, headtohead.reporting; sys.exit(not {'matplotlib', 'torch', 'nltk'}.isdisjoint(sys.modules))"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=True)


def test_curves_may_lack_values(run, params):
    with Path("plots/training/flash.csv").open(encoding="utf-8") as lines:
        assert any(row["validation_loss"] == "" for row in csv.DictReader(lines))
    curve = next(variant.curve for variant in read_variants(params, whole=True) if variant.name == "flash")
    assert {len(row) for row in curve} == {3, 4}
