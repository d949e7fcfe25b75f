"""`h2h choose`: the right answer by the table, nothing beyond what was measured, and a rule that limits only narrow."""

import json
import math
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import made_up
import pytest
import test_reporting
from closure import ROOT
from hypothesis import given
from hypothesis import strategies as st
from made_up import SEEDS, edit, make_quality, make_sets, write

from headtohead import cli
from headtohead.choosing.grid import Grid, NotMeasuredError
from headtohead.choosing.rule import Option, Situation, choose
from headtohead.params import read_params
from headtohead.records import DataError, write_json
from headtohead.reporting import choice
from headtohead.reporting.claims import judge
from headtohead.reporting.outlook import next_step
from headtohead.reporting.publish import record
from headtohead.reporting.results import read_results
from headtohead.summaries import routing

made, params, run = test_reporting.made, test_reporting.params, test_reporting.run  # pytest finds fixtures by name

NEWS, FAMILY = ROOT / "docs/results/h200-news.json", ROOT / "docs/results/h100-news-family.json"
RECORD = json.loads(NEWS.read_text(encoding="utf-8"))


def h2h(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["h2h", "choose", *arguments])
    cli.main()


def answered(monkeypatch, capsys, *arguments):
    h2h(monkeypatch, *arguments, "--json")
    return json.loads(capsys.readouterr().out)


# --- by the table


def measured(work, kind, value, name, batch, length):
    """A number of the published file at one size, or what lies between two on logarithmic axes; None if neither."""
    points = {(row["batch"], row["length"] + row["new_tokens"]): row[value]
              for row in RECORD["sweeps"][name][kind] if row["work"] == work}
    if (batch, length) in points:
        return points[batch, length]
    for axis, at, line in ((1, length, {n: v for (b, n), v in points.items() if b == batch}),
                           (0, batch, {b: v for (b, n), v in points.items() if n == length})):
        below, above = [one for one in line if one < at], [one for one in line if one > at]
        if below and above:
            low, high = max(below), min(above)
            share = math.log(at / low) / math.log(high / low)
            return line[low] ** (1 - share) * line[high] ** share
        assert axis in (0, 1)
    return None


def right(work, batch, length, max_loss, memory=math.inf, latency=math.inf):
    """The variants that pass, by the file's numbers alone, with their time over the others'."""
    passing = {}
    for name, scores in RECORD["variants"].items():
        difference = RECORD["differences"]["rouge1"].get(name)
        ms = measured(work, "timings", "median", name, batch, length)
        mb = scores["peak_memory_mb"]
        if work == "forward":
            mb = measured(work, "memory", "peak_mb", name, batch, length)
        as_good = difference is None or difference["low"] > -max_loss
        if as_good and scores["rouge1"] >= RECORD["lead3"]["rouge1"] and ms and ms <= latency and mb <= memory:
            ratio = RECORD["ratios"][name][work]["value"]
            passing[name] = (ratio if (batch, length) == (1, 520) else ms, mb)
    return passing


SITUATIONS = [  # arguments, the same as numbers, and the answer
    ("", ("generate", 1, 520, 0.01), "flash"),
    ("--work forward --length 2000", ("forward", 1, 2000, 0.01), "flash_alibi"),
    ("--work forward --length 16384 --latency 8ms", ("forward", 1, 16384, 0.01, math.inf, 8), "flash_alibi"),
    ("--work forward --length 16384 --latency 7ms", ("forward", 1, 16384, 0.01, math.inf, 7), None),
    ("--work forward --batch 48", ("forward", 48, 520, 0.01), "flash"),
    ("--work forward --length 515", ("forward", 1, 515, 0.01), "flash"),
    ("--latency 10ms", ("generate", 1, 520, 0.01, math.inf, 10), None),
    ("--memory 124MB", ("generate", 1, 520, 0.01, 124), None),
    ("--memory 0.123GB --max-loss 1", ("generate", 1, 520, 1, 0.123 * 1024), "flash"),
    ("--max-loss 0", ("generate", 1, 520, 0), "flash"),
]


