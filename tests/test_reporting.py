"""The report, built from small made-up results of every stage."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from made_up import (
    EVIL,
    LENGTH,
    SEEDS,
    SPEED,
    TRAINED_ON,
    edit,
    make_efficiency,
    make_quality,
    make_run,
    make_sets,
    results,
    write,
)
from matplotlib.figure import Figure
from PIL import Image

from headtohead import reporting
from headtohead.attention import AttentionSpec
from headtohead.attention.patterns import Full, Window
from headtohead.params import read_params
from headtohead.paths import details
from headtohead.records import DataError
from headtohead.reporting import choice, figures, patterns
from headtohead.reporting.claims import judge
from headtohead.reporting.drawing import COLOURS, DASHES, MARKERS
from headtohead.reporting.examples import changes_marked, facts_marked, side_by_side
from headtohead.reporting.page import escape, to_html
from headtohead.reporting.results import read_results
from headtohead.reporting.windows import curves

ROOT = Path(__file__).parents[1]
FIGURES = {f"{name}.svg" for name in (
    "differences", "quality_and_time", "quality", "inference_time", "training_time", "memory", "fact_recall",
    "learning_curves", "time_by_length", "memory_by_length", "batch_sizes", "who_sees_whom", "quality_and_reach",
    "window_width", "choices")}
BLANK = '<svg xmlns="http://www.w3.org/2000/svg"/>'
SHOWN = FIGURES - {"window_width.svg"}  # where one variant alone has a window


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    make_run(root)
    return root


@pytest.fixture
def params():
    return read_params(ROOT / "params.yaml")


@pytest.fixture
def run(made, tmp_path, monkeypatch, request):
    """A copy of the made-up results, as the current directory.

    Figures are made but not drawn, which takes longer than all the rest, except in tests marked `pictures`.
    """
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    if not request.node.get_closest_marker("pictures"):
        monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: path.write_text(BLANK))
    return tmp_path


@pytest.fixture
def built(run, params):
    reporting.build(params)
    return run


def opening(text):
    """The first screen."""
    return text.split("## Differences")[0]


def report():
    """The text, without what keeps Markdown from taking it for markup."""
    return Path("report/report.md").read_text(encoding="utf-8").replace("\\", "").replace("\u00a0", " ")


def test_the_report_says_everything_in_order(built):
    titles = re.findall(r"^#+ (.*)$", report(), re.MULTILINE)
    assert titles[:4] == ["Which attention for this summarizer?", "Differences to full attention", "Every training",
                          "Table I: quality, beside the study's"]
    opening = report().split("## Differences")[0]
    places = [opening.index(part) for part in (
        "**On this machine, take flash: it computes what standard computes, generation takes 0.75 (", "| Lead-3 |",
        "| variant | forward ms | ratio |", "training seeds 13, 14, 15", "plots/differences.svg",
        "plots/quality_and_time.svg")]
    assert places == sorted(places)
    assert [int(number) for number in re.findall(r"^\*Figure (\d)", report(), re.MULTILINE)] == [1, 2, 3, 4]
    for part in ("0.1806", "8,877.81", "untrained", "test-2x", "32-63 tokens", "place 3", "aten::op", "0123abcd",
                 "no evidence about sparse attention", "wrong, from the article"):
        assert part in report(), part


def test_the_first_tables_hold_every_measure_that_decides(built):
    quality, cost = re.findall(r"^\| variant .*\n\|.*\n((?:\|.*\n)+)", report(), re.MULTILINE)[:2]
    cells = {name: row.split(" | ") for row in quality.splitlines() for name in [row.split(" | ")[0].strip("| ")]}
    assert list(cells) == [*SPEED, "Lead-3", "untrained"]
    assert cells["flash"][3:5] == ["-", "full attention"]
    assert cells["flash_sparse"][4] == "worse"
    assert re.fullmatch(r"-0\.\d+ \(-0\.\d+ to -0\.\d+\)", cells["flash_sparse"][3])
    assert re.fullmatch(r"0\.\d{3} \(3\)", cells["flash"][2])
    ratio = r"0\.7\d faster \(0\.7\d to 0\.7\d\)"
    assert re.search(rf"\| flash \| 3\.00 \| {ratio} \| 36\.0 \| {ratio} \| 96\.0 \| {ratio} \| 388 \| 0\.9\d smaller ",
                     cost)
    assert re.search(r"\| standard \| 4\.00 \| (1\.0|0\.9)\d within 5 %", cost)  # against itself
    assert re.findall(r"^\| (\w+) .* \| (\S+) \| (\S+) \|$", cost, re.MULTILINE) == [
        (name, *(("60.0", "0.0625") if name == "flash_sparse" else ("100", "0.172"))) for name in SPEED]


def test_what_prompt_lookup_gains_follows_from_tokens_and_passes(built):
    """A token takes (12 - 1.1) / 31 of a forward pass in the made-up run, lookup's pass half of one."""
    section = report().split("### Prompt lookup")[1].split("\n## ")[0]
    gain = f"{2.5 * (12 - 1.1) / 31 / 0.5:.2f}"
    rows = re.findall(r"^\| (\w+) \| (\S+) \| \S+ \| \S+ \| (\S+) \|$", section, re.MULTILINE)
    assert rows == [(name, *(("-", "-") if name == "flash_sparse" else ("2.50", gain))) for name in SPEED]
    assert "drafts 15 tokens from the article" in section


