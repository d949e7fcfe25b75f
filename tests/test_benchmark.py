"""The published benchmark: its rows, that it can be cut off, and its page."""

import json
import re
import sys
from dataclasses import replace
from math import exp, log

import pytest
import torch
from conftest import VARIANTS
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.optimizer import register_optimizer_step_pre_hook

from headtohead import cli
from headtohead.attention import attend
from headtohead.attention.masks import visible
from headtohead.benchmark import contestants, page, suite
from headtohead.benchmark.blocks import touched
from headtohead.benchmark.contestants import BenchmarkError
from headtohead.benchmark.curves import crossings, curves
from headtohead.benchmark.plan import (
    FAMILY,
    FAMILY_PLAN,
    HEADLINE,
    OURS,
    REST,
    SIZES_PLAN,
    Architecture,
    Plan,
    Point,
    Task,
    tasks,
)
from headtohead.benchmark.rows import COLUMNS, read_rows, write_about, write_rows
from headtohead.params import STUDY, read_params
from headtohead.profiling import machine
from headtohead.records import DataError
from headtohead.reporting.tables import short

STUDIED = {name: VARIANTS[name] for name in STUDY}
CPU = torch.device("cpu")
SMALL = {"models": (Architecture("gpt2-tiny", 1, 2, 32),), "vocabulary": 64, "positions": 32, "dtype": "float32",
         "min_repeats": 3, "min_seconds": 0.0, "warmup": 1, "slow_repeats": 2}
WIDE = (Architecture("gpt2-wide", 1, 2, 128),)
EAGER, SDPA = "transformers-eager", "transformers-sdpa"
TINY = Plan(STUDIED, headline=(Point("forward", 1, 16), Point("generate", 2, 8, 4),
                               Point("generate", 2, 8, 4, beams=2, no_repeat_ngram=2, rivals=(EAGER,))),
            rest=(Point("attention", 2, 16, rivals=("sdpa",)), Point("attention_backward", 2, 16, rivals=("sdpa",)),
                  Point("train_step", 2, 16, rivals=(EAGER,)), Point("peak_memory", 1, 16)), **SMALL)
SIZES = {"attention": (2, 16, 0), "generate": (2, 8, 4), "decode_step": (1, 8, 4), "cache": (1, 16, 0)}
KIN = Plan({name: FAMILY[name] for name in ("flash", "flash_block", "flash_local_global", "flash_performer")},
           tuple(Point(work, *SIZES.get(work, (2, 16, 0)), rivals=("sdpa",) if work == "attention" else ())
                 for work in dict.fromkeys(point.work for point in FAMILY_PLAN.headline)),
           rest=(Point("forward", 2, 32, rivals=()), Point("decode_step", 1, 24, 4, rivals=())), family=True, **SMALL)
SIZED = replace(SIZES_PLAN, headline=tuple(
    Point(work, *SIZES.get(work, (2, 16, 0)), rivals=())
    for work in dict.fromkeys(point.work for point in SIZES_PLAN.headline)), **SMALL | {
        "models": (Architecture("gpt2-larger", 2, 3, 48), Architecture("gpt2-tiny", 1, 2, 32))})
QUICK = Plan(STUDIED, headline=(Point("attention", 1, 8, rivals=("sdpa",)),), rest=(), **SMALL)