@pytest.mark.parametrize(("arguments", "numbers", "taken"), SITUATIONS, ids=[one[0] for one in SITUATIONS])
def test_each_situation_is_answered_right_by_the_published_table(monkeypatch, capsys, arguments, numbers, taken):
    found = answered(monkeypatch, capsys, "--from", str(NEWS), *arguments.split())
    passing = right(*numbers)
    assert found["take"] == taken
    assert {one["name"] for one in found["variants"] if one["answer"] in ("take", "second", "passes")} == passing.keys()
    if taken:
        fastest = min(time for time, _ in passing.values())
        level = {name: mb for name, (time, mb) in passing.items() if time <= 1.05 * fastest}
        assert level[taken] <= 1.02 * min(level.values())
        [own] = [one for one in found["variants"] if one["name"] == taken]
        assert own["memory_mb"]["value"] == pytest.approx(passing[taken][1])


def test_every_rejection_says_what_failed(monkeypatch, capsys):
    found = answered(monkeypatch, capsys, "--from", str(NEWS), "--work", "forward", "--length", "1500")
    gates = {one["name"]: {objection["gate"] for objection in one["objections"]} for one in found["variants"]}
    assert gates == {"flash_alibi": set(), "standard": {"positions"}, "flash": {"positions"},
                     "flash_sparse": {"quality", "positions"}}
    assert "tokenizer.max_length=1500" in found["commands"][0]


def test_the_answer_in_words(monkeypatch, capsys):
    h2h(monkeypatch, "--from", str(NEWS), "--work", "forward", "--length", "2000")
    said = capsys.readouterr().out
    for part in ("On NVIDIA H200 140 GB, for a forward pass, batch 1, 2,000 tokens: ",
                 ": take flash_alibi, 0.611 ms and 130 MB.", "Second: none", "a description, not a claim",
                 "Interpolated between batch 1 with 1,024 tokens and batch 1 with 2,048 tokens",
                 "Quality was measured with at most 520 tokens", "its positions end at 520 tokens",
                 "below Lead-3; loses more than 0.01", "+0.001 (-0.004 to +0.006)"):
        assert part in said.replace("\u00a0", " "), part


def test_what_was_published_for_choosing_is_what_the_page_shows():
    """Its sweeps were added from the page's tables."""
    page = NEWS.with_suffix(".md").read_text(encoding="utf-8")
    checked = 0
    for name, sweep in RECORD["sweeps"].items():
        for kind, value, title in (("timings", "median", "forward ms"), ("memory", "peak_mb", "peak MB")):
            rows = re.findall(rf"^\| {name} \| {title} \|(.*)\|$", page, re.MULTILINE)
            shown = [float(cell.replace(",", "")) for cell in rows[0].split("|") if cell.strip() != "-"]
            own = [(row["length"], row[value]) for row in sweep[kind] if row["work"] == "forward" and row["batch"] == 1]
            assert [number for _, number in sorted(own)] == pytest.approx(shown, rel=5e-3)
            checked += len(own)
        [row] = re.findall(rf"^\| {name} \| ms a sequence \|(.*)\|$", page, re.MULTILINE)
        shown = [float(cell) for cell in row.split("|")]
        own = [(row["batch"], row["median"] / row["batch"]) for row in sweep["timings"]
               if (row["work"], row["length"]) == ("forward", 520)]
        assert [number for _, number in sorted(own)] == pytest.approx(shown, rel=5e-3)
    assert checked == 2 * (3 * 2 + 7)


@pytest.mark.parametrize(("document", "count"), [("README.md", 1), ("docs/choose.md", 3)])
def test_the_documents_show_what_their_commands_print(monkeypatch, capsys, document, count):
    monkeypatch.chdir(ROOT)
    text = (ROOT / document).read_text(encoding="utf-8")
    shown = re.findall(r"```console\nh2h choose ([^\n]*)\n```\n\n```text\n(.*?)\n```", text, re.DOTALL)
    assert len(shown) == count
    for arguments, output in shown:
        try:
            h2h(monkeypatch, *arguments.split())
            said = capsys.readouterr().out
        except SystemExit as stopped:
            said = stopped.code
        assert "\n".join(map(str.rstrip, said.replace("\u00a0", " ").strip().splitlines())) == output


# --- nothing beyond what was measured


