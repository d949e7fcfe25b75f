"""`h2h run` on a pipeline of shell commands: what ends, fails, is killed or stopped; one machine and two Ray nodes.

`tests/soak_run.py` does the same with the real pipeline.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import yaml
from clone import ENVIRONMENT, executed
from closure import ROOT

from headtohead import cli
from headtohead.cluster import pipeline, task
from headtohead.profiling.machine import cores
from headtohead.progress import PROGRESS

needs_ray = pytest.mark.skipif(not cli.find_spec("ray"), reason="needs Ray: pip install -e '.[cluster]'")

PIPELINE = """
stages:
  fingerprint:
    cmd: mkdir -p data metrics && echo machine > metrics/machine.json && echo source > data/source.json
    always_changed: true
    outs: [data/source.json, metrics/machine.json: {cache: false}]
  fetch-subset: {cmd: cp articles.txt data/subset, deps: [articles.txt, data/source.json], outs: [data/subset]}
  train:
    matrix: {variant: [a, b], seed: [1, 2]}
    cmd: sh train.sh ${item.variant} ${item.seed}
    params: [preset]
    deps: [data/subset, train.sh]
    outs: ["models/${item.variant}/${item.seed}"]
    metrics: ["metrics/${item.variant}-${item.seed}.json": {cache: false}]
  generate:
    matrix: {variant: [a, b]}
    cmd: mkdir -p data && cat models/${item.variant}/* > data/${item.variant}
    deps: ["models/${item.variant}"]
    outs: ["data/${item.variant}"]
  profile:
    cmd: sh profile.sh
    deps: [metrics/machine.json, data/subset, profile.sh]
    outs: [data/efficiency]
  report: {cmd: cat data/a data/b data/efficiency > report, deps: [data/a, data/b, data/efficiency], outs: [report]}
"""
# Which process dies, and that a second try finds the checkpoint of the first, is told by files in $SCRATCH.
TRAIN = """
echo training $1 $2 by $OMP_NUM_THREADS
touch $SCRATCH/running-$1-$2
[ ! -e .checkpoints/$1-$2 ] || echo resumes
mkdir -p .checkpoints && touch .checkpoints/$1-$2
if mv $SCRATCH/kill-dvc-$1-$2 $SCRATCH/killed 2>/dev/null; then kill -9 $PPID; sleep 60; fi
if mv $SCRATCH/kill-worker-$1-$2 $SCRATCH/killed 2>/dev/null; then
  pid=$$
  while ! grep -q ^ray:: /proc/$pid/cmdline; do pid=$(sed 's/.*) . \\([0-9]*\\) .*/\\1/' /proc/$pid/stat); done
  kill -9 $pid; sleep 60
fi
if [ -e $SCRATCH/wait-$1-$2 ]; then sleep 60; fi
if [ -e $SCRATCH/count ]; then
  for moment in $(seq 300); do [ $(ls $SCRATCH | grep -c running) -ge 2 ] && break; sleep 0.1; done
  echo GPU $CUDA_VISIBLE_DEVICES, $(ls $SCRATCH | grep -c running) running >> $SCRATCH/beside; sleep 1
fi
if [ -e $SCRATCH/fail-$1-$2 ]; then rm $SCRATCH/running-$1-$2; echo "the loss is nan"; exit 1; fi
mkdir -p models/$1 metrics && echo $1 $2 > models/$1/$2 && echo '{"loss": 1}' > metrics/$1-$2.json
rm $SCRATCH/running-$1-$2
"""
PROFILE = """
[ -z "$(ls $SCRATCH | grep running)" ] && echo alone > data/efficiency
"""


class Repository:
    def __init__(self, path):
        self.path, self.scratch = path / "repository", path / "scratch"
        for folder in (self.path, self.scratch):
            folder.mkdir()
        self.environment = ENVIRONMENT | {"SCRATCH": str(self.scratch), "SHELL": "/bin/sh"}
        for name, text in (("dvc.yaml", PIPELINE), ("train.sh", TRAIN), ("profile.sh", PROFILE),
                           ("articles.txt", "x\n"),
                           (".gitignore", ".cache/\n.checkpoints/\n/models/\n/data/\n/report\n")):
            (self.path / name).write_text(text)
        shutil.copy(ROOT / "params.yaml", self.path)
        for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
            subprocess.run(command, cwd=self.path, env=self.environment, check=True)

    def start(self, *words):
        return subprocess.Popen(words, cwd=self.path, env=self.environment, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def run(self, *words, code=0):
        process = self.start(*words)
        output, _ = process.communicate()
        assert process.returncode == code, output
        return output

    def flag(self, *names):
        for name in names:
            (self.scratch / name).touch()

    def log(self, stage):
        return (self.path / f".cache/run/logs/{stage}.log").read_text()

    def results(self):
        names = ("report", "data/a", "data/b", *(f"metrics/{v}-{s}.json" for v in "ab" for s in (1, 2)))
        return {name: (self.path / name).read_bytes() for name in names}

    def lock(self):
        return (self.path / "dvc.lock").read_text()


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The same repository, in which `dvc repro` has run."""
    alone = Repository(tmp_path_factory.mktemp("alone"))
    alone.run("dvc", "repro")
    return alone


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[cluster\]'.*`dvc repro` does the same"):
        cli.run_stages(address=None, per_gpu=1, keep_going=False)