def measure(folder, plan=QUICK, commit="c0ffee"):
    suite.run(folder, plan, CPU, commit=commit, command="h2h bench somewhere")
    return read_rows(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return folder, measure(folder, TINY)


@pytest.fixture(scope="module")
def kin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kin")
    rows = measure(folder, KIN)
    page.render(folder)
    return folder, rows


@pytest.fixture(scope="module")
def sized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sized")
    rows = measure(folder, SIZED)
    page.render(folder)
    return folder, rows


def who(rows, work, beams=1):
    return [(row["implementation"], row["variant"]) for row in rows
            if row["work"] == work and row.get("beams", 1) == beams]


def test_every_contestant_has_its_row(tiny):
    ours = [(OURS, name) for name in STUDY]
    both = [*ours, (EAGER, "standard"), (SDPA, "flash")]
    direct = [*ours, ("sdpa", "flash")]
    assert who(tiny[1], "forward") == who(tiny[1], "generate") == who(tiny[1], "peak_memory") == both
    assert who(tiny[1], "train_step") == who(tiny[1], "generate", beams=2) == both[:-1]
    assert who(tiny[1], "attention") == who(tiny[1], "attention_backward") == direct


def test_a_row_has_its_keys_and_units(tiny):
    for row in tiny[1]:
        assert {"model", *COLUMNS} <= row.keys() <= {"model", *COLUMNS, "backend", "beams", "no_repeat_ngram", "runs"}
        assert row["p10"] <= row["median"] <= row["p90"]
        assert row["dtype"] == "float32"
        assert row["unit"] == ("MB" if row["work"] == "peak_memory" else "ms")
        slow = row["work"] == "generate" and row["implementation"] != OURS
        assert row["repeats"] >= (1 if row["work"] == "peak_memory" else 2 if slow else 3)
        assert row["new_tokens"] == (4 if row["work"] == "generate" else 0)
        if row["implementation"] == OURS:
            backend = "eager" if row["variant"] == "standard" else "sdpa"
            assert row["backend"] == (f"{backend}, then {backend}" if row["work"] == "generate" else backend)
        assert row["median"] > 0 or row["work"] == "attention_backward"  # a difference


def test_the_published_plan_is_what_was_asked_for():
    plan = Plan({name: read_params().variants[name] for name in STUDY})
    assert [(point.work, point.batch, point.length) for point in HEADLINE][:2] == [("forward", 1, 512),
                                                                                   ("generate", 1, 412)]
    assert {point.length for point in (*HEADLINE, *REST) if (point.work, point.batch) == ("forward", 1)} == {
        512 * 2**i for i in range(6)}
    assert max(point.length + point.new_tokens for point in (*HEADLINE, *REST)) <= plan.positions
    direct = {(task.implementation, task.variant) for task in tasks(plan)
              if task.point.work == "attention" and task.implementation != OURS}
    assert direct == {(library, name) for library in ("flash-attn", "flex") for name in STUDY[1:]} | {("sdpa", "flash")}
    assert len(set(tasks(plan))) == len(list(tasks(plan)))


def ready(implementation, variant, point):
    return contestants.ready(Task(point, variant, implementation, *TINY.models), TINY, CPU)


@pytest.mark.parametrize(("implementation", "variant"), [(EAGER, "standard"), (SDPA, "flash")])
@torch.no_grad()
def test_a_rival_computes_the_same_as_the_variant_it_stands_for(implementation, variant, monkeypatch):
    theirs, point = contestants.theirs(implementation, *TINY.models, TINY), Point("forward", 2, 16)
    assert theirs.config._attn_implementation == implementation.removeprefix("transformers-")
    theirs.load_state_dict(contestants.ours(variant, *TINY.models, TINY).state_dict())
    monkeypatch.setattr(contestants, "theirs", lambda *_: theirs)
    logits = ready(implementation, variant, point).run().logits
    torch.testing.assert_close(logits[:, 0], ready(OURS, variant, point).run(), rtol=1e-4, atol=1e-5)
    assert logits.shape == (2, 1, 64)


@pytest.mark.parametrize(("implementation", "prompt"), [(OURS, 0), (EAGER, 8)])
@pytest.mark.parametrize("beams", [1, 2])
def test_exactly_so_many_tokens_are_generated(implementation, prompt, beams):
    work = ready(implementation, "standard", Point("generate", 2, 8, 5, beams=beams))
    assert work.run().shape == (2, prompt + 5)


@pytest.mark.parametrize(("implementation", "variant"), [(OURS, "flash_alibi"), (EAGER, "standard")])
def test_a_training_step_gives_every_weight_a_gradient_and_moves_it(implementation, variant):
    seen = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: seen.extend(
        (weight, weight.clone(), weight.grad.abs().max() > 0) for weight in optimizer.param_groups[0]["params"]))
    ready(implementation, variant, Point("train_step", 2, 16)).run()
    hook.remove()
    assert len(seen) > 10
    assert all(learns and not torch.equal(weight, before) for weight, before, learns in seen)


def same(implementation, variant, plan, device, **tolerance):
    task = Task(Point("attention", 2, 96), variant, implementation, *plan.models)
    layers, _ = contestants.attention(task, plan, device)
    q, k, v = contestants.queries_keys_values(task, plan, device, gradients=False)
    for layer, run in enumerate(layers):
        expected = attend(q, k, v, plan.variants[variant], "reference", layer=layer)
        torch.testing.assert_close(run(q, k, v), expected, **tolerance)
    return len(layers)