@pytest.mark.parametrize(("arguments", "told"), [
    ("--work forward --length 511", "batch 1 with 512 to 16,384 tokens, batch 2 to 128 with 520 tokens"),
    ("--work forward --length 16385", r"profile\.lengths=\[512,1024,2048,4096,8192,16384,16385\]'$"),
    ("--work forward --batch 129", r"profile\.batch_sizes=\[1,2,4,8,16,32,64,128,129\]'$"),
    ("--work forward --batch 8 --length 2000", r"-S presets\.news\.profile\.grid=true$"),
    ("--batch 8 --length 2000 --memory 4GB --latency 50ms --max-loss 0.01",
     "batch 8 with 2,000 tokens was not measured, and nothing is extrapolated; measured: batch 1 with 520 tokens"),
    ("--length 2000", r"A forward pass was measured there: --work forward\n"),
])
def test_beyond_what_was_measured_it_refuses_names_the_range_and_says_how_to_measure(monkeypatch, arguments, told):
    with pytest.raises(SystemExit, match=told):
        h2h(monkeypatch, "--from", str(NEWS), *arguments.split())


SIZES = list(product([1, 2, 8, 32], [64, 128, 512, 4096]))


def posynomial(batch, length, factors=(0.5, 0.01, 0.002, 1e-6)):
    constant, row, token, pair = factors
    return constant + row * batch + token * batch * length + pair * batch * length**2


factors = st.tuples(*[st.floats(0, 10)] * 3, st.floats(0.01, 1)).map(lambda f: (f[0], f[1], f[2] / 100, f[3] / 1e5))
batches, lengths = st.integers(1, 32), st.integers(64, 4096)


@given(batches, lengths, factors)
def test_between_measured_sizes_the_cost_is_never_below_that_of_a_sum_of_powers(batch, length, parts):
    found = Grid({size: posynomial(*size, parts) for size in SIZES}).at(batch, length)
    assert found.value >= posynomial(batch, length, parts) * (1 - 1e-9)
    corners = [posynomial(*corner, parts) for corner in found.corners]
    assert min(corners) * (1 - 1e-9) <= found.value <= max(corners) * (1 + 1e-9)
    assert ((batch, length) in SIZES) == (len(found.corners) == 1)
    assert all(corner in SIZES for corner in found.corners)


@given(st.floats(-2, 2), st.floats(-2, 2), batches, lengths)
def test_a_power_of_batch_and_length_is_met_exactly(one, other, batch, length):
    found = Grid({(b, n): b**one * n**other for b, n in SIZES}).at(batch, length)
    assert found.value == pytest.approx(batch**one * length**other)


@given(st.integers(1, 200), st.integers(1, 10_000))
def test_outside_of_the_grid_and_between_two_sweeps_nothing_is_known(batch, length):
    grid = Grid(dict.fromkeys(SIZES, 1.0))
    cross = Grid({size: 1.0 for size in SIZES if size[0] == 1 or size[1] == 512})
    for one, inside in ((grid, batch <= 32 and 64 <= length <= 4096),
                        (cross, (batch == 1 and 64 <= length <= 4096) or (batch <= 32 and length == 512))):
        if inside:
            assert one.at(batch, length).value == pytest.approx(1.0)
        else:
            with pytest.raises(NotMeasuredError):
                one.at(batch, length)


def test_what_ran_out_of_memory_has_no_room_and_below_it_nothing_is_known():
    grid = Grid({(1, 64): 1.0, (1, 128): None, (1, 256): None})
    assert grid.at(1, 128) is None
    assert grid.at(1, 200) is None
    with pytest.raises(NotMeasuredError, match="ran out of memory"):
        grid.at(1, 100)


def test_interpolation_comes_close_to_what_was_measured_in_between():
    """Each measured length but the ends, left out and interpolated from its neighbours."""
    off = []
    for kind, value in (("timings", "median"), ("memory", "peak_mb")):
        points = {(1, row["length"]): row[value] for row in RECORD["sweeps"]["flash_alibi"][kind]
                  if row["work"] == "forward" and row["batch"] == 1 and row["length"] != 520}
        for size in sorted(points)[1:-1]:
            rest = Grid({other: points[other] for other in points if other != size})
            off.append(rest.at(*size).value / points[size] - 1)
    assert min(off) > -0.01
    assert max(off) < 0.2  # over four times the length; within two times it is nearer


# --- limits only narrow


def option(name, difference, words, below_lead, limit, ms, mb):
    def grid(scale):
        return Grid({(batch, length): scale * (1 + batch * length / 100) for batch, length in SIZES})

    around = None if difference is None else (difference, difference - 0.01, difference + 0.01)
    return Option(name, around, words, "", below_lead, limit, grid(ms), grid(mb))