def test_without_prompt_lookup_there_is_no_section(run, params):
    for name in SPEED:
        edit(details(name, "efficiency"), lambda content: content.update(
            timings=[row for row in content["timings"] if row["work"] != "lookup_pass"]))
    reporting.build(params)
    assert "Prompt lookup" not in report()


def test_no_training_is_left_out(built):
    rows = re.findall(r"^\| (\w+) \| (\d+) \| 0\.\d{4} \|.* 1,200 \| 1,200 \|$", report(), re.MULTILINE)
    assert rows == [(name, seed) for name in SPEED for seed in ("13", "14", "15")]


@pytest.mark.pictures
def test_of_many_trainings_the_spread_comes_first_and_no_row_is_left_out(built, params, monkeypatch):
    few = report()
    monkeypatch.setattr("headtohead.reporting.results.MANY", 11)  # there are 12
    lines = Path("plots/learning_curves.svg").read_text(encoding="utf-8").count("<path")
    reporting.build(params)
    section = re.search(r"## Every training\n(.*?)\n## ", report(), re.DOTALL)[1]
    recalls = sorted(row["fact_recall"] for seed in SEEDS
                     for row in [json.loads(Path(f"data/details/flash/quality/{seed}.json").read_text())])
    assert "| flash | 3 | {1:.3f} ({0:.3f} to {2:.3f}) |".format(*recalls) in section
    rows = re.findall(r"^\| \w+ \| 1[345] \| .*$", few, re.MULTILINE)
    assert len(rows) == 12
    assert not [row for row in rows if row in section]
    last = report().split("## Every training, one by one")[1]
    assert re.findall(r"^\| \w+ \| 1[345] \| .*$", last, re.MULTILINE) == rows
    assert Path("plots/learning_curves.svg").read_text(encoding="utf-8").count("<path") >= lines


