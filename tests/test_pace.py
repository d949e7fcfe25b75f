"""How far a run is, and how long the rest takes."""

import json

import pytest
from closure import ROOT
from dvc.repo import Repo
from dvc.repo.reproduce import plan_repro

from headtohead import pace
from headtohead.params import read_params


@pytest.fixture
def params(tmp_path, monkeypatch):
    found = read_params(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return found


def run(monkeypatch, stage, seconds=0.0):
    now = iter((100.0, 100.0 + seconds))
    monkeypatch.setattr(pace.time, "monotonic", lambda: next(now))
    monkeypatch.setenv("DVC_STAGE", stage)
    with pace.paced():
        pass


def test_the_stages_are_those_that_dvc_runs_in_its_order():
    repo = Repo(str(ROOT))
    planned = [stage.addressing for stage in plan_repro(repo.index.graph, list(repo.index.stages))]
    assert pace.stages_of(read_params(ROOT / "params.yaml")) == planned


def test_a_stage_says_which_it_is_and_how_long_the_rest_takes_once_that_is_known(params, monkeypatch, capsys):
    pace.begin(params)
    assert capsys.readouterr().err == "31 stages; time on this machine: not known yet with these settings\n"
    for stage in pace.stages_of(params):
        run(monkeypatch, stage, seconds=100.0 if stage.startswith("train") else 1.0)
    told = capsys.readouterr().err.splitlines()
    assert (told[0], told[3], told[-1]) == ("stage 2 of 31", "stage 5 of 31", "stage 31 of 31")
    assert len(told) == 30  # `begin` speaks for the first one
    pace.begin(params)
    assert capsys.readouterr().err == "31 stages; time on this machine: 20 min if all have to run\n"
    run(monkeypatch, "train@flash-13")
    run(monkeypatch, "report")
    assert capsys.readouterr().err == ("stage 8 of 31; at most 15 min to the end\n"
                                       "stage 31 of 31; at most 1 s to the end\n")


def test_a_new_stage_is_taken_to_last_as_long_as_others_of_its_kind_and_other_settings_are_not_known(
        params, monkeypatch, capsys):
    pace.begin(params)
    for stage in pace.stages_of(params):
        run(monkeypatch, stage, seconds=10.0)
    pace.begin(params.model_copy(update={"attention": "flash_rope"}))
    assert capsys.readouterr().err.endswith("37 stages; time on this machine: 6 min if all have to run\n")
    pace.begin(params.model_copy(update={"preset": "smoke"}))
    assert capsys.readouterr().err.endswith("not known yet with these settings\n")
    pace.begin(params)
    assert "5 min" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"stages": 1}'])
def test_what_is_kept_may_be_lost(params, monkeypatch, capsys, content):
    pace.FILE.parent.mkdir()
    pace.FILE.write_text(content)
    run(monkeypatch, "report")
    assert not capsys.readouterr().err
    pace.begin(params)
    assert json.loads(pace.FILE.read_text())["stages"][-1] == "report"


def test_a_stage_that_is_run_by_hand_says_nothing(params, monkeypatch, capsys):
    pace.begin(params)
    capsys.readouterr()
    monkeypatch.delenv("DVC_STAGE", raising=False)
    with pace.paced():
        pass
    assert not capsys.readouterr().err