options = st.lists(st.builds(
    option, st.text("ab", min_size=1), st.none() | st.floats(-0.1, 0.1), st.floats(0.8, 1.2), st.booleans(),
    st.none() | st.sampled_from([128, 512]), st.floats(0.1, 10), st.floats(1, 100)), min_size=1, max_size=8)
situations = st.tuples(batches, lengths, st.floats(0, 0.1), st.floats(1, 1e5), st.floats(0.1, 1e4))


@given(options, situations, st.tuples(*[st.floats(1, 10)] * 3), st.sampled_from([0.0, 0.05]))
def test_relaxing_a_limit_never_makes_the_choice_slower_than_the_margin(everyone, asked, easier, margin):
    batch, length, loss, memory, latency = asked
    strict = choose(everyone, Situation(batch, length, loss, memory, latency), margin, 0.02).ranked
    relaxed = choose(everyone, Situation(batch, length, min(1.0, loss * easier[0]), memory * easier[1],
                                         latency * easier[2]), margin, 0.02).ranked
    passing = [id(one.option) for one in relaxed]
    assert all(id(one.option) in passing for one in strict)
    if strict:
        assert relaxed[0].time.value <= strict[0].time.value * (1 + margin) * (1 + 1e-9)


@given(options, situations)
def test_what_is_taken_keeps_every_limit_and_the_rest_say_why_not(everyone, asked):
    batch, length, loss, memory, latency = asked
    found = choose(everyone, Situation(batch, length, loss, memory, latency), 0.05, 0.02)
    assert len(found.ranked) + len(found.others) == len(everyone)
    for one in found.ranked:
        assert one.time.value <= latency
        assert one.memory.value <= memory
        assert one.option.difference is None or one.option.difference[1] > -loss
        assert one.option.length_limit is None or length <= one.option.length_limit
        assert one.option.words >= 0.9 or one.option.difference is None
        assert not one.option.below_lead
    assert all(one.objections for one in found.others)


def test_ratios_from_side_by_side_go_before_times_from_different_minutes():
    slow_day = Option("a", None, 1.0, "", False, None, Grid({(1, 8): 9.0}), Grid({(1, 8): 1.0}), {(1, 8): 0.5})
    other = Option("b", None, 1.0, "", False, None, Grid({(1, 8): 6.0}), Grid({(1, 8): 1.0}), {(1, 8): 0.9})
    assert choose([other, slow_day], Situation(1, 8, 0.01), 0.05, 0.02).ranked[0].option is slow_day


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"length": -1}, {"memory": 0}, {"latency": -2}, {"max_loss": 1.1},
                                   {"max_loss": math.nan}])
def test_a_situation_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}: must be"):
        Situation(**{"batch": 1, "length": 8, "max_loss": 0.01} | wrong)


# --- the command


@pytest.mark.parametrize(("arguments", "told"), [
    ("--memory 4", "'4' is not a number above 0 with a unit (MB, MiB, GB, GiB), such as 50MB"),
    ("--memory 4Gb", "'4Gb' is not"), ("--memory -1GB", "expected one argument"), ("--memory 0GB", "'0GB' is not"),
    ("--latency 50", "'50' is not a number above 0 with a unit (ms, s), such as 50ms"), ("--latency 5m", "'5m' is not"),
    ("--length 0", "'0' is not a whole number from 1 to"), ("--batch 2.5", "'2.5' is not"), ("--batch x", "'x' is not"),
    ("--max-loss 2", "'2' is not a number from 0 to 1"), ("--max-loss nan", "'nan' is not"),
    ("--work train", "invalid choice: 'train'"), ("--json=yes", "ignored explicit argument"),
])
def test_a_wrong_argument_is_named_before_anything_is_read(monkeypatch, capsys, arguments, told):
    with pytest.raises(SystemExit) as stopped:
        h2h(monkeypatch, *arguments.split())
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_usage_and_errors_import_nothing_heavy():
    code = ("import sys\nfrom headtohead import cli\nsys.argv = ['h2h', 'choose', *{}]\n"
            "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
            "print(sorted({{'torch', 'scipy', 'matplotlib', 'pandas', 'transformers'}} & sys.modules.keys()))")
    for arguments in (["--help"], ["--latency", "50"]):
        done = subprocess.run([sys.executable, "-c", code.format(arguments)], env={"PYTHONPATH": ":".join(sys.path)},
                              capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"


def test_units_mean_what_they_mean_in_the_report(monkeypatch, capsys):
    for size, time in (("4GB", "1.5s"), ("4GiB", "1500ms"), ("4096MB", "1500.0ms"), ("4096.MiB", "1.50s")):
        found = answered(monkeypatch, capsys, "--from", str(NEWS), "--memory", size, "--latency", time)
        assert (found["memory"], found["latency"]) == (4096, 1500)


@pytest.mark.parametrize(("content", "told"), [
    (None, "cannot be read: No such file"), ("{", "is not JSON"), ("[]", "is no file of `h2h publish`"),
    ('{"variants": {}}', "is no file of `h2h publish`"),
    (FAMILY.read_text(encoding="utf-8"), "lacks the primary measure, .* and time and memory by size")])
def test_a_file_that_does_not_do_is_named_with_what_it_lacks(monkeypatch, tmp_path, content, told):
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit, match=rf"other\.json: {told}"):
        h2h(monkeypatch, "--from", str(path))