def test_the_page_stands_alone_and_obeys_no_article(built):
    page = (built / "report/report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href|url|@import)\s*[=(]?\s*["']?(https?:)?//""", page)
    assert page.count("data:image/svg+xml;base64,") == len(SHOWN)
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
    assert (headline["attention"], headline["preset"], headline["seeds"]) == ("flash", "laptop", 3)
    assert headline["data"] == "newswire, 8,000 articles to train and 60 to test"
    assert len(headline) <= 21
    costs = judge(read_results(params)).costs["flash"]
    assert headline["speedup_vs_standard"] == 1 / costs["forward"].ratio.value == pytest.approx(4 / 3, rel=0.03)
    assert headline["memory_vs_standard"] == costs["memory"].ratio.value == pytest.approx(388.5 / 410, rel=0.01)
    edit(built / "metrics/variants/flash/efficiency.json", lambda figures: figures.update(forward_ms=9.0))
    reporting.build(params)
    later = json.loads((built / "metrics/headline.json").read_text())
    assert later["speedup_vs_standard"] == headline["speedup_vs_standard"], "it is not of times taken minutes apart"
    reporting.build(params.model_copy(update={"attention": "standard"}))
    standard = json.loads((built / "metrics/headline.json").read_text())
    assert list(standard) == list(headline)
    assert (standard["speedup_vs_standard"], standard["rouge1_vs_standard"]) == (1, 0)


def test_only_the_compared_variants_are_reported(run, params):
    for folder in ("metrics/variants", "data/details"):
        shutil.copytree(run / folder / "flash", run / folder / "leftover")
    reporting.build(params)
    assert "leftover" not in report()


def test_a_further_variant_gets_its_row(run, params):
    make_quality(run, "wide", params.seeds, make_sets(run), 0.7)
    make_efficiency(run, "wide", 3.5, 4.0)
    wide = params.variants["flash_sparse"].model_copy(update={"window": 128})
    reporting.build(params.model_copy(update={"attention": "wide", "variants": {**params.variants, "wide": wide}}))
    assert len(re.findall(r"^\| wide \|", report(), re.MULTILINE)) >= 5


@pytest.mark.pictures
def test_the_figures_are_the_same_again(built, params):
    before = {path.name: path.read_bytes() for path in (built / "plots").glob("*.svg")}
    reporting.build(params)
    assert before == {path.name: path.read_bytes() for path in (built / "plots").glob("*.svg")}
    assert set(before) == FIGURES


def test_dvc_plots_show_and_the_report_have_the_same_figures(built):
    listed = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]["plots"]
    assert {next(iter(plot)) for plot in listed} == {f"plots/{name}" for name in FIGURES}
    assert sorted(re.findall(r"\(\.\./plots/(.*?)\)", report())) == sorted(SHOWN)


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
    assert nearest(set(COLOURS), eye) > 0.07


def test_no_two_of_many_variants_look_alike():
    assert len(COLOURS) == len(MARKERS) == len(set(zip(COLOURS, MARKERS, strict=True)))
    assert len(DASHES) >= len(COLOURS)


def test_the_measure_of_colours_knows_that_red_and_green_look_alike_to_some():
    assert nearest(["#000000", "#FFFFFF"], "usual") == pytest.approx(1, abs=1e-3)
    assert nearest(["#D62728", "#2CA02C"], "deuteranopia") < 0.07 < 0.3 < nearest(["#D62728", "#2CA02C"], "usual")


def test_summaries_stand_side_by_side_with_their_right_facts_marked(built, params):
    results = read_results(params)
    article = results.articles[1]
    table = side_by_side(article, results)
    assert [row[0] for row in table.rows] == ["reference", *SPEED]
    assert table.rows[0][2] == "5 of 5"
    values = {fact["value"] for fact in article["facts"]}
    for _, summary, stated in table.rows:
        facts = {part for part, strong in summary.parts if strong}
        assert stated.startswith(f"{len(facts)} of 5")
        assert facts | {*filter(None, stated.partition("missing: ")[2].split(", "))} == values
    assert f"<strong>{article['facts'][0]['value']}</strong>" in Path("report/report.html").read_text(encoding="utf-8")


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


def test_another_language_than_english_is_named(run, params):
    reporting.build(params)
    assert "scored as" not in report()
    for name in SPEED:
        edit(f"data/details/{name}/quality.json", lambda details: details["scorer"].update(language="ru"))
    reporting.build(params)
    assert "; scored as language ru." in report()


def test_without_facts_the_words_are_marked_that_differ_from_standards(tmp_path):
    marked = changes_marked("A mayor *of* Ash opened it. New", "The mayor of Ash opened it.")
    assert [part for part, strong in marked.parts if strong] == ["A", "*of*", "New"]
    assert to_html(escape(marked), tmp_path).count("<strong>") == 3
    assert changes_marked("", "The mayor") == ""


def test_what_ran_in_inference_and_in_training_is_told(built):
    assert ("| flash | kernel: flash, positions: learned, pattern: full | torch sdpa "
            "| sdpa, then ours | flex, then ours | flex | Virtual CPU") in report()


