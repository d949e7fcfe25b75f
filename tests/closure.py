"""Which of our files a stage runs: the import closure of its script."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


def import_closure(script: Path) -> set[Path]:
    """`script` and all files of ours that it imports, at the top, within functions, or through others."""
    seen, waiting = set(), {script}
    while waiting:
        file = waiting.pop()
        seen.add(file)
        waiting |= _imported(file) - seen
    return seen


@cache
def _imported(file: Path) -> frozenset[Path]:
    names = set(_names(ast.parse(file.read_text(encoding="utf-8"))))
    return frozenset(found for name in names for found in _files(name))


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            continue  # a package's public names for users; our own code imports the modules themselves
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from _names(node)


def _files(name: str) -> Iterator[Path]:
    """The files that importing a dotted name runs: each package on the way, and the module."""
    parts = name.split(".")
    base = {"headtohead": ROOT / "src", "stages": ROOT}.get(parts[0])
    if base is None:
        return
    for depth in range(1, len(parts) + 1):
        path = base.joinpath(*parts[:depth])
        if (path / "__init__.py").exists():
            yield path / "__init__.py"
        elif path.with_suffix(".py").exists():
            yield path.with_suffix(".py")