@pytest.fixture
def here(run):
    """The made-up run, with params.yaml."""
    write(run / "params.yaml", (ROOT / "params.yaml").read_text(encoding="utf-8"))
    write(run / "metrics/headline.json", {"preset": "laptop", "seeds": len(SEEDS)})
    return run


def test_the_last_run_and_what_is_published_of_it_give_one_answer(here, params, monkeypatch, capsys):
    write_json(Path("mine.json"), record(judge(read_results(params, whole=False)), {"commit": "c0ffee"}))
    for arguments in ("", "--work forward --batch 2", "--work forward --length 100 --max-loss 1"):
        found = answered(monkeypatch, capsys, *arguments.split())
        assert found == answered(monkeypatch, capsys, "--from", "mine.json", *arguments.split())
        assert found["take"] == "flash"
        assert found["measure"] == "fact_recall"


def test_of_one_seed_nothing_is_known_and_the_command_adds_seeds(here, monkeypatch, capsys):
    for name, skill in {"standard": 0.8, "flash": 0.8, "flash_alibi": 0.78, "flash_sparse": 0.4}.items():
        make_quality(here, name, SEEDS[:1], make_sets(here), skill)
    text = (here / "params.yaml").read_text(encoding="utf-8").replace("seeds: [13, 14, 15]", "seeds: [13]")
    write(here / "params.yaml", text)
    write(here / "metrics/headline.json", {"preset": "laptop", "seeds": 1})
    found = answered(monkeypatch, capsys, "--work", "forward")
    assert {one["name"]: one["answer"] for one in found["variants"]} == {
        "flash": "take", "standard": "second", "flash_alibi": "not known", "flash_sparse": "not known"}
    assert found["commands"] == ["dvc exp run -S preset=laptop -S 'seeds=[13,14,15]'"]
    [alibi] = [one for one in found["variants"] if one["name"] == "flash_alibi"]
    assert alibi["difference"]["low"] is None
    assert alibi["objections"] == [{"gate": "quality", "words": "no claim of quality: one seed", "open": True}]


@pytest.mark.parametrize(("luck", "skill", "most"), [(0.1, 0.79, 10), (0.1, 0.78, 1000), (0.02, 0.78, None)])
def test_it_names_as_many_seeds_as_the_report(here, params, monkeypatch, capsys, luck, skill, most):
    """More than anyone would run are only named; and where more seeds do not help, there is no command."""
    monkeypatch.setattr(made_up, "LUCK", luck)
    for name, share in {"standard": 0.8, "flash": 0.8, "flash_alibi": skill}.items():
        make_quality(here, name, SEEDS, make_sets(here), share)
    claims = judge(read_results(params, whole=False))
    needed = claims.seeds_needed["flash_alibi"]
    assert (needed is None) if most is None else len(SEEDS) < needed <= most
    h2h(monkeypatch, "--max-loss", "0.01")
    said = capsys.readouterr().out
    assert f"may lose more than 0.01; {claims.quality['flash_alibi'].doubt} " in said
    assert re.findall(r"'seeds=.*'", said) == re.findall(r"'seeds=.*'", next_step(claims))
    assert ("seeds=" in said) == (most == 10)


def grid_of_generation(run, name, times):
    """Time of generation by length, and as many MB as ms."""
    def add(profile):
        sizes = [{"work": "generate", "batch": 1, "length": length - 40, "new_tokens": 40} for length in times]
        profile["timings"] += [size | {"median": time} for size, time in zip(sizes, times.values(), strict=True)]
        profile["memory"] += [size | {"peak_mb": time} for size, time in zip(sizes, times.values(), strict=True)]

    edit(run / "data/details" / name / "efficiency.json", add)