def test_what_trainings_ran_on_is_told(run, params):
    write(run / "data/predictions/flash_alibi/trained_on/15.json", {**TRAINED_ON, "backend": "flex"})
    reporting.build(params)
    assert ("| trained on | attention by | trainings |\n| :--- | :--- | :--- |\n"
            "| Virtual CPU, 1 thread | sdpa | standard 13, 14, 15; flash 13, 14, 15; flash_alibi 13, 14; flash_sparse "
            "13, 14, 15 |\n| Virtual CPU, 1 thread | flex | flash_alibi 15 |\n") in report()
    assert "different" not in opening(report())


GPU = {"device": "NVIDIA H100", "threads": None, "backend": "flash-attn", "devices": 1}


@pytest.mark.parametrize(("elsewhere", "on", "told"), [
    ({"flash": (14,)}, {**TRAINED_ON, "threads": 2}, "Virtual CPU, 1 thread (standard, flash, seeds 13 and 15, "
     "flash_alibi and flash_sparse) and Virtual CPU, 2 threads (flash, seed 14)."),
    ({"flash_alibi": SEEDS}, GPU, "Virtual CPU, 1 thread (standard, flash and flash_sparse) and NVIDIA H100 "
     "(flash_alibi), and on none of those of full attention flash_alibi, whose difference to it may be one of "
     "machines."),
    ({name: SEEDS for name in SPEED if name != "flash"}, {**GPU, "devices": 4}, "4 devices of NVIDIA H100 (standard, "
     "flash_alibi and flash_sparse) and Virtual CPU, 1 thread (flash)."),
    (dict.fromkeys(SPEED, SEEDS), GPU, None),
    ({"standard": (13,)}, None, "not recorded (standard, seed 13) and Virtual CPU, 1 thread (standard, seeds 14 and "
     "15, flash, flash_alibi and flash_sparse)."),
])
def test_trainings_on_machines_of_different_kinds_are_named_on_the_first_screen(run, params, elsewhere, on, told):
    for name, seeds in elsewhere.items():
        for seed in seeds:
            write(run / f"data/predictions/{name}/trained_on/{seed}.json", on)
    reporting.build(params)
    begins = "Trained on machines of different kinds, which round differently: "
    assert (begins in report()) == (told is not None)
    if told:
        assert f"> **{begins}{told}**" in opening(report())


def test_times_of_different_machines_are_named_and_nothing_is_chosen_by_them(built, params, capsys):
    make_efficiency(built, "flash_alibi", 3 * SPEED["flash_alibi"], 3 * SPEED["standard"])  # slower, and not busy
    edit(details("flash_alibi", "efficiency"), lambda content: content.update(device="Other CPU, 4 cores", threads=4))
    reporting.build(params)
    told = ("Times and memory were measured on different machines: Virtual CPU, 2 cores, 2 threads (standard, flash "
            "and flash_sparse) and Other CPU, 4 cores, 4 threads (flash_alibi). Each ratio is of pairs on one machine")
    assert told in opening(report())
    assert "busy" not in opening(report())
    reporting.print_comparison(params)
    assert told in " ".join(capsys.readouterr().out.split())
    with pytest.raises(DataError, match=r"times were taken on different machines, Virtual CPU.* dvc repro --force -s "
                                        r"profile@standard profile@flash profile@flash_alibi profile@flash_sparse"):
        choice.of_last_run(params)


@pytest.mark.parametrize(("cut", "told", "warned"), [
    (0, "of which none was cut", False), (3, "of which 3 (5 %) were cut, to at most 135 tokens", False),
    (40, "of which 40 (67 %) were cut, to at most 135 tokens", True)])
def test_what_was_cut_is_told_on_the_first_screen_and_what_was_left_out_in_a_table(run, params, cut, told, warned):
    edit("data/details/lengths.json", lambda rows: rows[0].update(cut=cut))
    reporting.build(params)
    opening = report().split("## Differences")[0]
    assert told in opening
    assert ("> **67 % of the test articles were cut: the models could not see the rest of them.**" in opening) == warned
    assert "| train | 8,000 | 222 | 3 | 44 | 1 |" in report()


