"""The documents: what they name exists, what they tell to type works, what they explain is complete."""

import ast
import re
import shlex
from copy import deepcopy
from itertools import pairwise, product

import pytest
import yaml
from closure import ROOT

from headtohead.params import Params
from headtohead.reporting.study import STUDY

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")),
             *sorted((ROOT / "docs/cluster").glob("*.md"))]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)

# What a command looks like, and the test that runs such a one, or why none does. What `-S` sets is checked here.
COMMANDS = {
    r"make repro": "test_pipeline.py::test_every_file_of_the_contract_is_there",
    r"make test": "it is what runs this",
    r"PIP_EXTRA_INDEX_URL=\S+ make setup": "no test installs anything",
    r"make setup && source \.venv/bin/activate": "every test stands on it",
    r"dvc repro( [a-z-]+(@\w+)?)?( --force)?": "test_pipeline.py::test_nothing_changed_re_runs_the_fingerprint_alone",
    r"dvc exp run( -S (\S+|'\+[^']+'))+":
        "test_pipeline.py::test_a_variants_number_re_runs_that_variant_and_changing_it_back_trains_nothing",
    r"dvc exp run --queue( -S \S+)+":
        "test_pipeline.py::test_a_queued_sweep_over_attention_runs_the_report_alone_and_gives_each_its_headline",
    r"dvc (metrics diff|exp show --drop .*|plots show)":
        "test_pipeline.py::test_switching_attention_re_runs_the_report_alone_and_the_diff_shows_it",
    r"git checkout params\.yaml":
        "test_pipeline.py::test_switching_attention_re_runs_the_report_alone_and_the_diff_shows_it",
    r'git commit -m ".+" params\.yaml': "it is git's own",
    r"h2h doctor( --json)?": "test_doctor.py::test_it_reads_well_and_a_file_gets_plain_text",
    r"h2h doctor --measure( --[a-z]+ \w+)*": "test_table.py::test_the_command_measures_shows_and_goes_on",
    r"h2h init \S+( --[a-z-]+ \S+)*": "test_init.py::test_a_file_with_odd_columns_becomes_a_preset_that_runs",
    r"h2h choose .*": "test_choose.py::test_the_documents_show_what_their_commands_print",
    r"(CUDA_VISIBLE_DEVICES=\S+ )?h2h run( --[a-z-]+ \S+)*":
        "test_run.py::test_it_ends_as_dvc_repro_does_though_tasks_fail_and_are_killed",
    r"dvc remote add -d storage \S+": "test_run.py::test_two_nodes_share_nothing_but_a_remote",
    r"pip install -e '\.\[cluster\]'": "no test installs anything",
    r"(sbatch|srun) .*": "it needs Slurm; the page says what was tried by hand",
    r"(git clone|podman build|podman push|kubectl apply) .*": "the page says that it was not tried",
    r"h2h show": "test_reporting.py::test_the_comparison_is_printed_quickly",
    r"(cat \S+ \| )?h2h summarize( \S+)*": "test_summarize.py::test_every_table_gives_the_same_rows_in_its_order",
    r"python -m headtohead\.reporting\.patterns \S+":
        "test_reporting.py::test_the_documents_picture_is_what_its_command_draws",
    r'h2h publish \S+ --command ".+" --took ".+"': "test_publish.py::test_the_command_publishes_this_commit",
    r"h2h bench \S+": "test_benchmark.py::test_every_work_runs_on_the_gpu",
    r"h2h bench \S+ --family": "test_benchmark.py::test_every_work_of_the_family_runs_on_the_gpu",
    r"h2h bench \S+ --sizes":
        "test_benchmark.py::test_every_work_of_the_sizes_runs_on_the_gpu_with_xls_heads_and_width",
    r"h2h bench \S+ --render": "test_benchmark.py::test_the_command_renders_without_a_gpu",
    r"make test-gpu": "it needs a GPU, and is what runs the tests of one",
    r"pip install setuptools wheel ninja": "no test installs anything",
    r"pip install --no-build-isolation flash-attn": "it needs CUDA's compiler, and no test installs anything",
    r"python tests/(full_size|simulation|soak|soak_run|thousand)\.py.*":
        "it takes too long for a test, and is run by hand",
}


def read(document):
    return document.read_text(encoding="utf-8")


def blocks(document, language):
    return re.findall(rf"^```{language}\n(.*?)^```", read(document), re.MULTILINE | re.DOTALL)


