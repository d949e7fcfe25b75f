"""params.yaml as types. Unknown keys are forbidden, and a wrong value names its key and what is allowed."""

import difflib
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from headtohead.attention.spec import AttentionSpec

PATH = Path("params.yaml")

Positive = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
NonNegative = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]
Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Precision = Literal["float32", "bfloat16"]
# A variant's name becomes a file name, a DVC stage name and a key.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]

RESERVED = ("lead3", "untrained")  # the report's reference rows


class ParamsError(ValueError):
    """params.yaml cannot be used; the message names every wrong key and what is allowed there."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Newswire(Section):
    words: tuple[Annotated[int, Field(strict=True, ge=50, le=10_000)], Positive]
    distractors: Rate
    longer: list[Literal[2, 4]]

    @model_validator(mode="after")
    def _words_leave_room(self) -> Self:
        if self.words[1] < self.words[0] + 20:
            raise ValueError(f"words {list(self.words)}: the second must be at least 20 above the first")
        return self


class Hub(Section):
    name: str
    config: str | None
    revision: str


class Data(Section):
    source: Literal["newswire", "files", "hub"]
    path: str | None
    article: str
    summary: str
    train: Positive
    validation: Positive
    test: Positive
    newswire: Newswire | None = None
    hub: Hub | None = None

    @model_validator(mode="after")
    def _source_has_its_settings(self) -> Self:
        needed = {"newswire": "newswire", "files": "path", "hub": "hub"}[self.source]
        if getattr(self, needed) is None:
            raise ValueError(f"source: {self.source} needs `{needed}` beside it")
        return self


class Tokenizer(Section):
    vocab_size: Annotated[int, Field(strict=True, ge=258, le=1_000_000)] | None
    separator: Annotated[str, Field(min_length=1)]
    max_length: Annotated[int, Field(strict=True, ge=8, le=1_000_000)]


class Model(Section):
    pretrained: str | None
    dropout: Annotated[float, Field(ge=0, lt=1)]
    layers: Positive | None = None
    width: Positive | None = None
    heads: Positive | None = None
    init_std: PositiveFloat | None = None
    position_init_std: PositiveFloat | None = None

    @model_validator(mode="after")
    def _shape_is_whole(self) -> Self:
        missing = [name for name in ("layers", "width", "heads", "init_std", "position_init_std")
                   if getattr(self, name) is None]
        if self.pretrained is None and missing:
            raise ValueError(f"a model from scratch (pretrained: null) needs {', '.join(missing)}")
        if self.width and self.heads and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Train(Section):
    steps: Positive
    batch_size: Positive
    accumulation: Positive
    learning_rate: PositiveFloat
    warmup_steps: NonNegative
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    article_weight: Rate
    precision: Precision
    evaluations: Positive

    @model_validator(mode="after")
    def _steps_hold_the_rest(self) -> Self:
        for name in ("warmup_steps", "evaluations"):
            if getattr(self, name) > self.steps:
                raise ValueError(f"{name} {getattr(self, name)} is more than steps {self.steps}")
        return self


class Generate(Section):
    batch_size: Positive
    max_new_tokens: Positive
    beams: Annotated[int, Field(strict=True, ge=1, le=64)]
    no_repeat_ngram: NonNegative
    precision: Precision


class Profile(Section):
    new_tokens: Positive
    train_batch_sizes: Annotated[list[Positive], Field(min_length=1)]
    min_repeats: Annotated[int, Field(strict=True, ge=2, le=100_000)]
    min_seconds: Annotated[float, Field(ge=0, le=3600)]
    precision: Precision


class Preset(Section):
    data: Data
    tokenizer: Tokenizer
    model: Model
    train: Train
    generate: Generate
    profile: Profile

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if (self.tokenizer.vocab_size is None) != (self.model.pretrained is not None):
            raise ValueError("tokenizer.vocab_size is null exactly when model.pretrained names a model, "
                             "which brings its own vocabulary")
        for section, length in (("generate.max_new_tokens", self.generate.max_new_tokens),
                                ("profile.new_tokens", self.profile.new_tokens)):
            if length > self.tokenizer.max_length - 2:
                raise ValueError(f"{section} {length} leaves no room for an article in "
                                 f"tokenizer.max_length {self.tokenizer.max_length}")
        return self


class Params(Section):
    attention: Name
    also: Annotated[list[Name], Field(min_length=4, max_length=4)]
    preset: str
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)]
    variants: dict[Name, AttentionSpec]
    presets: dict[str, Preset]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for key, name in (("attention", self.attention), *((f"also[{i}]", n) for i, n in enumerate(self.also))):
            if name not in self.variants:
                raise ValueError(f"{key}: unknown variant {name!r}; there are {', '.join(self.variants)}")
        if self.preset not in self.presets:
            raise ValueError(f"preset: unknown preset {self.preset!r}; there are {', '.join(self.presets)}")
        if missing := [name for name in STUDY if name not in self.variants]:
            raise ValueError(f"variants: the study's {', '.join(missing)} cannot be left out")
        if taken := [name for name in RESERVED if name in self.variants]:
            raise ValueError(f"variants: {', '.join(taken)} is the name of a reference row; choose another")
        return self

    @property
    def chosen(self) -> Preset:
        """The preset that `preset` names."""
        return self.presets[self.preset]

    @property
    def compared(self) -> list[str]:
        """The variants of this run, without repeats: the study's four, `attention` and `also`."""
        return list(dict.fromkeys([*STUDY, self.attention, *self.also]))


STUDY = ("standard", "flash", "flash_alibi", "flash_sparse")


def read_params(path: Path = PATH) -> Params:
    """Read and check params.yaml.

    Raises:
        ParamsError: not readable, not YAML, or with a wrong or unknown key; one line for each.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: is not valid YAML: {error}") from error
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError("\n".join(f"{path}: {_explain(problem)}" for problem in error.errors())) from error


def _explain(problem: ErrorDetails) -> str:
    """One line for one problem: the key, what is wrong, and for an unknown key the nearest that exists."""
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        given = "" if isinstance(problem["input"], dict) else f" (is {problem['input']!r})"
        return f"{key + ': ' if key else ''}{problem['msg'].removeprefix('Value error, ')}{given}"
    known = _known_keys(problem["loc"][:-1])
    near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{key}: unknown key; keys there: {', '.join(known)}{hint}"


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    """The keys that the section at `location` may have."""
    sections: dict[str, type[Section]] = {
        "presets": Preset, "data": Data, "newswire": Newswire, "hub": Hub, "tokenizer": Tokenizer,
        "model": Model, "train": Train, "generate": Generate, "profile": Profile}
    inner = [sections[str(part)] for part in location if part in sections]
    return list((inner or [Params])[-1].model_fields)