def test_attentions_share_and_what_of_the_device_is_used_are_shown(built):
    assert "| flash_alibi | 10% | 20% |" in report()
    assert "| flash | attention | 1 | 176 | 0.0500 | 25.0% | 2.00 | 5.0% |" in report()
    assert "0.200 TFLOP/s in a large product of float32 matrices and 40.0 GB/s" in report()


def test_what_did_not_fit_in_memory_is_told(run, params):
    def forget(profile):
        profile["timings"][-1] = {"work": "train_step", "batch": 16, "length": LENGTH, "out_of_memory": True}
        profile["pairs"]["train_step"] = None

    for name in SPEED:  # every variant's pairs are with standard
        edit(f"data/details/{name}/efficiency.json", forget)
    edit("metrics/variants/standard/efficiency.json", lambda flat: flat.update(train_step_ms=None))
    reporting.build(params)
    assert re.search(r"^\| standard \| 4.00 .* \| 48.0 .* \| - \| no room \| 410", report(), re.MULTILINE)
    assert "take flash:" in report()


@pytest.mark.parametrize(("device", "ms", "told"), [
    ("NVIDIA H200", (20.0, 26.0, 50.0), "Up to batch 4 the GPU waits for Python"),
    ("NVIDIA H200", (20.0, 30.0, 41.0), "Up to batch 8 the GPU waits for Python"),
    ("NVIDIA H200", (20.0, 30.0, 50.0), None),
    ("Virtual CPU, 2 cores", (20.0, 20.0, 20.0), None)])
def test_figure_3_says_where_steps_wait_for_python(run, params, device, ms, told):
    def replace(profile):
        steps = [timing for timing in profile["timings"] if timing["work"] == "train_step"]
        for step, median in zip(steps, ms, strict=True):
            step["median"] = median

    for name in SPEED:
        edit(f"data/details/{name}/efficiency.json", lambda profile: profile.update(device=device))
    edit("data/details/flash_alibi/efficiency.json", replace)
    reporting.build(params)
    assert report().count("the GPU waits") == (told is not None)
    assert told is None or told in report()


@pytest.mark.parametrize(("devices", "told"), [
    (1, []), (4, [", on one device, where training shares each batch of 8 among 4"]),
    ("all", [", on one device, where training shares each batch of 8 among all"])])
def test_that_a_step_is_timed_on_one_device_is_told_where_training_has_several(run, params, devices, told):
    preset = params.chosen.model_copy(update={"train": params.chosen.train.model_copy(update={"devices": devices})})
    reporting.build(params.model_copy(update={"presets": params.presets | {params.preset: preset}}))
    assert re.findall(r", on one device[^.;]*", report()) == told


def test_on_a_gpu_its_counters_are_shown_and_no_word_of_cpus(run, params):
    for name in SPEED:
        edit(f"data/details/{name}/efficiency.json", lambda profile: profile.update(
            device="NVIDIA H200", nvml={"work": "generate", "runs": 3, "power_w_mean": 251.0, "energy_j": None,
                                        "energy_per_summary_j": 7.25}))
    reporting.build(params)
    assert "| power_w_mean | 251 |" in report()
    assert "| energy_per_summary_j | 7.25 |" in report()
    assert "CPU." not in report()


def forget_facts(quality):
    """What scoring says of articles whose facts are not known."""
    for content in (quality, quality.get("articles", {})):
        for key in [key for key in content if key.startswith(("fact", "value", "wrong"))]:
            del content[key]
    if "further" in quality:
        quality["further"] = {}


def without_facts(run):
    for path in [*run.glob("metrics/variants/*/quality.json"), *run.glob("data/details/*/quality.json"),
                 *run.glob("data/details/*/quality/*.json")]:
        edit(path, forget_facts)
    write(run / "data/tokens/facts.jsonl", "")


def test_without_facts_or_further_sets_the_rest_is_there(run, params):
    without_facts(run)
    reporting.build(params)
    assert "The primary measure is ROUGE-1." in report()
    for gone in ("Fact recall", "facts stated", "Longer articles", "fact precision"):
        assert gone not in report()
    assert "Bold: words" in report()
    assert (run / "plots/fact_recall.svg").exists()  # dvc.yaml lists it