def test_summarize_sends_each_article_to_what_choose_takes_at_its_length(here, monkeypatch):
    grid_of_generation(here, "standard", {60: 1.0, 120: 30.0})
    grid_of_generation(here, "flash", {60: 2.0, 120: 20.0})
    monkeypatch.setattr(routing, "_free_memory", lambda: 1000.0)
    rule = routing.rule_of_the_last_run()
    chosen = {tokens: str(rule(tokens)) for tokens in (1, 20, 21, 80, 10_000)}
    assert chosen == {1: "models/standard/13", 20: "models/standard/13", 21: "models/standard/13",
                      80: "models/flash/13", 10_000: "models/flash/13"}
    assert routing.rule_of_the_last_run(latency=25.0)(80) == Path("models/flash/13")
    with pytest.raises(DataError, match="no variant is known to pass for 120 tokens; `h2h choose --length 120 "
                                        "--memory 1000MB --latency 10ms` says why; to use one all the same, "
                                        "name it: --model models/flash/13"):
        routing.rule_of_the_last_run(latency=10.0)(80)
    monkeypatch.setattr(routing, "_free_memory", lambda: 1.5)
    assert routing.rule_of_the_last_run()(20) == Path("models/standard/13")
    with pytest.raises(DataError, match="no variant is known to pass"):
        routing.rule_of_the_last_run()(80)


def test_without_a_run_it_says_how_to_make_one(here, monkeypatch):
    (here / "metrics/variants/flash/efficiency.json").unlink()
    with pytest.raises(SystemExit, match=r"flash/efficiency.json is missing; `dvc repro` makes it"):
        h2h(monkeypatch)


def test_no_room_fails_and_summaries_that_are_short_fail(here, monkeypatch, capsys):
    def full(profile):
        for kind, value in (("timings", "median"), ("memory", "peak_mb")):
            for row in profile[kind]:
                if row["work"] == "forward" and row["batch"] == 4:
                    row.pop(value)
                    row["out_of_memory"] = True

    edit(here / "data/details/flash/efficiency.json", full)
    found = answered(monkeypatch, capsys, "--work", "forward", "--batch", "4")
    objections = {one["name"]: [objection["words"] for objection in one["objections"]] for one in found["variants"]}
    assert set(objections["flash"]) == {"runs out of memory"}
    assert found["take"] != "flash"
    short = Option("short", (0.05, 0.04, 0.06), 0.85, "", False, None, Grid({(1, 8): 1.0}), Grid({(1, 8): 1.0}))
    [one] = choose([short], Situation(1, 8, 0.01), 0.05, 0.02).others
    assert [objection.gate for objection in one.objections] == ["summaries"]


def test_the_map_has_the_choice_of_every_measured_size():
    for work in choice.WORKS:
        for (batch, length), name in choice.by_size(RECORD, work).items():
            given = choice.answer(RECORD, choice.Question(work=work, batch=batch, length=length))
            assert [one.option.name for one in given.choice.ranked][:1] == ([name] if name else [])
    assert len(choice.by_size(RECORD, "forward")) == 7 + 7


def test_a_grid_lets_a_record_answer_between_lengths_and_batches():
    """The published file with made-up numbers of a grid for the variant without a limit."""
    found = json.loads(json.dumps(RECORD))
    sweep = found["sweeps"]["flash_alibi"]
    for batch, length in product((1, 8), (1024, 2048)):
        size = {"work": "generate", "batch": batch, "length": length - 100, "new_tokens": 100}
        sweep["timings"].append(size | {"median": length * batch / 100})
        sweep["memory"].append(size | {"peak_mb": length * batch / 10})
    given = choice.answer(found, choice.Question(batch=4, length=1500, latency=100.0))
    assert [one.option.name for one in given.choice.ranked] == ["flash_alibi"]
    assert len(given.choice.ranked[0].time.corners) == 4
    assert given.choice.ranked[0].time.value == pytest.approx(60)


def test_only_the_default_preset_has_a_grid():
    """On a GPU its longest batches take minutes a variant."""
    presets = read_params(ROOT / "params.yaml").presets
    assert [name for name, preset in presets.items() if preset.profile.grid] == ["laptop"]
