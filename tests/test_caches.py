"""Caches lie in the repository; what the user has set otherwise stays."""

import os
from pathlib import Path

import pytest

from headtohead import cli
from headtohead.caches import FOLDERS, keep_in


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """One that says nothing of caches, and is as before afterwards."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for variable in [*FOLDERS, "XDG_CACHE_HOME"]:
        os.environ.pop(variable, None)
    return os.environ


def test_what_is_set_stays(environment, tmp_path):
    environment |= {"TRITON_CACHE_DIR": "/mine", "XDG_CACHE_HOME": "/shared", "HOME": "/proc/sys/home"}
    keep_in(tmp_path)
    assert (environment["TRITON_CACHE_DIR"], environment["XDG_CACHE_HOME"]) == ("/mine", "/shared")
    assert environment["MPLCONFIGDIR"] == str(tmp_path / ".cache/matplotlib")


@pytest.mark.parametrize(("home", "kept"), [
    (".", True), ("to-be-made", True), ("a-file", False), ("/proc/sys/home", False), (None, False)])
def test_downloads_go_to_the_home_folder_if_one_can_write_there(environment, tmp_path, monkeypatch, home, kept):
    (tmp_path / "a-file").touch()
    if home:
        environment["HOME"] = str(tmp_path / home)
    else:  # a user whom the system does not know
        environment.pop("HOME", None)
        monkeypatch.setattr("os.getuid", lambda: 2**31 - 2)
    keep_in(tmp_path)
    assert environment.get("XDG_CACHE_HOME") == (None if kept else str(tmp_path / ".cache"))
    assert [file.name for file in tmp_path.iterdir()] == ["a-file"]


def test_a_queued_copy_shares_the_workspaces(environment, tmp_path):
    keep_in(tmp_path / ".dvc/tmp/exps/copy")
    assert environment["TRITON_CACHE_DIR"] == str(tmp_path / ".cache/triton")


def test_the_command_line_keeps_them_there_too(environment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["h2h", "show"])
    with pytest.raises(SystemExit, match=r"params\.yaml: cannot be read"):
        cli.main()
    assert environment["MPLCONFIGDIR"] == str(Path.cwd() / ".cache/matplotlib")