def test_what_reads_a_changed_stage_is_out_of_date_too(monkeypatch):
    graph = {"fingerprint": set(), "fetch-subset": {"fingerprint"}, "tokenize": {"fetch-subset"},
             "train@a-1": {"tokenize"}, "train@b-1": {"tokenize"}, "generate@a": {"train@a-1"},
             "report": {"generate@a", "train@b-1"}}
    monkeypatch.setattr(pipeline, "changed", lambda: {"fingerprint", "train@a-1"})
    assert pipeline.out_of_date(graph) == {"train@a-1": set(), "generate@a": {"train@a-1"}}


def test_a_process_that_has_closed_its_output_is_waited_for_quietly(tmp_path):
    told = []
    (tmp_path / PROGRESS).parent.mkdir(parents=True)
    (tmp_path / PROGRESS).touch()
    code, said = task._follow(["sh", "-c", "echo so far; exec >&- 2>&-; sleep 1; exit 3"], tmp_path, dict(os.environ),
                              lambda *news: told.append(news))
    assert (code, said) == (3, "so far\n")
    assert told == [("said", "so far\n"), ("said", "")]


@needs_ray
def test_what_waits_for_a_slot_does_not_begin_after_a_failure(repository):
    """With as many threads, one training fills the machine; by the time that one has failed, the next has begun."""
    repository.environment["OMP_NUM_THREADS"] = str(2 * cores())
    repository.flag("fail-a-1", "fail-a-2", "fail-b-1", "fail-b-2")
    output = repository.run("h2h", "run", code=1)
    assert 1 <= len(re.findall(r"^train@\S+: it has failed", output, re.MULTILINE)) <= 2
    assert len([*(repository.path / ".cache/run/logs").glob("train@*")]) <= 2


@needs_ray
def test_it_ends_as_dvc_repro_does_though_tasks_fail_and_are_killed(repository, expected):
    deep = repository.scratch / ("temporary" * 10)
    deep.mkdir()
    repository.environment["TMPDIR"] = str(deep)
    repository.flag("kill-dvc-a-1", "kill-worker-a-2", "fail-b-1")
    output = repository.run("h2h", "run", "--keep-going", code=1)
    assert "train@b-1: it has failed; its log is .cache/run/logs/train@b-1.log" in output
    assert "    the loss is nan" in output
    assert "1 failed: train@b-1. What has succeeded is recorded" in output
    for stage in ("train@a-1", "train@a-2"):
        assert f"{stage}: was lost; tried again" in output
        assert "resumes" in repository.log(stage)
    assert "training b 2 by 1\n" in repository.log("train@b-2")
    assert (repository.path / "data/a").read_text() == "a 1\na 2\n"
    assert not (repository.path / "data/b").exists()

    (repository.scratch / "fail-b-1").unlink()
    again = repository.run("h2h", "run")
    assert re.findall(r"^(\S+): done", again, re.MULTILINE) == ["train@b-1", "generate@b"]
    assert executed(again) == ["fingerprint", "fingerprint", "report"]
    assert repository.results() == expected.results()
    assert yaml.safe_load(repository.lock()) == yaml.safe_load(expected.lock())  # in another order: one had failed
    assert not list((repository.path / ".cache/run/clones").iterdir())
    assert executed(repository.run("h2h", "run")) == ["fingerprint", "fingerprint"]