@pytest.mark.parametrize(("implementation", "variant"), [*((OURS, name) for name in STUDY), ("sdpa", "flash")])
def test_attention_alone_is_attention(implementation, variant):
    same(implementation, variant, TINY, CPU, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", [name for name in FAMILY if name != "flash_performer"])
def test_attention_alone_is_that_of_every_layer_that_differs(variant):
    layers = same(OURS, variant, replace(KIN, variants=FAMILY), CPU, rtol=1e-4, atol=1e-5)
    assert layers == (4 if "local_global" in variant else 1)


@pytest.mark.gpu
@pytest.mark.parametrize("variant", STUDY[1:])
@pytest.mark.parametrize("implementation", [OURS, "flash-attn", "flex"])
def test_the_libraries_called_directly_compute_the_variant(implementation, variant):
    plan = Plan(STUDIED, **SMALL | {"models": WIDE, "dtype": "bfloat16"})
    same(implementation, variant, plan, torch.device("cuda"), rtol=2e-2, atol=2e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("variant", [task.variant for task in tasks(FAMILY_PLAN)
                                     if (task.point.work, task.implementation) == ("attention", "flex")])
def test_flex_called_directly_computes_the_familys_variant(variant):
    plan = replace(FAMILY_PLAN, **SMALL | {"models": WIDE, "dtype": "bfloat16"})
    same("flex", variant, plan, torch.device("cuda"), rtol=2e-2, atol=2e-2)


@pytest.mark.gpu
def test_every_work_of_the_family_runs_on_the_gpu(tmp_path):
    points = tuple(replace(point, batch=min(point.batch, 2), length=1 << (index % 2 + 8),
                           new_tokens=point.new_tokens // 10) for index, point in enumerate(FAMILY_PLAN.headline))
    plan = replace(FAMILY_PLAN, headline=points, **SMALL | {
        "models": (Architecture("gpt2-deep", 4, 2, 128),), "positions": 1024, "dtype": "bfloat16"})
    suite.run(tmp_path, plan, torch.device("cuda"), commit="c0ffee", command="")
    page.render(tmp_path)
    assert all(row["median"] is not None for row in read_rows(tmp_path))


@pytest.mark.gpu
def test_every_work_of_the_sizes_runs_on_the_gpu_with_xls_heads_and_width(tmp_path):
    points = tuple(replace(point, batch=min(point.batch, 2), new_tokens=point.new_tokens // 10)
                   for point in SIZES_PLAN.headline)
    plan = replace(SIZES_PLAN, headline=points, min_seconds=0.0, min_repeats=3, models=(
        Architecture("gpt2-low", 4, 25, 1600), Architecture("gpt2-small", 4, 12, 768)))
    suite.run(tmp_path, plan, torch.device("cuda"), commit="c0ffee", command="")
    page.render(tmp_path)
    assert all(row["median"] is not None for row in read_rows(tmp_path))


@pytest.mark.gpu
def test_every_work_runs_on_the_gpu(tmp_path):
    points = [replace(point, length=96, batch=2, new_tokens=point.new_tokens // 10) for point in HEADLINE[1:]]
    points.append(Point("attention_backward", 2, 96, rivals=("flash-attn", "flex", "sdpa")))
    two = {name: STUDIED[name] for name in ("standard", "flash")}
    plan = Plan(two, tuple(points), (), **SMALL | {"models": WIDE, "positions": 128, "dtype": "bfloat16"})
    suite.run(tmp_path, plan, torch.device("cuda"), commit="c0ffee", command="")
    page.render(tmp_path)
    assert all(row["median"] is not None for row in read_rows(tmp_path))


def test_backward_is_forward_and_backward_less_forward(monkeypatch):
    taken = iter([[1.0, 2.0, 4.0], [10.0, 12.0, 20.0]])
    monkeypatch.setattr(suite, "measure", lambda *_, **__: next(taken))
    row = suite.measured(Task(Point("attention_backward", 1, 8), "flash", OURS, *QUICK.models), QUICK, CPU)
    assert row["median"] == 10.0
    assert (row["p10"], row["p90"]) == (pytest.approx(8.4), pytest.approx(16.4))  # of 8, 10, 18


def test_a_decode_step_is_all_tokens_less_the_first_by_their_number(monkeypatch):
    taken = iter([[1.0, 2.0, 4.0], [8.0, 11.0, 17.0]])
    monkeypatch.setattr(suite, "measure", lambda *_, **__: next(taken))
    row = suite.measured(Task(Point("decode_step", 1, 8, 4), "flash", OURS, *KIN.models), KIN, CPU)
    assert (row["median"], row["new_tokens"]) == (3.0, 4)


def test_attention_of_several_layers_is_their_mean(monkeypatch):
    monkeypatch.setattr(suite, "measure", lambda *_, **__: [8.0])
    row = suite.measured(Task(Point("attention", 1, 8), "flash_local_global", OURS, *KIN.models), KIN, CPU)
    assert row["median"] == 2.0


def test_what_is_measured_is_kept_and_the_rest_measured(tmp_path):
    rows = measure(tmp_path)
    marked = [{**rows[0], "median": 123.0}, rows[2]]
    write_rows(tmp_path, marked)
    again = measure(tmp_path)
    assert [again[0], again[2]] == marked
    assert [{key: row[key] for key in COLUMNS[:7]} for row in again] == [
        {key: row[key] for key in COLUMNS[:7]} for row in rows]
    assert measure(tmp_path) == again


@pytest.mark.parametrize("other", [{"commit": "another"}, {"plan": Plan(STUDIED, **SMALL | {"seed": 14},
                                                                       headline=QUICK.headline, rest=())},
                                   {"plan": replace(QUICK, models=WIDE)}])
def test_rows_of_another_commit_or_plan_are_measured_anew(tmp_path, other):
    rows = measure(tmp_path)
    write_rows(tmp_path, [{**row, "median": 1e9} for row in rows])
    assert max(row["median"] for row in measure(tmp_path, **other)) < 1e9


def test_rows_of_another_version_are_measured_anew(tmp_path, monkeypatch):
    write_rows(tmp_path, [{**row, "median": 1e9} for row in measure(tmp_path)])
    monkeypatch.setattr(machine, "version", lambda package: "99")
    assert max(row["median"] for row in measure(tmp_path)) < 1e9


def test_a_run_that_is_cut_off_goes_on(tmp_path, monkeypatch):
    done, real = [], suite.measured

    def cut_off(task, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task)
        return real(task, *rest)

    monkeypatch.setattr(suite, "measured", cut_off)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path)
    assert len(read_rows(tmp_path)) == 2
    monkeypatch.setattr(suite, "measured", lambda task, *rest: done.append(task) or real(task, *rest))
    assert len(measure(tmp_path)) == len(done) == len(set(done)) == 5


def test_out_of_memory_is_a_row_and_the_rest_goes_on(tmp_path, monkeypatch):
    real = contestants.attention

    def crowded(task, *rest):
        if task.variant == "standard":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if task.variant == "flash_alibi":  # as the end of a graph's capture does
            try:
                raise torch.OutOfMemoryError("CUDA out of memory")
            finally:
                raise RuntimeError("operation failed due to a previous error during capture")
        return real(task, *rest)

    monkeypatch.setattr(contestants, "attention", crowded)
    lost = [row for row in measure(tmp_path) if row.get("out_of_memory")]
    assert [row["variant"] for row in lost] == ["standard", "flash_alibi"]
    assert all((row["median"], row["p10"], row["p90"], row["unit"]) == (None, None, None, "ms") for row in lost)
    page.render(tmp_path)
    assert (tmp_path / "README.md").read_text().count("out of memory") >= 4


def test_another_error_is_no_row(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("illegal memory access")

    monkeypatch.setattr(contestants, "attention", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        measure(tmp_path)
    assert read_rows(tmp_path) == []


@pytest.mark.parametrize("name", ["bench.json", "about.json"])
@pytest.mark.parametrize("damage", [lambda text: text[:len(text) // 2], lambda text: "7\n", lambda text: ""])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, name, damage):
    measure(tmp_path)
    (tmp_path / name).write_text(damage((tmp_path / name).read_text()))
    for use in (measure, page.render):
        with pytest.raises(DataError, match=f"{name} is no .*remove it to measure everything again"):
            use(tmp_path)


def test_a_row_without_a_column_is_an_error_that_names_it(tmp_path):
    rows = measure(tmp_path)
    del rows[2]["unit"]
    write_rows(tmp_path, rows)
    with pytest.raises(DataError, match=r"bench.json row 3 has no unit"):
        page.render(tmp_path)


def test_without_flash_attn_it_says_how_to_get_it_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(contestants, "find_spec", lambda name: None)
    with pytest.raises(BenchmarkError, match="pip install --no-build-isolation flash-attn"):
        measure(tmp_path, Plan(STUDIED))
    assert not list(tmp_path.iterdir())


def row(work, implementation, variant, length, value, *, batch=1, spread=0.0, **more):
    numbers = {"median": value, "p10": value - spread, "p90": value + spread} if value is not None else {
        "median": None, "p10": None, "p90": None, "out_of_memory": True}
    return {"work": work, "variant": variant, "implementation": implementation, "batch": batch, "length": length,
            "new_tokens": 0, "dtype": "bfloat16", **numbers, "unit": "MB" if work == "peak_memory" else "ms",
            "repeats": 30} | more


MADE = [row("forward", OURS, "standard", 512, 2.0, backend="eager"), row("forward", OURS, "flash", 512, 2.5),
        row("forward", OURS, "flash_alibi", 512, 3.0), row("forward", EAGER, "standard", 512, 10.0),
        row("forward", OURS, "standard", 2048, 8.0), row("forward", OURS, "flash", 2048, 2.5),
        row("forward", OURS, "flash_alibi", 2048, 3.5), row("forward", EAGER, "standard", 2048, None),
        row("generate", OURS, "flash", 412, 500.0, batch=64, new_tokens=100, beams=1, no_repeat_ngram=0),
        row("attention", OURS, "flash", 8192, 0.66, batch=2, backend="flex"),
        row("attention", "flash-attn", "flash", 8192, 0.75, batch=2),
        row("attention", "flex", "flash", 8192, 0.6, batch=2),
        row("attention", "sdpa", "flash", 8192, 0.5, batch=2)]


@pytest.fixture
def made(tmp_path):
    write_rows(tmp_path, MADE)
    about = suite.describe(Plan(STUDIED), "c0ffee", "h2h bench docs/results/h200")
    write_about(tmp_path, about | {"device": about["device"] | {"gpu": "NVIDIA H200 140 GB", "driver": "580.1"}})
    page.render(tmp_path)
    return tmp_path


def table(folder, first):
    """The cells of the row whose first cell is `first`, by column, from the first table that has it."""
    lines = (folder / "README.md").read_text().split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    header = next(lines[i - 1] for i in range(at, 0, -1) if lines[i].startswith("| :---"))
    return dict(zip(*([cell.strip() for cell in line.split("|")[1:-1]] for line in (header, lines[at])), strict=True))


def test_the_table_has_medians_and_ratios(made):
    headline = table(made, "forward, 1 x 512, ms")
    assert headline == {"": "forward, 1 x 512, ms", "transformers eager": "10.0", "transformers sdpa": "-",
                        "standard": "2.00", "flash": "2.50", "flash_alibi": "3.00", "eager / flash": "4.00",
                        "flash_alibi / flash": "1.20"}
    further = table(made, "forward, 1 x 2,048, ms")
    assert (further["transformers eager"], further["eager / flash"]) == ("out of memory", "-")
    assert further["flash_alibi / flash"] == "1.40"


def test_attention_is_compared_with_the_faster_of_flash_attn_and_flex(made):
    found = table(made, "attention, 2 x 8,192")
    assert (found["ours runs"], found["ours"], found["flash-attn"]) == ("flex", "0.660", "0.750")
    assert found["ours / faster of flash-attn, flex"] == "1.10"


def test_the_page_says_where_lines_cross(made):
    """standard is 2 and 8, flash 2.5 throughout: on log-log axes standard gets there at 512 * 1.25."""
    text = (made / "README.md").read_text()
    assert "| forward, batch 1 | standard | flash | 640 |" in text
    assert text.count("| forward, batch 1 |") == 2  # and flash_alibi


def test_the_page_says_what_it_comes_from(made):
    text = (made / "README.md").read_text()
    for part in ("on NVIDIA H200 140 GB", "driver 580.1", "commit c0ffee", "`h2h bench docs/results/h200`",
                 "vocabulary 50,257", "at least 30 repeats and 1.0 s", torch.__version__.split("+")[0]):
        assert part in text
    links = re.findall(r"\]\((.*?)\)", text)
    assert {"bench.json", "about.json", "forward.svg", "generation.svg", "attention.svg"} == set(links)
    assert all((made / link).exists() for link in links)
    assert "12,800" in (made / "generation.svg").read_text()  # 64 * 100 tokens in half a second


def test_the_page_is_the_same_for_the_same_rows(made):
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    page.render(made)
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before


@pytest.mark.parametrize("variant", [name for name in FAMILY if name != "flash_performer"])
def test_the_share_of_blocks_is_that_of_what_is_seen(variant):
    spec, length, block = FAMILY[variant], 700, 64
    blocks = -(-length // block)
    shares = []
    for layer in range(len(spec.layers) or 1):
        seen = torch.zeros(blocks * block, blocks * block)
        seen[:length, :length] = visible(spec, length, layer)
        shares.append(float(torch.nn.functional.max_pool2d(seen[None], block).sum() * 2 / (blocks * (blocks + 1))))
    assert touched(spec, length, block) == pytest.approx(sum(shares) / len(shares), abs=1e-5)


def test_full_attention_touches_all_blocks_and_a_performer_has_none():
    assert touched(FAMILY["flash"], 700) == 1
    assert touched(FAMILY["flash_performer"], 700) is None
    assert touched(FAMILY["flash_block"], 8192) == pytest.approx(64 / (64 * 65 / 2), abs=1e-5)


def test_the_familys_plan_fits_the_model_and_asks_flex_for_what_it_can_do():
    points = FAMILY_PLAN.headline
    assert max(point.length + point.new_tokens for point in points) <= FAMILY_PLAN.positions
    assert len(set(tasks(FAMILY_PLAN))) == len(list(tasks(FAMILY_PLAN)))
    rivals = {(task.point.work, task.implementation, task.variant) for task in tasks(FAMILY_PLAN)
              if task.implementation != OURS}
    alone = {"flash_rope", "flash_local_global", "flash_alibi_local_global", "flash_performer"}
    assert rivals == {(work, "flex", name) for work in ("attention", "attention_backward") for name in
                      FAMILY.keys() - alone}


def test_the_familys_rows_have_their_shares_and_units(kin):
    assert len(kin[1]) == len(list(tasks(KIN)))
    for row in kin[1]:
        assert ("share" in row) == (row["work"].startswith("attention") and row["variant"] != "flash_performer")
        assert row["unit"] == ("MB" if row["work"] == "cache" else "ms")
        assert row["repeats"] >= (1 if row["work"] == "cache" else 3)
        assert row.get("backend") or row["implementation"] != OURS
    cache = {row["variant"]: row["median"] for row in kin[1] if row["work"] == "cache"}
    assert cache["flash"] == pytest.approx(2 * 16 * 32 * 4 / 2**20, abs=1e-5)  # keys and values, tokens, width, bytes


def test_the_familys_page_has_a_table_for_each_work_with_a_row_for_each_variant(kin):
    text = (kin[0] / "README.md").read_text()
    for work in dict.fromkeys(row["work"] for row in kin[1]):
        section = text.split(f"## {work.replace('_', ' ').capitalize()}\n")[1].split("\n## ")[0]
        lines = [line for line in section.splitlines() if line.startswith("| ")]
        assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == list(KIN.variants)
        assert all(short(row["median"]) in section for row in kin[1] if row["work"] == work)
        assert ", float32, " in section
    assert "| variant | 1 x 8 + 4, ms | / flash | 1 x 24 + 4, ms | / flash | 24 / 8 |" in text
    assert "transformers'" not in text
    assert "](shares.svg)" in text
    assert {path.name for path in kin[0].glob("*.svg")} == {"shares.svg"}


def test_the_familys_ratios_are_to_flash_and_to_its_share(tmp_path):
    made = [row("attention", OURS, "flash", 8192, 0.5, batch=2, backend="cudnn", share=1.0),
            row("attention", OURS, "flash_block", 8192, 0.04, batch=2, backend="flash-attn", share=0.03),
            row("attention", "flex", "flash_block", 8192, 0.05, batch=2, share=0.03),
            row("attention", OURS, "flash_performer", 8192, None, batch=2),
            row("decode_step", OURS, "flash", 512, 0.3), row("decode_step", OURS, "flash_block", 512, 0.3),
            row("decode_step", OURS, "flash", 16_284, 0.6), row("decode_step", OURS, "flash_block", 16_284, 0.3)]
    write_rows(tmp_path, made)
    write_about(tmp_path, suite.describe(FAMILY_PLAN, "c0ffee", "h2h bench somewhere --family"))
    page.render(tmp_path)
    lines = (tmp_path / "README.md").read_text().splitlines()
    for line in ("| flash | cudnn | 0.500 | 1.000 | 1.000 | 0.500 | - | - |",
                 "| flash_block | flash-attn | 0.0400 | 0.080 | 0.030 | 0.0150 | 0.0500 | 0.80 |",
                 "| flash_performer | - | out of memory | - | - | - | - | - |",
                 "| flash | 0.300 | 1.000 | 0.600 | 1.000 | 2.00 |",
                 "| flash_block | 0.300 | 1.000 | 0.300 | 0.500 | 1.00 |"):
        assert line in lines


def test_the_family_goes_on_where_it_was_cut_off_and_where_memory_does_not_suffice(tmp_path, monkeypatch, kin):
    rows = kin[1][:-2]
    write_rows(tmp_path, rows)
    write_about(tmp_path, json.loads((kin[0] / "about.json").read_text()))

    def crowded(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(contestants, "ours", crowded)
    again = measure(tmp_path, KIN)
    assert again[:-2] == rows
    assert [row["out_of_memory"] for row in again[-2:]] == [True, True]
    page.render(tmp_path)
    assert (tmp_path / "README.md").read_text().count("| out of memory | - |") == 2


def test_the_sizes_are_gpt2s_and_the_largest_is_measured_first():
    by_task = list(tasks(SIZES_PLAN))
    assert list(dict.fromkeys(task.model.name for task in by_task)) == ["gpt2-xl", "gpt2-large", "gpt2-medium", "gpt2"]
    assert len(set(by_task)) == len(by_task) == 4 * 4 * len(SIZES_PLAN.headline)
    assert {task.implementation for task in by_task} == {OURS}
    assert max(point.length + point.new_tokens for point in SIZES_PLAN.headline) <= SIZES_PLAN.positions
    with torch.device("meta"):
        for model, count in zip(SIZES_PLAN.models, (1_557_611_200, 774_030_080, 354_823_168, 124_439_808), strict=True):
            assert model.parameters(SIZES_PLAN.vocabulary) == count
            plan = replace(SIZES_PLAN, positions=1024)
            assert contestants.ours("flash", model, plan).num_parameters() == count


def test_each_row_is_of_one_model(sized):
    assert [(row["model"], row["work"], row["variant"]) for row in sized[1]] == [
        (model.name, point.work, variant) for model in SIZED.models for point in SIZED.headline
        for variant in SIZED.variants]
    cache = {(row["model"], row["variant"]): row["median"] for row in sized[1] if row["work"] == "cache"}
    assert cache["gpt2-larger", "flash"] / cache["gpt2-tiny", "flash"] == pytest.approx(2 * 48 / 32, rel=1e-2)
    assert measure(sized[0], SIZED) == sized[1]


def test_the_page_by_size_has_a_table_for_each_work_with_a_row_for_each_model(sized):
    text = (sized[0] / "README.md").read_text()
    for work in dict.fromkeys(row["work"] for row in sized[1]):
        section = text.split(f"## {work.replace('_', ' ').capitalize()}\n")[1].split("\n## ")[0]
        lines = [line for line in section.splitlines() if line.startswith("| ")]
        assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == ["gpt2-tiny", "gpt2-larger"]
        assert all(short(row["median"]) in section for row in sized[1] if row["work"] == work)
        assert ", float32, " in section
    assert "transformers'" not in text
    assert {path.name for path in sized[0].glob("*.svg")} == {
        "forward.svg", "generate.svg", "train_step.svg", "peak_memory.svg"}


SIZES_MADE = [row("forward", OURS, variant, length, value, model=model) for model, length, variant, value in (
    ("gpt2-xl", 512, "standard", 12.0), ("gpt2-xl", 512, "flash", 8.0), ("gpt2-xl", 8192, "standard", None),
    ("gpt2-xl", 8192, "flash", 32.0), ("gpt2-xl", 8192, "flash_alibi", 40.0), ("gpt2", 512, "standard", 2.0),
    ("gpt2", 512, "flash", 1.0), ("gpt2", 8192, "standard", 16.0), ("gpt2", 8192, "flash", 4.0))]


def render_sizes(folder, rows):
    write_rows(folder, rows)
    write_about(folder, suite.describe(SIZES_PLAN, "c0ffee", "h2h bench somewhere --sizes"))
    page.render(folder)
    return (folder / "README.md").read_text()


def test_the_page_by_size_holds_every_variant_against_flash(tmp_path):
    text = render_sizes(tmp_path, SIZES_MADE)
    for line in ("| gpt2-large | 36 | 20 | 1,280 | 774 |",
                 "| model | parameters, M | standard, ms | / flash | flash, ms | / flash |",
                 "| gpt2 | 124 | 2.00 | 2.000 | 1.00 | 1.000 |",
                 "| gpt2-xl | 1,558 | 12.0 | 1.500 | 8.00 | 1.000 |",
                 "| gpt2 | 124 | 16.0 | 4.000 | 4.00 | 1.000 | - | - |",
                 "| gpt2-xl | 1,558 | out of memory | - | 32.0 | 1.000 | 40.0 | 1.250 |",
                 "gpt2-xl has 12.5 times the parameters of gpt2. With flash it takes 8.00 ms for forward, 1 x 512 (8.0 "
                 "times as long) and 32.0 ms for forward, 1 x 8,192 (8.0 times as long).",
                 "Time over that of flash, forward, 1 x 8,192: in gpt2-xl flash_alibi 1.25; in gpt2 standard 4.00."):
        assert line in text.splitlines()
    assert "| forward, 1 x 8,192 | gpt2-xl | standard | headtohead | - | out of memory | ms | 30 |" in text
    figure = (tmp_path / "forward.svg").read_text()
    assert all(f">{label}<" in re.sub(r"<!-- (.*?) -->", r">\1<", figure) for label in ("124", "1,558", "1 x 8,192"))


@pytest.mark.parametrize("kept", [0, 2, 3])
def test_a_run_by_size_that_is_cut_off_has_a_page(tmp_path, kept):
    text = render_sizes(tmp_path, SIZES_MADE[:kept])
    assert "times the parameters" not in text
    assert ("| gpt2-xl | 1,558 | 12.0 | 1.500 | 8.00 | 1.000 |" in text) == (kept > 1)


slopes = st.floats(0.2, 3.0)


@given(slopes, slopes, st.floats(520.0, 15_000.0))
def test_power_laws_cross_where_they_do(one, other, at):
    """a x^p and b x^q are straight on log-log axes, so the crossing is exact whatever the lengths."""
    lengths = [512, 1024, 3000, 16_384]
    made = [row("forward", OURS, name, length, exp(slope * log(length / at)))
            for name, slope in (("one", one), ("other", other)) for length in lengths]
    found = list(crossings(curves(made)))
    if abs(one - other) < 1e-3:
        return
    steeper, flatter = ("one", "other") if one > other else ("other", "one")
    assert [(before, after) for before, after, _ in found] == [(steeper, flatter)]
    assert found[0][2] == pytest.approx(at, rel=1e-6)


def test_a_crossing_within_the_spread_is_none():
    values = {"standard": (1.0, 2.0, 4.0), "flash": (2.0, 2.1, 3.5)}
    made = [row("forward", OURS, name, length, value, spread=spread) for name, own in values.items()
            for length, value, spread in zip((512, 1024, 2048), own, (0.1, 0.1, 0.4), strict=True)]
    assert not list(crossings(curves(made)))


def test_the_tiny_run_has_a_page(tiny):
    folder, rows = tiny
    page.render(folder)
    text = (folder / "README.md").read_text()
    assert all(short(found["median"]) in text for found in rows)
    assert json.loads((folder / "about.json").read_text())["models"] == [
        {"name": "gpt2-tiny", "layers": 1, "heads": 2, "width": 32, "parameters": 47_584}]


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["h2h", "bench", *map(str, arguments)])
    cli.main()


def test_without_a_gpu_the_command_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"measures a CUDA GPU, and there is none here; .*--render"):
        call(monkeypatch, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flag", "plan"), [("--family", FAMILY_PLAN), ("--sizes", SIZES_PLAN)])
def test_the_command_measures_the_family_or_the_sizes(monkeypatch, tmp_path, flag, plan):
    asked = []
    monkeypatch.setattr(suite, "gpu", lambda: CPU)
    monkeypatch.setattr(suite, "run", lambda folder, plan, device, *, commit, command: asked.append((plan, command)))
    monkeypatch.setattr(page, "render", lambda folder: None)
    call(monkeypatch, tmp_path, flag, "--commit", "c0ffee")
    assert asked == [(plan, f"h2h bench {tmp_path} {flag}")]


def test_the_command_renders_without_a_gpu(monkeypatch, made, capsys):
    before = (made / "README.md").read_bytes()
    (made / "README.md").unlink()
    call(monkeypatch, made, "--render")
    assert (made / "README.md").read_bytes() == before
    assert "README.md" in capsys.readouterr().out


def test_without_rows_the_command_says_how_to_make_them(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match=r"bench.json is missing; `h2h bench .*` makes it on a machine with a GPU"):
        call(monkeypatch, tmp_path, "--render")