def test_what_became_of_the_rows_of_ones_own_files_is_told(run, params):
    data = params.chosen.data.model_copy(update={"source": "files", "path": "news.csv"})
    own = params.model_copy(update={"presets": {"laptop": params.chosen.model_copy(update={"data": data})}})
    with pytest.raises(DataError, match=r"articles.json is missing"):
        read_results(own)
    row = {"input": "news.csv", "read as": "csv, utf-8", "rows": 1200, "exact duplicates": 7, "used": 1100}
    write(run / "data/details/articles.json", {"inputs": [row]})
    reporting.build(own)
    assert "| input | read as | rows | exact duplicates | used |" in report()
    assert "| news.csv | csv, utf-8 | 1,200 | 7 | 1,100 |" in report()
    assert "news.csv, 8,000 articles to train and 60 to test" in report().split("## ")[0]


@pytest.mark.parametrize("path", [
    "metrics/variants/flash/quality.json", "plots/training/flash/14.csv", "metrics/machine.json",
    "data/details/untrained/quality.json", "data/details/lead3/quality.json", "data/details/flash/quality/15.json",
    "data/details/standard/efficiency.json", "data/predictions/flash/13.jsonl"])
def test_a_missing_file_is_named_with_the_command(run, params, path):
    (run / path).unlink()
    with pytest.raises(DataError, match=rf"{path}.*dvc repro"):
        read_results(params)


OTHER_PRESET = {"run": {"preset": "news", "data": "0" * 64}}
OTHER_DATA = {"run": {"preset": "laptop", "data": "1" * 64}}


@pytest.mark.parametrize(("path", "change", "told"), [
    ("data/details/flash/quality.json", OTHER_PRESET, "preset news, where .* laptop"),
    ("data/details/flash/efficiency.json", OTHER_PRESET, "preset news, where .* laptop"),
    ("data/details/flash/quality/14.json", OTHER_DATA, "data 1111"),
    ("data/details/lead3/quality.json", OTHER_DATA, "data 1111"),
    ("metrics/variants/flash/quality.json", {"seeds": 2}, "2 seeds, where .* 3"),
    ("metrics/headline.json", {"preset": "news"}, "preset news, but params.yaml has laptop"),
    ("metrics/headline.json", {"seeds": 5}, "seeds 5, but params.yaml has 3")])
def test_a_mixture_of_two_runs_is_refused(built, params, path, change, told):
    edit(path, lambda content: content.update(change))
    with pytest.raises(DataError, match=rf"^{path} is of {told}.*`dvc repro`"):
        reporting.print_comparison(params)


def test_the_comparison_is_printed_quickly(built, capsys, params):
    reporting.print_comparison(params)
    printed = capsys.readouterr().out
    assert printed.startswith("On this machine, take flash: ")
    assert re.findall(r"^(How sure|Next|Report): \w+", printed, re.MULTILINE) == ["How sure", "Next", "Report"]
    assert "\nNext: use the model: h2h summarize FILE --model models/flash/13\n" in printed
    assert all(part in printed for part in [*SPEED, "Lead-3", "report/report.html", "ROUGE-1", "faster"])
    code = "import sys, headtohead.reporting; sys.exit(not {'matplotlib', 'torch', 'nltk'}.isdisjoint(sys.modules))"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=True)


def test_curves_may_lack_values(run, params):
    with Path("plots/training/flash/13.csv").open(encoding="utf-8") as lines:
        assert any(row["validation_loss"] == "" for row in csv.DictReader(lines))
    [flash] = [variant for variant in read_results(params).variants if variant.name == "flash"]
    assert {len(row) for row in flash.trainings[0].curve} == {3, 4}
    assert len(flash.trainings[0].validation) == 8


def test_every_variant_is_followed_through_the_longer_articles(built):
    section = report().split("## Longer articles than in training")[1].split("\n## ")[0]
    number = r"\d\.\d{3} \(\S+ to \S+\)"
    rows = re.findall(rf"^\| (\w+) \| (\S+) \| {number} \| {number} \| {number} \| 0% \|$", section, re.MULTILINE)
    assert rows == [(name, part) for name in SPEED for part in ("test", "test-2x", "test-8x")]
    assert "variants without a position table (flash_alibi) read it whole" in section