@needs_ray
def test_a_clone_that_cannot_be_made_is_named(repository):
    (repository.path / ".cache/run").mkdir(parents=True)
    (repository.path / ".cache/run/clones").touch()
    output = repository.run("h2h", "run", code=1)
    assert re.search(r"^train@\S+: it could not be run: NotADirectoryError: .*\s.*clones", output, re.MULTILINE)
    assert "Traceback" not in output
    assert "Unhandled" not in output


@needs_ray
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM], ids=["a user", "a scheduler"])
def test_interrupted_once_it_records_what_has_finished(repository, by):
    repository.flag("wait-b-1", "wait-b-2")
    process = repository.start("h2h", "run")
    while not all((repository.scratch / f"running-b-{seed}").exists() for seed in (1, 2)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(by)
    output, _ = process.communicate()
    assert process.returncode == 130
    assert "stopped; what has finished is recorded" in output
    assert "Traceback" not in output
    assert "up to date" in repository.run("dvc", "status", "train@a-1", "train@a-2")


@contextmanager
def ray_nodes(repository, *resources):
    """Ray's processes on this machine, with a node for each of `resources`, and for each node a folder of its own."""
    port, nodes = 6390 + os.getpid() % 1000, []
    try:
        for number, own in enumerate(resources):
            where = [f"--address=127.0.0.1:{port}"] if number else [
                "--head", f"--port={port}", "--include-dashboard=false"]
            caches = repository.path.parent / f"node{number}"
            nodes.append(subprocess.Popen(
                ["ray", "start", "--block", *where, *own, "--object-store-memory=100000000", "--disable-usage-stats"],
                env=repository.environment | {"XDG_CACHE_HOME": str(caches)},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            time.sleep(5)
        yield f"127.0.0.1:{port}"
    finally:
        for node in reversed(nodes):
            node.terminate()
            node.wait()


@needs_ray
def test_two_nodes_share_nothing_but_a_remote(repository, expected):
    remote = repository.path.parent / "remote"
    repository.run("dvc", "remote", "add", "-d", "storage", "../remote")
    repository.flag("kill-worker-a-1")
    with ray_nodes(repository, ["--num-cpus=1"], ["--num-cpus=1"]) as address:
        output = repository.run("h2h", "run", "--address", address)
    assert "train@a-1: was lost; tried again" in output
    assert executed(output) == ["fingerprint", "fetch-subset", "fingerprint", "report"]
    assert (repository.results(), repository.lock()) == (expected.results(), expected.lock())
    assert list(remote.glob("files/md5/*"))
    used = [node for node in (0, 1) if list((repository.path.parent / f"node{node}").rglob("cache/files"))]
    assert used == [0, 1]


@needs_ray
def test_two_tasks_share_a_gpu(repository):
    """Ray is told of a GPU that is not there. Each task begins and waits until another runs beside it."""
    repository.run("dvc", "remote", "add", "-d", "storage", "../remote")
    repository.flag("count")
    with ray_nodes(repository, ["--num-cpus=8", "--num-gpus=1"]) as address:
        repository.run("h2h", "run", "--address", address, "--per-gpu", "2")
    assert (repository.scratch / "beside").read_text().splitlines() == ["GPU 0, 2 running"] * 4


@needs_ray
def test_a_node_that_goes_while_machines_are_compared_is_no_error(monkeypatch):
    from ray.exceptions import TaskUnschedulableError

    from headtohead.cluster import slots

    def get(asked):
        raise TaskUnschedulableError("the node does not exist any more")

    remote = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: None))
    nodes = [{"NodeID": "11", "Alive": True, "NodeManagerHostname": "n2"}]
    monkeypatch.setattr(slots, "_here", lambda: "00")
    monkeypatch.setattr(slots, "NodeAffinitySchedulingStrategy", lambda *_, **__: None)
    monkeypatch.setattr(slots, "ray", SimpleNamespace(nodes=lambda: nodes, remote=lambda _: remote, get=get))
    assert slots.compare_machines() == ["n2 has gone; the others do the work"]


@needs_ray
def test_an_address_where_no_cluster_is_is_named(repository):
    output = repository.run("h2h", "run", "--address", "127.0.0.1:1", code=1)
    assert "no Ray cluster answers at 127.0.0.1:1" in output
    assert "Traceback" not in output
