"""What is here: the machine, its software, and what params.yaml names beside both."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import TemporaryFile

import torch
from transformers import GPT2Config

from headtohead.articles.folders import locate
from headtohead.attention.backends import flash_attn
from headtohead.inputs import settings_folder
from headtohead.models.pretrained import read_settings
from headtohead.params import Params
from headtohead.profiling.machine import describe, memory
from headtohead.records import DataError

GB = 2**30
SETUP = "rm -r .venv; make setup"


@dataclass(frozen=True)
class Fact:
    """Something that is here, or is not.

    Args:
        problem: what is wrong and what to do about it; empty if nothing is.
        broken: whether the run of params.yaml cannot do without it.
    """

    name: str
    value: str
    problem: str = ""
    broken: bool = False


@dataclass(frozen=True)
class Model:
    """The shape of the model that the preset trains; positions: the length of its table, if a variant has one."""

    layers: int
    heads: int
    head_dim: int
    positions: int
    vocabulary: int


def machine(device: torch.device) -> Iterator[Fact]:
    """Processor, memory, disk and GPU."""
    here = describe()
    yield Fact("processor", f"{here['processor']}, {here['cores']} cores")
    free, total = memory()
    yield Fact("memory", f"{free / GB:.1f} of {total / GB:.1f} GB free")
    yield _disk()
    gpu = f"{here['gpu']}, driver {here['driver']}, for CUDA up to {here['cuda']}"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        yield Fact("GPU", f"{gpu}; {free / GB:.1f} of {total / GB:.1f} GB free on the one that runs")
    elif here["gpu"] is None:
        yield Fact("GPU", "none with an NVIDIA driver that works; all runs on the processor")
    else:
        yield Fact("GPU", gpu, f"is not used: {_why_hidden()}")


def _disk() -> Fact:
    usage = shutil.disk_usage(Path.cwd())
    value = f"{usage.free / GB:.1f} of {usage.total / GB:.1f} GB free"
    try:
        with TemporaryFile(dir=Path.cwd()) as file:
            file.write(bytes(2**20))
    except OSError as error:
        return Fact("disk", value, f"nothing can be written to {Path.cwd()}: {error.strerror}", broken=True)
    return Fact("disk", value)


def _why_hidden() -> str:
    if torch.version.cuda is None:
        return "this PyTorch is built for processors alone; install the one of PyPI"
    if hidden := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return f"CUDA_VISIBLE_DEVICES is {hidden!r}"
    return f"PyTorch is built for CUDA {torch.version.cuda} and cannot use it; a newer driver may help"


def software(device: torch.device) -> Iterator[Fact]:
    """Python, PyTorch and the libraries that are there or not."""
    yield Fact("Python", str(describe()["python"]))
    if missing := [name for name in _required() if _version(name) is None]:
        yield Fact("libraries", f"{', '.join(missing)}: not installed", SETUP, broken=True)
    try:
        ones = torch.ones(16, 16, device=device)
        right = bool((ones @ ones == 16).all())
        yield Fact("torch", f"{torch.__version__}, multiplies matrices on {device}",
                   "" if right else f"wrongly; {SETUP}", broken=not right)
    except RuntimeError as error:
        yield Fact("torch", f"{torch.__version__}, does not run on {device}", first_line(error), broken=True)
    package, how = flash_attn.capability.package or ("", "")
    yield _for_gpu("triton", "triton", f"comes with PyTorch for CUDA; {SETUP}", device, needed=True)
    yield _for_gpu("flash-attn", package, how, device, needed=False)


def _for_gpu(name: str, module: str, how: str, device: torch.device, needed: bool) -> Fact:
    """A library that only runs on a GPU."""
    if device.type != "cuda":
        return Fact(name, f"{_version(name) or 'not installed'}; only a GPU needs it")
    if (found := _version(name)) is None:
        return Fact(name, "not installed", how, broken=needed)
    try:
        import_module(module)
    except Exception as error:  # one built for another PyTorch fails in many ways
        return Fact(name, f"{found}, cannot be imported", f"{first_line(error)}; {how}", broken=True)
    return Fact(name, f"{found}, imported")


def _required() -> list[str]:
    """The project's own dependencies, without those of its extras."""
    try:
        return [re.split(r"[^\w.-]", line)[0] for line in requires("headtohead") or [] if "extra ==" not in line]
    except PackageNotFoundError:  # it runs from its sources
        return []


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def inputs(params: Params) -> Iterator[Fact]:
    """Articles of one's own."""
    data = params.chosen.data
    if data.source != "files":
        return
    try:
        found = locate(data)
    except (DataError, OSError) as error:
        yield Fact("articles", str(data.path), str(error), broken=True)
    else:
        yield Fact("articles", f"{data.path}, {sum(map(len, found.values()))} files")


def shape(params: Params) -> Model:
    """The model's shape, as params.yaml says it, or as the pretrained model's settings do.

    Raises:
        DataError: the pretrained model is not to be had.
    """
    model = params.chosen.model
    if model.pretrained is None:
        layers, width, heads = (size or 0 for size in (model.layers, model.width, model.heads))  # none is None
        tokenizer = params.chosen.tokenizer
        return Model(layers, heads, width // heads, tokenizer.max_length, tokenizer.vocab_size or 0)
    if (folder := settings_folder(model.pretrained)) is None:
        raise DataError("is not on this machine, and the hub does not give it; download it, and name its folder in "
                        f"presets.{params.preset}.model.pretrained")
    config = GPT2Config(**read_settings(folder)[0])
    return Model(config.n_layer, config.n_head, config.n_embd // config.n_head, config.n_positions, config.vocab_size)


def first_line(error: Exception) -> str:
    """An error in one line."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