# --- who sees whom


def pixels(svg):
    """Every picture of an SVG, as arrays; how they are packed may differ between machines."""
    return [np.asarray(Image.open(BytesIO(b64decode(data)))) for data in re.findall(r"base64,([^\"]+)", svg)]


def words(svg):
    """What is written in an SVG; its letters are shapes."""
    return re.findall(r"<!-- (.*?) -->", svg, re.DOTALL)


def test_the_documents_picture_is_what_its_command_draws(tmp_path, monkeypatch):
    committed = ROOT / "docs/attention/patterns.svg"
    monkeypatch.chdir(ROOT)
    patterns.main(str(tmp_path / "patterns.svg"))
    drawn, kept = ((path / "patterns.svg").read_text(encoding="utf-8") for path in (tmp_path, committed.parent))
    assert words(drawn) == words(kept)
    assert all(np.array_equal(*pair) for pair in zip(pixels(drawn), pixels(kept), strict=True))


def drawn(variants, layers):
    """The titles of the pictures, and which pairs each shows dark."""
    figure = patterns.who_sees_whom({name: AttentionSpec(**spec) for name, spec in variants.items()}, layers)
    panels = [axes for axes in figure.axes if axes.images]
    return [axes.get_title() for axes in panels], [axes.images[0].get_array() == 1 for axes in panels], figure


WINDOW, FULL = {"pattern": "window", "window": 8}, {"pattern": "full"}


def test_a_picture_shows_what_the_variant_sees():
    titles, [everything, window], _ = drawn({"a": FULL, "a_fused": FULL | {"kernel": "flash"}, "near": WINDOW}, 2)
    assert titles == ["a, a_fused", "near"]
    assert everything.shape == window.shape == (32, 32)
    assert np.array_equal(everything, np.tri(32))
    assert np.array_equal(window, np.tri(32) - np.tri(32, k=-8))


def test_layers_that_see_otherwise_have_pictures_of_their_own():
    titles, seen, _ = drawn({"mixed": {"layers": [WINDOW, WINDOW, FULL]}}, 5)
    assert titles == ["mixed\nlayers 1-2, 4-5", "layer 3"]
    assert seen[0].sum() < seen[1].sum()
    assert drawn({"mixed": {"layers": [WINDOW, WINDOW, FULL]}}, 2)[0] == ["mixed"]


def test_of_many_layers_the_first_are_shown():
    bigbird = {"pattern": "bigbird", "block": 4, "window_blocks": 1, "global_blocks": 1, "random_blocks": 1}
    titles, seen, _ = drawn({"birds": bigbird}, 6)
    assert titles == ["birds\nlayer 1", "layer 2", "layer 3", "layer 4, and so on"]
    assert len({picture.tobytes() for picture in seen}) == 4


def test_performer_is_said_to_approximate():
    _, [seen], figure = drawn({"performer": {"kernel": "performer", "features": 8}}, 2)
    assert np.array_equal(seen, np.tri(256))
    assert [text.get_text() for text in figure.axes[0].texts] == ["all,\napproximately"]


@pytest.mark.parametrize(("window", "length"), [(8, 32), (64, 192), (200, 256)])
def test_the_pictures_length_shows_the_pattern(window, length):
    assert patterns.common_length([Full(), Window(window=window)]) == length


def most_looks(params):
    """As many variants as a run can compare."""
    others = [name for name in params.variants if name not in params.compared]
    more = {f"more{i}": params.variants["flash"] for i in range(11 - len(others))}
    return params.model_copy(update={"attention": [*others, *more][-1], "also": [*others, *more][:10],
                                     "variants": {**params.variants, **more}})


def test_as_many_variants_as_can_be_compared_all_look_different(run, params):
    params, sets = most_looks(params), make_sets(run)
    assert len(params.compared) == len(set(COLOURS))
    for name in params.compared:
        make_quality(run, name, params.seeds, sets, 0.7)
        make_efficiency(run, name, SPEED.get(name, 3.5), 4.0)
    reporting.build(params)
    assert all((run / "plots" / name).exists() for name in FIGURES)


# --- quality against the width of the window


