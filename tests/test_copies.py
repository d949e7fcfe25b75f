"""Experiments that DVC runs in a copy of the repository find the original's files, wherever the repository lies."""

import shutil

import pytest
from clone import Clone, executed

from headtohead.inputs import resolve


def with_its_own_git(outer):
    """A repository of its own, in a folder of another DVC project."""
    clone = Clone(outer / "repository")
    clone.run("git", "init", "-q", cwd=outer)
    clone.run("dvc", "init", "-q", cwd=outer)
    return clone


def as_a_folder(outer):
    """Its files in a folder of another DVC project, and of its git repository."""
    clone = with_its_own_git(outer)
    shutil.rmtree(clone.path / ".git")
    shutil.rmtree(clone.path / ".dvc")
    clone.run("git", "config", "user.email", "test@example.org", cwd=outer)
    clone.run("git", "config", "user.name", "test", cwd=outer)
    clone.commit()
    return clone


def as_a_project_in_a_folder(outer):
    """A DVC project of its own in a folder of a git repository, which is another project."""
    clone = as_a_folder(outer)
    clone.run("dvc", "init", "-q", "--subdir")
    clone.commit()
    return clone


@pytest.mark.parametrize("lay_out", [with_its_own_git, as_a_folder, as_a_project_in_a_folder])
def test_a_copy_finds_the_articles_that_lie_beside_the_repository(tmp_path, lay_out):
    (tmp_path / "outer/repository").mkdir(parents=True)
    clone = lay_out(tmp_path / "outer")
    (tmp_path / "outer/news.csv").write_text("article,highlights\n")
    changes = ["-S", "presets.smoke.data.source=files", "-S", "presets.smoke.data.path=../news.csv"]
    assert executed(clone.run("dvc", "exp", "run", "--temp", *changes, "fingerprint")) == ["fingerprint"]


@pytest.mark.parametrize(("repositories", "here", "found"), [
    (["a"], "a", "a/x"),
    (["a", "a/.dvc/tmp/exps/tmp1"], "a/.dvc/tmp/exps/tmp1", "a/x"),
    (["a", "a/.dvc/tmp/exps/standalone/tmp1"], "a/.dvc/tmp/exps/standalone/tmp1", "a/x"),
    (["a", "a/.dvc/tmp/exps/tmp1"], "a/.dvc/tmp/exps/tmp1/b", "a/b/x"),  # a folder of another project
    (["a", "a/b/.dvc/tmp/exps/tmp1"], "a/b/.dvc/tmp/exps/tmp1/b", "a/b/x"),  # a project in a folder
    (["a", "a/.dvc/tmp/exps/tmp1", "a/.dvc/tmp/exps/tmp1/b"], "a/.dvc/tmp/exps/tmp1/b", "a/.dvc/tmp/exps/tmp1/b/x"),
])
def test_a_path_starts_at_the_repository_that_was_copied(tmp_path, repositories, here, found):
    for folder in repositories:
        (tmp_path / folder / ".git").mkdir(parents=True)
    assert resolve("x", tmp_path / here) == tmp_path / found
    assert str(resolve("/data/x", tmp_path / here)) == "/data/x"
