"""What fails says so in one message, with an exit code; the traceback is in a log, and nothing computed is lost."""

import errno
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from clone import ENVIRONMENT, Clone, contents
from closure import ROOT
from transformers import AutoTokenizer

from headtohead.stage import StageError, run, writing

CAN_MOUNT = shutil.which("unshare") and not subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode
COLD = ("env", "HEADTOHEAD_WARM=0")  # the stage imports its libraries itself
mounting = pytest.mark.skipif(not CAN_MOUNT, reason="needs a small file system: Linux, and leave to mount")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """With one trained variant."""
    clone = Clone(tmp_path_factory.mktemp("clone"))
    clone.run("dvc", "repro", "train@flash-13")
    clone.commit()
    return clone


@pytest.fixture(autouse=True)
def _as_before(request):
    """Each test finds the clone's parameters as they were, and no checkpoints."""
    if "clone" in request.fixturenames:
        clone = request.getfixturevalue("clone")
        clone.run("git", "checkout", "-q", ".")
        shutil.rmtree(clone.path / ".checkpoints", ignore_errors=True)


def told(path, *command, code=1, log=None):
    """What a stage that fails says on the terminal: never a traceback, which is in its log."""
    done = subprocess.run(command, cwd=path, env=ENVIRONMENT, capture_output=True, text=True)
    return said(done.returncode, done.stderr, path, code, log)


def said(returncode, message, path, code, log):
    assert returncode == code, message
    assert "Traceback" not in message
    if log:
        assert f"traceback in logs/{log}.log" in message
        assert "Traceback" in (path / f"logs/{log}.log").read_text()
    return message


def stage(*words):
    return ("python", "-m", *words)


def test_a_loss_that_is_no_number_names_training_step_and_rate(clone):
    clone.edit("learning_rate: 0.006\n      warmup_steps: 2\n      weight_decay: 0.0",
               "learning_rate: 10.0\n      warmup_steps: 2\n      weight_decay: 10.0")
    message = told(clone.path, *stage("stages.train", "flash", "13"), log="train-flash-13")
    assert re.match(r"training flash-13: the loss is (nan|inf) at step \d+ of 12, with a learning rate of 10 at most; "
                    r"lower train\.learning_rate", message)


def test_too_little_memory_on_the_host_says_what_to_lower(clone):
    clone.edit("layers: 1, width: 32", "layers: 1, width: 32768")
    limited = f"ulimit -v 6000000; exec {' '.join(stage('stages.train', 'flash', '13'))}"
    message = told(clone.path, "sh", "-c", limited, log="train-flash-13")
    assert message.startswith("out of memory; lower train.batch_size, and raise train.accumulation by as much")


@mounting
@pytest.mark.parametrize(("folder", "size", "named"), [
    ("models", 100, "models/flash/13"),
    (".checkpoints", 100, ".checkpoints/flash-"),  # the weights do not fit: safetensors fails
    (".checkpoints", 300, ".checkpoints/flash-"),  # the optimizer's state does not: PyTorch fails
])
def test_a_full_disk_is_named_and_the_next_run_goes_on(clone, folder, size, named):
    expected = contents(clone.path, "models")
    command = " ".join(stage("stages.train", "flash", "13"))
    (clone.path / folder).mkdir(exist_ok=True)
    script = (f"mount -t tmpfs -o size={size}k none {folder}; {command}; echo code $? >&2; "
              f"mount -o remount,size=10m none {folder}; {command} && tar c models | tar x -C $1")
    with_space = clone.path.parent / f"{folder}-{size}"
    with_space.mkdir()
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, "sh", str(with_space)], cwd=clone.path,
                          env=ENVIRONMENT, capture_output=True, text=True)
    message = said(done.returncode, done.stderr, clone.path, code=0, log="train-flash-13")
    assert message.startswith(named)
    assert "cannot be written: the disk is full, 0." in message
    assert "free space and run `dvc repro` again" in message
    assert "code 1" in message
    assert contents(with_space, "models") == expected


@mounting
def test_a_log_that_cannot_be_written_does_not_hide_the_message(clone):
    script = f"mkdir -p logs; mount -t tmpfs -o ro none logs; exec {' '.join(stage('stages.generate', 'flash_rope'))}"
    message = told(clone.path, "unshare", "-rm", "sh", "-c", script)
    assert message.startswith("models/flash_rope/13 is no checkpoint folder")
    assert "no traceback: logs/generate-flash_rope.log: Read-only file system" in message


@pytest.mark.parametrize(("error", "message"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "out of memory; lower x.batch_size"),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."), "out of memory; lower x.batch_size"),
    (MemoryError(), "out of memory; lower x.batch_size"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory; lower x.batch_size"),
    (OSError(errno.ENOSPC, "No space left on device"), "an output of generate flash cannot be written: the disk is"),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "data/x.csv"), "data/x.csv cannot be written: the disk is full"),
])
def test_what_the_machine_lacks_is_said_in_the_stages_own_words(monkeypatch, error, message):
    def main():
        raise error

    monkeypatch.setattr(sys, "argv", ["stages/generate.py", "flash"])
    with pytest.raises(StageError, match=message):
        run(main, memory="x.batch_size")


