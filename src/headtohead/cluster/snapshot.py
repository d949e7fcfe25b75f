"""This very state of the repository, as bytes from which a clone is made anywhere."""

import configparser
import io
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo

CONFIG = Path(".dvc/config.local")  # which git ignores: caches, and keys of remotes


@dataclass(frozen=True)
class Storage:
    """Where results are kept.

    Args:
        cache: DVC's cache of this repository.
        remote: the default remote's name and URL, None without any.
    """

    cache: str
    remote: tuple[str, str] | None


def read_storage() -> Storage:
    with Repo() as repo:
        name = repo.config["core"].get("remote")
        return Storage(repo.cache.local_cache_dir, (name, str(repo.config["remote"][name]["url"])) if name else None)


def pack(left_out: Iterable[str | None]) -> bytes:
    """A tar file of all files that git tracks or does not ignore, as they are now, without inputs that lie here."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], check=True,
                            stdout=subprocess.PIPE, text=True).stdout.split("\0")
    inputs = [Path(path) for path in left_out if path]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name in dict.fromkeys(filter(None, listed)):
            if Path(name).is_file() and not any(Path(name).is_relative_to(folder) for folder in inputs):
                tar.add(name)
    return buffer.getvalue()


def config_of_clones(cache: str | None, remote: tuple[str, str] | None) -> str:
    """What DVC's config.local says in a clone: what it says here, with the cache's and the remote's own place.

    Args:
        cache: the cache's folder; None: each node has one of its own.
    """
    config = configparser.ConfigParser(interpolation=None)
    config.read(CONFIG, encoding="utf-8")
    sections = {"cache": {"dir": cache or "../../cache", "type": "hardlink,symlink,copy"}}
    if remote:
        sections[f"'remote \"{remote[0]}\"'"] = {"url": remote[1]}  # here it may be relative
    for section, values in sections.items():
        if not config.has_section(section):
            config.add_section(section)
        for key, value in values.items():
            config.set(section, key, value)
    text = io.StringIO()
    config.write(text)
    return text.getvalue()
