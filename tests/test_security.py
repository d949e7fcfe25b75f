"""Nothing that is read can run code: no pickles, no code from the hub, no `eval`; by syntax tree, not by text."""

import ast

import pytest
from closure import ROOT

CODE = sorted(file for folder in ("src", "stages") for file in (ROOT / folder).rglob("*.py"))
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {"torch.load", "torch.hub.load", "os.system", "os.popen", "yaml.load", "yaml.load_all", "yaml.full_load",
         "yaml.unsafe_load"}
METHODS = {"read_pickle", "to_pickle"}
OPTIONS = {"trust_remote_code", "allow_pickle", "weights_only", "shell"}


def unsafe(code: str) -> list[str]:
    """What in a file could run what it reads."""
    nodes = list(ast.walk(ast.parse(code)))
    imports = {name for node in nodes for name in _imported(node)}
    return [ast.unparse(node) for node in nodes if _runs(node, imports)]


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {f"{node.module}.{alias.name}" for alias in node.names} if isinstance(node, ast.ImportFrom) else set()


def _runs(node: ast.AST, imports: set[str]) -> bool:
    if names := _imported(node):
        return bool(MODULES & {name.split(".")[0] for name in names} or CALLS & names)
    if isinstance(node, ast.Attribute):
        whole = ast.unparse(node)
        return node.attr in METHODS or (whole in CALLS and whole.split(".")[0] in imports)
    if isinstance(node, ast.keyword):
        return node.arg in OPTIONS or (node.arg == "typ" and ast.unparse(node.value) != "'safe'")  # ruamel.yaml's
    return isinstance(node, ast.Name) and node.id in BUILTINS


@pytest.mark.parametrize("file", CODE, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_line_can_run_what_it_reads(file):
    assert not unsafe(file.read_text())


@pytest.mark.parametrize("code", [
    "import pickle", "from pickle import loads", "import joblib.numpy_pickle", "eval('1')", "run = exec",
    "__import__('x')", "import torch; torch.load('x')", "from torch import load", "import yaml; yaml.load(text)",
    "from yaml import unsafe_load", "YAML(typ='unsafe')", "np.load('x', allow_pickle=True)", "pd.read_pickle('x')",
    "AutoModel.from_pretrained('x', trust_remote_code=True)", "load_dataset('x', trust_remote_code=value)",
    "subprocess.run('ls', shell=True)", "import os; os.system('ls')",
])
def test_each_way_to_do_so_would_be_found(code):
    assert unsafe(code)


@pytest.mark.parametrize("code", ["model.eval()", "import yaml; yaml.safe_load(text)", "json.load(file)",
                                  "re.compile('x')", "yaml = YAML(typ='safe'); yaml.load(text)"])
def test_what_is_harmless_is_left_alone(code):
    assert not unsafe(code)