def near(window, layers=1, **rest):
    """A window in all of `layers` layers but the last; in every layer if there is one."""
    local = {"pattern": "window", "window": window}
    tile = {"layers": [local] * (layers - 1) + [FULL]} if layers > 1 else local
    return AttentionSpec(**{"kernel": "flash", **rest, **tile})


def with_windows(params, variants, layers=4):
    """A run of full attention and `variants`, of a model of so many layers."""
    specs = {"standard": AttentionSpec(), **variants}
    named = params.model_copy(update={"variants": {**params.variants, **specs}})
    made = results(named, {name: np.full((3, 20), 0.5) for name in specs})
    return replace(made, variants=[replace(variant, profile=variant.profile | {"layers": layers})
                                   for variant in made.variants])


def test_windows_that_differ_in_width_alone_make_a_curve_that_ends_in_full_attention(params):
    every = {f"every{width}": near(width) for width in (64, 16, 32)}
    most = {f"most{width}": near(width, layers=4) for width in (8, 16, 32, 64)}
    alibi = {f"alibi{width}": near(width, positions="alibi") for width in (16, 32, 64)}
    few = {f"rope{width}": near(width, positions="rope") for width in (16, 32)}
    found = curves(with_windows(params, every | most | alibi | few))
    assert [(curve.label, [(width, variant.name) for width, variant in curve.points]) for curve in found] == [
        ("every layer", [(16, "every16"), (32, "every32"), (64, "every64")]),
        ("3 of 4 layers", [(8, "most8"), (16, "most16"), (32, "most32"), (64, "most64")]),
        ("every layer, alibi", [(16, "alibi16"), (32, "alibi32"), (64, "alibi64")])]
    assert [curve.full and curve.full.name for curve in found] == ["standard", "standard", None]


def test_of_two_layers_no_three_of_four_have_a_window(params):
    [curve] = curves(with_windows(params, {"a": near(8), "b": near(16, layers=4), "c": near(32, layers=4),
                                           "same": near(8, layers=4)}, layers=2))
    assert (curve.label, [variant.name for _, variant in curve.points]) == ("every layer", ["a", "b", "c"])


@pytest.mark.pictures
def test_the_report_has_the_curve_where_there_are_windows(run, params):
    sets, windows = make_sets(run), {f"window{width}": near(width) for width in (16, 32)}
    for name in windows:
        make_quality(run, name, params.seeds, sets, 0.5)
        make_efficiency(run, name, 3.5, 4.0)
    reporting.build(params.model_copy(update={"also": list(windows), "variants": params.variants | windows}))
    assert "Fact recall by the width of the window, with 95 % intervals" in report()
    shown = words((run / "plots/window_width.svg").read_text(encoding="utf-8"))
    assert [text for text in shown if text in ("16", "32", "64", "128", "all", "every layer")] == [
        "16", "32", "64", "all", "every layer"]


def test_the_command_that_sweeps_the_window_gives_both_curves(tmp_path):
    text = (ROOT / "docs/attention.md").read_text(encoding="utf-8")
    [command] = [block for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) if "+variants" in block]
    given = [value for option, value in pairwise(shlex.split(command.replace("\\\n", ""))) if option == "-S"]
    shutil.copy(ROOT / "params.yaml", tmp_path)
    apply_overrides(tmp_path / "params.yaml", given)  # as DVC does it
    params = read_params(tmp_path / "params.yaml")
    swept = with_windows(params, {name: params.variants[name] for name in params.compared}, params.chosen.model.layers)
    assert [(curve.label, [width for width, _ in curve.points], curve.full.name) for curve in curves(swept)] == [
        ("every layer", [16, 32, 64, 128], "standard"), ("3 of 4 layers", [16, 32, 64, 128], "standard")]


def test_the_map_of_choices_says_none_where_no_variant_is_known_to_pass(run, params, monkeypatch):
    monkeypatch.setattr(figures.choice, "by_size", lambda *_: dict.fromkeys([(1, 64), (1, 128), (4, 128)]))
    drawn = figures.choices(judge(read_results(params)))
    assert [text.get_text() for axes in drawn.axes for text in axes.texts] == ["none"] * 6
    assert not drawn.legends
