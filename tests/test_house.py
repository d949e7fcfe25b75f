"""What holds the repository together: dvc.yaml says what stages import, and imports point one way."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from closure import ROOT, import_closure

from headtohead.params import STUDY
from headtohead.paths import BASELINES

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# They say where imports are found, check parameters, find paths, run work beside other work and show progress: no
# output depends on them.
DECIDE_NOTHING = {ROOT / "stages/__init__.py", *(ROOT / "src/headtohead" / name for name in (
    "__init__.py", "attention/__init__.py", "beside.py", "pace.py", "params.py", "paths.py", "progress.py", "stage.py",
    "warm.py"))}
# What they decide is in data/variants; .dvcignore takes them out of their folder.
IGNORED = {ROOT / line[1:] for line in (ROOT / ".dvcignore").read_text().splitlines() if line.endswith(".py")}


def code_dependencies(stage: dict) -> set[Path]:
    """The Python files that a stage declares; a folder stands for all in it."""
    declared = [ROOT / dep for dep in stage.get("deps", []) if dep.startswith(("src/", "stages/"))]
    return {file for path in declared for file in ([path] if path.suffix else path.rglob("*.py"))}


def decides(file: Path) -> bool:
    body = ast.parse(file.read_text()).body
    return file not in DECIDE_NOTHING | IGNORED and not (len(body) <= 1 and file.name == "__init__.py")


@pytest.mark.parametrize("name", sorted(set(STAGES) - {"fingerprint"}))  # that one always runs
def test_a_stage_depends_on_the_modules_it_imports_and_on_no_folder_of_which_it_imports_none(name):
    script = ROOT / "stages" / f"{name.replace('-', '_')}.py"
    wanted = {file for file in import_closure(script) if decides(file)}
    declared = [ROOT / dep for dep in STAGES[name]["deps"] if dep.startswith(("src/", "stages/"))]
    assert not {str(file) for file in wanted - code_dependencies(STAGES[name])}
    assert not [str(path) for path in declared if not any(file.is_relative_to(path) for file in wanted)]


def test_what_is_left_out_of_dependencies_is_in_the_fingerprint():
    assert {str(file.relative_to(ROOT)) for file in IGNORED} == {
        "src/headtohead/attention/spec.py", "src/headtohead/attention/patterns.py"}
    assert import_closure(ROOT / "stages/fingerprint.py") >= IGNORED


def test_every_stage_has_a_script_and_every_script_a_stage():
    scripts = {file.stem.replace("_", "-") for file in (ROOT / "stages").glob("*.py")} - {"--init--"}
    assert scripts == set(STAGES)
    for name, stage in STAGES.items():
        assert stage["cmd"].startswith(f"python -m stages.{name.replace('-', '_')}")


def test_the_matrix_holds_the_variants_that_the_report_compares():
    matrix = STAGES["train"]["matrix"]["variant"]
    assert matrix == [*STUDY, "${attention}", *(f"${{also[{i}]}}" for i in range(10))]
    assert all(stage["matrix"]["variant"] == matrix for name, stage in STAGES.items()
               if "matrix" in stage and name != "score")
    assert STAGES["score"]["matrix"]["variant"] == [*matrix, *BASELINES]
    assert [name for name, stage in STAGES.items() if "seed" in stage.get("matrix", {})] == ["train"]


def test_the_learning_curves_of_every_variant_are_drawn_together():
    [[(_, drawn)]] = [plot.items() for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]]
    assert list(drawn["y"]) == [f"plots/training/{variant}/${{seeds[0]}}.csv"
                                for variant in STAGES["train"]["matrix"]["variant"]]
    assert {drawn["x"], *drawn["y"].values()} == {"step", "validation_loss"}


ORDER = ["kernels", "attention records", "params paths statistics", "choosing measured", "inputs", "articles tokens",
         "models", "training inference quality profiling", "init reporting summaries", "benchmark cluster doctor",
         "cli"]


def test_imports_point_one_way():
    ranks = {name: rank for rank, names in enumerate(ORDER) for name in names.split()}
    for file in (ROOT / "src/headtohead").rglob("*.py"):
        own = file.relative_to(ROOT / "src/headtohead").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headtohead."):
                used = node.module.split(".")[1]
                if own in ranks and used in ranks:
                    assert ranks[used] <= ranks[own], f"{file} imports headtohead.{used}"
                assert own != "attention" or used in ("attention", "kernels")


def test_fingerprint_imports_nothing_heavy():
    code = ("import sys, stages.fingerprint\n"
            "print([name for name in ('torch', 'transformers', 'pandas', 'datasets') if name in sys.modules])")
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_committed_results_are_those_of_a_test_that_can_tell_variants_apart():
    recall = {variant: json.loads((ROOT / f"metrics/variants/{variant}/quality.json").read_text())["fact_recall"]
              for variant in STUDY}
    assert all(0.7 <= recall[variant] < 0.98 for variant in ("standard", "flash", "flash_alibi"))
    assert recall["flash_sparse"] <= recall["flash"] - 0.2


def test_the_lock_pins_every_version_and_leaves_cuda_to_torch():
    lines = [line.split(" #")[0].strip() for line in (ROOT / "requirements.lock").read_text().splitlines()]
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pinned["torch"] == "2.13.0"
    assert {name for name in pinned if name.startswith(("nvidia", "triton"))} <= {"nvidia-ml-py"}


@pytest.mark.parametrize(("line", "told"), [
    ("import numpy", None),
    ("import dulwich", "DEP003 'dulwich' imported but it is a transitive dependency"),  # DVC's
    ("import hypothesis", "DEP004 'hypothesis' imported but declared as a dev dependency"),
])
def test_lint_refuses_an_import_that_is_not_declared(tmp_path, line, told):
    for name in ("src", "stages", "pyproject.toml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    (tmp_path / "src/headtohead/more.py").write_text(line + "\n")
    done = subprocess.run([sys.executable, "-m", "deptry", "--no-ansi", "src", "stages"], cwd=tmp_path, text=True,
                          capture_output=True)
    assert "deptry src stages" in (ROOT / "Makefile").read_text()
    assert (done.returncode != 0) == (told is not None), done.stderr
    assert told is None or told in done.stderr
