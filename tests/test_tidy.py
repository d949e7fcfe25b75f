"""What other tools meet: the last run as a table, and the schema of params.yaml."""

import json
from pathlib import Path

import pytest
import yaml
from closure import ROOT
from made_up import SEEDS, SPEED, edit, make_run

import headtohead
from headtohead.records import DataError
from headtohead.schema import schema


@pytest.fixture
def table(tmp_path, monkeypatch):
    make_run(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return headtohead.results


def test_the_last_run_is_a_table_with_a_row_for_each_measurement(table):
    details = json.loads(Path("data/details/flash/quality/14.json").read_text())
    edit("data/details/flash/efficiency.json", lambda found: found["pairs"].update(forward=None))
    rows = table()
    assert set(rows.variant) == {*SPEED, "lead3", "untrained"}
    [score] = rows.query("variant == 'flash' and seed == 14 and set == 'test' and measure == 'rouge1'").itertuples()
    assert [score.value, score.low, score.high] == [details[f"rouge1{end}"] for end in ("", "_low", "_high")]
    assert score.unit == "share"
    assert sorted(rows.query("variant == 'flash' and measure == 'loss' and set == 'test'").seed) == list(SEEDS)
    assert set(rows.query("measure == 'fact_recall'")["set"]) == {"test", "test-2x", "test-8x", "test-moved"}
    [forward] = rows.query("variant == 'flash' and measure == 'forward' and batch == 4").itertuples()
    assert (forward.value, forward.length, forward.unit, forward.dtype, forward.backend) == (9.0, 176, "ms", "float32",
                                                                                             "sdpa")
    pairs = rows.query("variant == 'flash_alibi' and measure == 'peak_memory'")
    assert list(pairs.pair) == [1, 2, 3, 4, 5]
    assert ((pairs.value / pairs.standard).mean() - 1) == pytest.approx(0, abs=0.01)
    assert rows.query("variant == 'flash' and measure == 'forward' and pair > 0").empty  # one ran out of memory
    assert not rows.duplicated(["variant", "measure", "seed", "set", "batch", "length", "new_tokens", "pair"]).any()


def test_every_column_is_documented(table):
    rows = table()
    for column in rows.columns:
        assert column in headtohead.results.__doc__
        assert f"`{column}`" in (ROOT / "docs/report.md").read_text()


def test_without_a_run_it_says_what_makes_one(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="missing; `dvc repro` makes it"):
        headtohead.results()


def test_the_schema_is_current_and_named_in_the_file():
    assert json.loads((ROOT / "params.schema.json").read_text()) == schema(), "python -m headtohead.schema writes it"
    assert "\n# yaml-language-server: $schema=params.schema.json\n" in (ROOT / "params.yaml").read_text()


def unknown(value, of, whole, path=""):
    """Keys that a schema does not know."""
    if "$ref" in of:
        of = whole["$defs"][of["$ref"].rsplit("/", 1)[1]]
    for option in of.get("anyOf", []):
        of = option if "$ref" in option and value is not None else of
    if "$ref" in of:
        return unknown(value, of, whole, path)
    if isinstance(value, list):
        return [key for inner in value for key in unknown(inner, of.get("items", {}), whole, path)]
    if not isinstance(value, dict):
        return []
    known = of.get("properties", {})
    rest = next(iter(of.get("patternProperties", {}).values()), None)
    assert rest or of["additionalProperties"] is False, path
    return [key for name, inner in value.items()
            for key in ([f"{path}{name}"] if name not in known and rest is None else
                        unknown(inner, known.get(name, rest), whole, f"{path}{name}."))]


def test_the_schema_knows_every_key_and_no_other():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert unknown(params, schema(), schema()) == []
    params["variants"]["flash_sparse"]["windw"] = params["presets"]["laptop"]["train"]["stepz"] = 1
    assert unknown(params, schema(), schema()) == ["variants.flash_sparse.windw", "presets.laptop.train.stepz"]


def test_the_schema_knows_the_patterns_and_what_each_needs():
    variant = schema()["$defs"]["AttentionSpec"]
    assert variant["properties"]["pattern"]["enum"] == ["full", "window", "strided", "block", "longformer", "bigbird"]
    needs = {rule["if"]["properties"]["pattern"]["const"]: rule["then"]["required"] for rule in variant["allOf"]}
    assert needs["longformer"] == ["window", "globals"]
    assert needs.keys() == {"window", "strided", "block", "longformer", "bigbird"}
    assert {"features", "block", "random_blocks"} <= variant["properties"].keys()


def test_type_checkers_may_read_the_package():
    assert (ROOT / "src/headtohead/py.typed").exists()
    assert '"py.typed"' in (ROOT / "pyproject.toml").read_text()