def commands(document):
    """The commands of its console blocks, one a line, without comments."""
    text = "".join(blocks(document, "console")).replace("\\\n", " ")
    lines = [" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in text.splitlines()]
    return [line for line in lines if line]


def names_of_tests(file):
    return {node.name for node in ast.parse(read(ROOT / "tests" / file)).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@documents
def test_every_command_is_one_that_works(document):
    unknown = [line for line in commands(document) if not any(re.fullmatch(known, line) for known in COMMANDS)]
    assert not unknown, "say in COMMANDS which test runs them"


def test_the_tests_that_run_the_commands_exist():
    for file, name in (where.split("::") for where in COMMANDS.values() if "::" in where):
        assert name in names_of_tests(file)


def merged(base, more):
    return {**base, **{key: merged(base.get(key, {}), value) if isinstance(value, dict) else value
                       for key, value in more.items()}}


def changed(params, settings):
    """`params` after some `-S key=value`."""
    params = deepcopy(params)
    for key, value in settings:
        *sections, last = key.removeprefix("+").split(".")
        section = params
        for name in sections:
            section = section[name]
        place = int(last) if isinstance(section, list) else last
        there = range(len(section)) if isinstance(section, list) else section
        assert (place in there) != key.startswith("+"), f"{key} is no key, or one already"
        section[place] = yaml.safe_load(value)
    return params


@documents
def test_every_setting_in_a_command_is_allowed(document):
    params = PARAMS
    for block in blocks(document, "yaml"):
        params = merged(params, yaml.safe_load(block))
    # `h2h init` writes a preset of this name.
    params = params | {"presets": {"mine": PARAMS["presets"]["laptop"]} | params["presets"]}
    Params.model_validate(params)
    for line in commands(document):
        words = shlex.split(line)
        settings = [word.split("=", 1) for option, word in pairwise(words) if option == "-S"]
        keys = [key for key, _ in settings]
        for values in product(*([value] if value[0] in "[{" else value.split(",") for _, value in settings)):
            Params.model_validate(changed(params, zip(keys, values, strict=True)))


def anchors(document):
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", read(document), re.MULTILINE)}


@documents
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)(.*?)\)", read(document)):
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def outputs():
    """What the pipeline writes or git ignores, with VARIANT and SEED for what a matrix goes over."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    entries = [entry for stage in stages for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    written = {re.sub(r"\$\{item\.(\w+)\}", lambda match: match[1].upper(), name) for name in names}
    return written | {line.strip("/") for line in read(ROOT / ".gitignore").splitlines()}


EXAMPLES = {f"{name}.csv" for name in (  # the reader's own
    "articles", "berichte", "train", "validation", "val", "dev", "test")}
PATHLIKE = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|yaml|toml|json|csv|svg|html|lock|cff))`")


@documents
def test_every_file_that_is_named_is_there(document):
    written, on_the_hub = outputs(), {"abisee/cnn_dailymail", "openai-community/gpt2", "openai-community/gpt2-medium"}
    for name in set(PATHLIKE.findall(read(document))) - EXAMPLES - on_the_hub:
        path = re.sub(r"\bS\b", "SEED", re.sub(r"\bV\b", "VARIANT", name)).rstrip("/")
        made = any(out == path or out.startswith(f"{path}/") or path.startswith(f"{out}/") for out in written)
        assert made or (ROOT / path).exists() or (document.parent / path).exists(), name


def keys(params, prefix=""):
    for key, value in params.items():
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_every_key_of_the_parameters_is_explained_and_no_other():
    general = set(keys({key: value for key, value in PARAMS.items() if key not in ("presets", "variants")}))
    variants = {f"variants.NAME.{key}" for variant in PARAMS["variants"].values() for key in variant}
    presets = {key for preset in PARAMS["presets"].values() for key in keys(preset)}
    explained = set(re.findall(r"^\| `([\w.]+)` \|", read(ROOT / "docs/presets.md"), re.MULTILINE))
    assert explained == general | {"variants"} | variants | presets


def test_every_preset_is_described():
    table = re.search(r"^\| \|(.*)\|$", read(ROOT / "docs/presets.md"), re.MULTILINE)[1]
    assert re.findall(r"`(\w+)`", table) == list(PARAMS["presets"])


def test_every_mistake_of_the_study_has_its_test_and_every_test_its_mistake():
    assert set(re.findall(r"`(test_\w+)`", read(ROOT / "docs/study.md"))) == names_of_tests("test_study.py")


def test_the_studys_numbers_are_those_of_the_report():
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \|(.*)\|$", read(ROOT / "docs/study.md"), re.MULTILINE)
    assert {name: [float(cell) for cell in cells.split("|")] for name, cells in rows} == {
        name: list(values.values()) for name, values in STUDY.items()}


def test_every_section_of_the_report_is_explained():
    template = read(ROOT / "src/headtohead/reporting/report.md.jinja")
    explained = read(ROOT / "docs/report.md").lower()
    for title in re.findall(r"^## (.*)$", template, re.MULTILINE):
        assert title.split(":")[0].lower() in explained, title


def test_continuous_integration_runs_what_a_developer_runs_on_every_python():
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make lint", "make test"]


def test_continuous_integration_runs_once_without_the_lock_file():
    steps = yaml.safe_load(read(ROOT / ".github/workflows/ci.yml"))["jobs"]["newest"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[-1] == "make test"
    assert any("pip install" in command for command in commands)
    assert not any("requirements.lock" in str(step) for step in steps)


def test_hooks_run_the_projects_own_tools():
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in repository["hooks"])


def test_the_version_is_the_same_everywhere():
    version = re.search(r'^version = "(.*)"$', read(ROOT / "pyproject.toml"), re.MULTILINE)[1]
    citation = yaml.safe_load(read(ROOT / "CITATION.cff"))
    assert (citation["version"], citation["license"]) == (version, "Apache-2.0")
    assert re.search(r"^## \[(.*?)\]", read(ROOT / "CHANGELOG.md"), re.MULTILINE)[1] == version