@pytest.mark.gpu
def test_too_little_memory_on_the_gpu_says_what_to_lower(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stages/train.py"])
    with pytest.raises(StageError, match=r"out of memory; lower x\.batch_size"):
        run(lambda: torch.empty(2**50, dtype=torch.uint8, device="cuda"), memory="x.batch_size")


@pytest.mark.parametrize("error", [ValueError("no room in this summary"), RuntimeError("shapes differ")])
def test_other_errors_stay_what_they_are(monkeypatch, error):
    def main():
        raise error

    monkeypatch.setattr(sys, "argv", ["stages/score.py"])
    with pytest.raises(type(error)) as caught:
        run(main)
    assert caught.value is error


def test_the_device_that_is_full_is_the_one_written_to(tmp_path):
    def write():
        with writing(tmp_path / "not/there/yet"), open("/dev/full", "w") as full:
            full.write("x")

    with pytest.raises(StageError, match=rf"{tmp_path}/not/there/yet cannot be written: the disk is full, .* MB are"):
        write()


def test_a_model_of_another_variant_or_tokenizer_is_not_used(clone):
    clone.edit("flash: {kernel: flash, positions: learned, pattern: full}",
               "flash: {kernel: flash, positions: learned, pattern: window, window: 9}")
    message = told(clone.path, *stage("stages.generate", "flash"), log="generate-flash")
    assert message.startswith(
        "models/flash/13 was trained with kernel flash, positions learned, pattern full, but variants.flash in "
        "params.yaml is kernel flash, positions learned, pattern window, window 9; `dvc repro train@flash-13 --force`")
    clone.run("git", "checkout", "-q", "params.yaml")
    tokenizer = AutoTokenizer.from_pretrained(clone.path / "data/tokens/tokenizer")
    tokenizer.add_tokens(["Ashfield"])
    tokenizer.save_pretrained(clone.path / "data/tokens/tokenizer")
    message = told(clone.path, *stage("stages.generate", "flash"), log="generate-flash")
    assert message.startswith("models/flash/13 was trained with another tokenizer (512 tokens) than "
                              "data/tokens/tokenizer (513 tokens); `dvc repro train@flash-13 --force` trains it again")
    clone.run("dvc", "checkout", "-q", "--force", "tokenize")


def test_a_variant_that_is_not_trained_is_named(clone):
    message = told(clone.path, *stage("stages.generate", "flash_rope"), log="generate-flash_rope")
    assert message.startswith("models/flash_rope/13 is no checkpoint folder")


@pytest.fixture
def bare(tmp_path):
    """The stages and the package, where a file can stand before a library."""
    for folder in ("stages", "src"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


@pytest.mark.parametrize(("words", "answers"), [
    (["stages.train"], ["required: variant, seed", "\nvariant: standard, flash, flash_alibi, ", "\nseed: 13, 14, 15"]),
    (["stages.score"], ["required: variant\n", "\nvariant: standard, "]),
    (["stages.train", "flash", "first"], ["argument seed: invalid int value: 'first'", "\nseed: 13, 14, 15"]),
    (["stages.generate", "flash_alibbi"], ["no variant 'flash_alibbi'; did you mean flash_alibi?", "\nvariant: stand"]),
    (["stages.profile", "flash", "--verbos", "more"], ["unrecognized arguments: "]),
    (["headtohead.cli", "shwo"], ["invalid choice: 'shwo'"]),
    (["headtohead.cli", "choose", "--lenght", "3"], ["usage: h2h choose", "--lenght 3; did you mean --length?"]),
    (["headtohead.cli"], ["required: COMMAND"]),
])
def test_wrong_arguments_are_answered_before_any_library_is_imported(bare, words, answers):
    for library in ("torch", "numpy", "pandas", "transformers"):
        (bare / f"{library}.py").write_text("raise ImportError('imported too early')")
    shutil.copy(ROOT / "params.yaml", bare)
    message = told(bare, *COLD, sys.executable, *stage(*words)[1:], code=2)
    assert all(answer in message for answer in answers), message


@pytest.mark.parametrize("module", ["stages.train", "stages.report", "headtohead.cli"])
def test_help_is_there_before_any_library_is_imported(bare, module):
    (bare / "torch.py").write_text("raise ImportError('imported too early')")
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=bare, text=True, capture_output=True,
                          env=ENVIRONMENT)
    assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize("why", ["No module named 'torch'", "libtorch_cpu.so: cannot open shared object file"])
def test_a_library_that_is_missing_or_broken_is_named(bare, why):
    (bare / "torch.py").write_text(f"raise ImportError({why!r})")
    message = told(bare, *COLD, sys.executable, *stage("stages.train", "flash", "13")[1:], log="train-flash-13")
    assert message.startswith(f"a library is missing or broken: {why}; set the environment up again")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_libraries_are_imported_is_told_in_one_line(bare, signum):
    (bare / "torch.py").write_text("import time; print('here', flush=True); time.sleep(60)")
    command = [*COLD, sys.executable, *stage("stages.train", "flash", "13")[1:]]
    process = subprocess.Popen(command, cwd=bare, env=ENVIRONMENT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signum)
    message = said(process.wait(), process.stderr.read(), bare, code=130, log="train-flash-13")
    assert message.splitlines()[0] == "train flash 13 was stopped; `dvc repro` resumes from here"


def test_a_training_that_is_stopped_goes_on(clone):
    clone.edit("steps: 12\n", "steps: 2000\n")
    clone.edit("evaluations: 2\n", "evaluations: 100\n")
    process = subprocess.Popen(stage("stages.train", "flash", "13"), cwd=clone.path, env=ENVIRONMENT, text=True,
                               stderr=subprocess.PIPE)
    while process.poll() is None and not list(clone.path.glob(".checkpoints/flash-*/*/sealed.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    message = said(process.wait(), process.stderr.read(), clone.path, code=130, log="train-flash-13")
    assert "train flash 13 was stopped; `dvc repro` resumes from here" in message
    assert list(clone.path.glob(".checkpoints/flash-*/*/sealed.json"))
