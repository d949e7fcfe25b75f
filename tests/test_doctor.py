"""`h2h doctor`: what it says is what this machine does, and a kernel that computes wrong numbers is found."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from closure import ROOT

from headtohead import cli
from headtohead.attention.backends import performer, sdpa
from headtohead.attention.decoding import explain_state
from headtohead.attention.plan import choose
from headtohead.doctor.diagnosis import DECODING, WORKS, Jobs
from headtohead.doctor.facts import shape
from headtohead.params import STUDY, read_params

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="tells of a machine without a GPU")


@pytest.fixture
def doctor(tmp_path, monkeypatch, capsys):
    """Runs the command in a folder with params.yaml, on the smallest preset; gives its exit status and output."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*options, edits=()):
        text = (ROOT / "params.yaml").read_text()
        for old, new in [("preset: laptop", "preset: smoke"), *edits]:
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / "params.yaml").write_text(text)
        monkeypatch.setattr(sys, "argv", ["h2h", "doctor", *options])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code, capsys.readouterr().out

    return run


def test_all_is_well_and_every_choice_is_the_one_that_runs(doctor):
    status, out = doctor("--json")
    assert status == 0
    found = json.loads(out)
    assert found["broken"] == []
    params = read_params(ROOT / "params.yaml").model_copy(update={"preset": "smoke"})
    jobs = Jobs(params, shape(params), torch.device("cpu"))
    assert {(choice["variant"], choice["work"]) for choice in found["choices"]} == {
        (variant, work) for variant in params.variants for work in WORKS}
    for choice in found["choices"]:
        for job in jobs.of(choice["variant"], choice["work"], jobs.length):
            chosen = choose(job) if choice["work"] != DECODING else None
            name, why = (chosen.backend.name, chosen.why) if chosen else explain_state(job)
            assert name in choice["backends"]
            assert why in choice["why"]
    tried = {(check["backend"], check["work"]) for check in found["checks"]}
    assert tried == {(backend, work) for backend in ("eager", "sdpa", "performer")
                     for work in ("forward", "training", "decoding")}
    assert all(check["error"] <= check["allowed"] and not check["wrong"] for check in found["checks"])


def test_it_reads_well_and_a_file_gets_plain_text(doctor):
    status, out = doctor()
    assert status == 0
    assert "\x1b" not in out
    for told in (f"torch       {torch.__version__}, multiplies matrices on cpu", "GB free", "flash_rope *",
                 "GPU         none", "smoke: 2 heads of 16, 264 tokens", "one-query takes no float32 on cpu",
                 "All that `dvc repro` needs works here."):
        assert told in out


def test_a_kernel_of_the_run_that_computes_wrong_numbers_is_found(doctor, monkeypatch):
    right = sdpa.attend
    monkeypatch.setattr(sdpa, "attend", lambda q, k, v, bias, scale: right(q, k, v, bias, scale * 1.01))
    status, out = doctor()
    assert status == 1
    assert "Broken: `dvc repro` needs this" in out
    assert "- forward by sdpa, flash_alibi: wrong results: error " in out
    assert "- training by sdpa, flash: wrong results: error " in out
    assert "by eager" not in out


@pytest.mark.parametrize(("fails", "told"), [
    (RuntimeError("no kernel image is available\nmore"), "RuntimeError: no kernel image is available"),
    (None, "wrong results: error nan, at most"),
])
def test_what_the_run_does_not_need_is_told_and_breaks_nothing(doctor, monkeypatch, fails, told):
    def attend(q, *_):
        if fails:
            raise fails
        return q * float("nan")

    monkeypatch.setattr(performer.favor, "attend", attend)
    status, out = doctor()
    assert status == 0
    assert f"forward by performer, flash_performer: {told}" in out
    status, out = doctor("--json", edits=[("attention: flash ", "attention: flash_performer ")])
    assert status == 1
    assert any(line.startswith("forward by performer, flash_performer") for line in json.loads(out)["broken"])


def test_a_backend_that_is_asked_for_and_missing_is_broken_with_how_to_get_it(doctor):
    status, out = doctor("--json", edits=[("backend: auto", "backend: flash-attn")])
    assert status == 1
    broken = json.loads(out)["broken"]
    assert [line.split(":")[0] for line in broken] == [f"{work} of {', '.join(STUDY[1:])}" for work in WORKS]
    assert all("is not installed: pip install --no-build-isolation flash-attn" in line for line in broken)


@pytest.mark.parametrize(("edits", "told"), [
    ([("path: null", "path: nowhere.csv"), ("source: newswire       #", "source: files #"),
      ("preset: smoke", "preset: laptop")], "articles: "),
    ([("preset: smoke", "preset: paper"),
      ("openai-community/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e", "nowhere")], "model: is not on this machine"),
])
def test_an_input_that_is_missing_is_told(doctor, edits, told):
    status, out = doctor("--json", edits=edits)
    assert status == 1
    assert [line for line in json.loads(out)["broken"] if line.startswith(told)]


def test_a_library_that_is_missing_is_told_without_a_traceback(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so: cannot open shared object file')")
    code = "import sys; sys.argv = ['h2h', 'doctor']; from headtohead.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          env={"PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}"})
    assert done.returncode == 1
    assert done.stderr == ("a library is missing or broken: libtorch_cpu.so: cannot open shared object file; set the "
                           "environment up again: rm -r .venv; make setup\n")
