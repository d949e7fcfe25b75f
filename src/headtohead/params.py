"""params.yaml as types. Unknown keys are forbidden, and a wrong value names its key and what is allowed."""

import difflib
import re
import reprlib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from headtohead.attention.spec import AttentionSpec
from headtohead.paths import BASELINES

PATH = Path("params.yaml")

Positive = Annotated[int, Field(ge=1, le=10_000_000)]
NonNegative = Annotated[int, Field(ge=0, le=10_000_000)]
Batch = Annotated[int, Field(ge=1, le=100_000)]
Rate = Annotated[float, Field(ge=0, le=1)]
Margin = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
PositiveFloat = Annotated[float, Field(gt=0, le=10)]
Precision = Literal["float32", "bfloat16"]
Token = Annotated[str, Field(min_length=1, max_length=100)]
File = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]  # what a file system takes
# A variant's name becomes a file name, a DVC stage name and a key; a preset's name becomes part of a key.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]

AUTO, ENGLISH = "auto", "en"
# ISO 639-1 codes of the languages that py3langid tells apart.
LANGUAGES = [
    "af", "am", "an", "ar", "as", "az", "ba", "be", "bg", "bn", "br", "bs", "ca", "cs", "cy", "da", "de", "dz", "el",
    "en", "eo", "es", "et", "eu", "fa", "fi", "fo", "fr", "fy", "ga", "gd", "gl", "gu", "ha", "he", "hi", "hr", "ht",
    "hu", "hy", "id", "ig", "is", "it", "ja", "jv", "ka", "kk", "km", "kn", "ko", "ku", "ky", "la", "lb", "lg", "ln",
    "lo", "lt", "lv", "mg", "mk", "ml", "mn", "mr", "ms", "mt", "my", "ne", "nl", "nn", "no", "oc", "om", "or", "pa",
    "pl", "ps", "pt", "qu", "ro", "ru", "rw", "sa", "se", "si", "sk", "sl", "sn", "so", "sq", "sr", "st", "sv", "sw",
    "ta", "te", "tg", "th", "tk", "tl", "tr", "tt", "ug", "uk", "ur", "uz", "vi", "vo", "wa", "xh", "yo", "zh", "zu",
]
# What byte-level BPE can merge into one token (at most this: a word, a number, a run of punctuation), and end-of-text.
SPELLABLE = re.compile(r"\w+|[^\w\s]+|'(s|t|re|ve|m|ll|d)|<\|endoftext\|>")


class ParamsError(ValueError):
    """params.yaml cannot be used; the message names every wrong key and what is allowed there."""


class Section(BaseModel):
    """A part of params.yaml. The messages of its validators begin with the key that they are about."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Newswire(Section):
    words: Annotated[list[Annotated[int, Field(ge=50, le=100_000)]], Field(min_length=2, max_length=2)]
    distractors: Rate
    longer: Annotated[list[Literal[2, 4, 8]], Field(max_length=3)]

    @model_validator(mode="after")
    def _words_leave_room(self) -> Self:
        if self.words[1] < self.words[0] + 20:
            raise ValueError(f"words: the second must be at least 20 above the first (is {self.words})")
        return self


class Hub(Section):
    name: Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)?$", max_length=96)]
    config: str | None
    revision: str


class Data(Section):
    source: Literal["newswire", "files", "hub"]
    path: File | None
    encoding: str | None = None
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

    @model_validator(mode="after")
    def _encoding_is_known(self) -> Self:
        try:
            " ".encode("utf-8" if self.encoding is None else self.encoding)
        except (LookupError, ValueError) as error:
            raise ValueError(f"encoding: {BRIEF.repr(self.encoding)} is no text encoding of Python's; there are utf-8, "
                             "cp1250, cp1251, cp1252, koi8-r, mac_roman, shift_jis, gb18030 and many more") from error
        return self


class Tokenizer(Section):
    vocab_size: Annotated[int, Field(ge=258, le=1_000_000)] | None  # 256 bytes, separator and end-of-text
    separator: Token
    end_of_text: Token | None = None
    max_length: Annotated[int, Field(ge=8, le=1_000_000)]

    @model_validator(mode="after")
    def _no_text_spells_the_separator(self) -> Self:
        if self.vocab_size is not None and SPELLABLE.fullmatch(self.separator):
            raise ValueError(f"separator: {self.separator!r} could become a token of the text itself; mix letters and "
                             "punctuation, as in '<|summary|>', or begin with a space or line break")
        return self


    @model_validator(mode="after")
    def _only_a_pretrained_one_is_told_its_end(self) -> Self:
        if self.vocab_size is not None and self.end_of_text is not None:
            raise ValueError("end_of_text: names a token of a pretrained model's vocabulary; the one that is trained "
                             "here has its own, so leave it null")
        return self


class Model(Section):
    pretrained: File | None
    dropout: Annotated[float, Field(ge=0, lt=1)]
    layers: Annotated[int, Field(ge=1, le=1000)] | None = None
    width: Annotated[int, Field(ge=1, le=65_536)] | None = None
    heads: Annotated[int, Field(ge=1, le=1024)] | None = None
    init_std: PositiveFloat | None = None
    position_init_std: PositiveFloat | None = None

    @model_validator(mode="after")
    def _shape_is_whole(self) -> Self:
        missing = [name for name in ("layers", "width", "heads", "init_std", "position_init_std")
                   if getattr(self, name) is None]
        if self.pretrained is None and missing:
            raise ValueError(f"pretrained: null builds a model from scratch, which needs {', '.join(missing)}")
        if self.width and self.heads and self.width % self.heads:
            raise ValueError(f"width: {self.width} is not a multiple of heads {self.heads}")
        return self


class Train(Section):
    steps: Positive
    batch_size: Batch
    accumulation: Batch
    learning_rate: PositiveFloat
    warmup_steps: NonNegative
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    article_weight: Rate
    precision: Precision
    evaluations: Positive
    devices: Literal["all"] | Annotated[int, Field(ge=1, le=1024)] = 1
    sharding: Literal["none", "full"] = "none"
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    weights: Precision = "float32"
    gradient_checkpointing: bool = False

    @property
    def step(self) -> dict[str, Any]:
        """What the cost of a step in a given batch follows from, on one device: all that profiling reads of it."""
        return self.model_dump(include={"article_weight", "precision", "optimizer", "weights",
                                        "gradient_checkpointing"})

    @model_validator(mode="after")
    def _steps_hold_the_rest(self) -> Self:
        for name in ("warmup_steps", "evaluations"):
            if getattr(self, name) > self.steps:
                raise ValueError(f"{name}: {getattr(self, name)} is more than steps {self.steps}")
        return self

    @model_validator(mode="after")
    def _devices_have_work(self) -> Self:
        if isinstance(self.devices, int) and self.devices > self.batch_size:
            raise ValueError(f"devices: {self.devices} is more than batch_size {self.batch_size}, which they share")
        if self.sharding == "full" and self.devices == 1:
            raise ValueError("sharding: full splits a model over several devices, and devices is 1")
        if self.sharding == "full" and self.optimizer != "adamw":
            raise ValueError(f"optimizer: {self.optimizer} cannot be split over devices; sharding full needs adamw")
        return self


DRAFTED = 15  # tokens at most: with the latest one as many as a matrix unit takes at once


class Generate(Section):
    batch_size: Batch
    max_new_tokens: Positive
    beams: Annotated[int, Field(ge=1, le=64)]
    no_repeat_ngram: NonNegative
    precision: Precision
    lookup: Literal["auto"] | Annotated[int, Field(ge=0, le=DRAFTED)] = "auto"

    @model_validator(mode="after")
    def _drafts_are_for_greedy_search(self) -> Self:
        if self.lookup not in (AUTO, 0) and self.beams > 1:
            raise ValueError(f"lookup: {self.lookup} tokens are drafted in greedy search alone, and beams is "
                             f"{self.beams}; set beams: 1, or lookup: {AUTO}")
        return self


class Score(Section):
    language: str

    @model_validator(mode="after")
    def _language_is_known(self) -> Self:
        if self.language not in (AUTO, *LANGUAGES):
            raise ValueError(f"language: unknown language {BRIEF.repr(self.language)}; there are {AUTO} and "
                             f"the codes {' '.join(LANGUAGES)}")
        return self


class Profile(Section):
    new_tokens: Positive
    lengths: Annotated[list[Annotated[int, Field(ge=1, le=1_000_000)]], Field(min_length=1, max_length=20)]
    batch_sizes: Annotated[list[Batch], Field(min_length=1, max_length=20)]
    train_batch_sizes: Annotated[list[Batch], Field(min_length=1, max_length=20)]
    min_repeats: Annotated[int, Field(ge=2, le=100_000)]
    min_seconds: Annotated[float, Field(ge=0, le=3600)]
    precision: Precision
    pairs: Annotated[int, Field(ge=2, le=100)] = 5
    grid: bool = False


class Margins(Section):
    quality: Margin
    fact_recall: Margin
    time: Margin
    memory: Margin


class Preset(Section):
    data: Data
    tokenizer: Tokenizer
    model: Model
    train: Train
    generate: Generate
    score: Score
    profile: Profile

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if (self.tokenizer.vocab_size is None) != (self.model.pretrained is not None):
            raise ValueError("tokenizer.vocab_size: is null exactly when model.pretrained names a model, "
                             "which brings its own vocabulary")
        # One token of its own, or spelled in a pretrained vocabulary's: in the worst case byte by byte.
        separator = 1 if self.model.pretrained is None else len(self.tokenizer.separator.encode())
        for key, length in (("generate.max_new_tokens", self.generate.max_new_tokens),
                            ("profile.new_tokens", self.profile.new_tokens)):
            if length + separator >= self.tokenizer.max_length:
                raise ValueError(f"{key}: {length} leaves no room for an article beside tokenizer.separator in "
                                 f"tokenizer.max_length {self.tokenizer.max_length}")
        return self


ALSO = 10  # places in `also`


class Params(Section):
    attention: Name
    also: Annotated[list[Name], Field(min_length=ALSO, max_length=ALSO)]
    preset: Name
    seed: Seed
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=100)]
    margins: Margins
    backend: Literal["auto", "flash-attn", "flex", "sdpa"]
    variants: dict[Name, AttentionSpec]
    presets: dict[Name, Preset]

    @model_validator(mode="before")
    @classmethod
    def _also_has_every_place(cls, given: Any) -> Any:
        """dvc.yaml reads its places one by one, and DVC can neither join lists nor leave a missing place out."""
        also = given.get("also") if isinstance(given, dict) else None
        if isinstance(also, list) and len(also) != ALSO:
            raise ValueError(f"also: has {len(also)} names and needs {ALSO}, because DVC reads them one by one; fill "
                             "up with standard, as repeats count once, or set single ones: -S also.0=NAME")
        return given

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for key, name in (("attention", self.attention), *((f"also[{i}]", n) for i, n in enumerate(self.also))):
            if name not in self.variants:
                raise ValueError(f"{key}: unknown variant {name!r}; there are {', '.join(self.variants)}")
        if self.preset not in self.presets:
            raise ValueError(f"preset: unknown preset {self.preset!r}; there are {', '.join(self.presets)}")
        if repeated := [seed for seed in self.seeds if self.seeds.count(seed) > 1]:
            raise ValueError(f"seeds: {repeated[0]} stands there twice; a training that is repeated is no further one")
        if missing := [name for name in STUDY if name not in self.variants]:
            raise ValueError(f"variants: the study's {', '.join(missing)} cannot be left out")
        if taken := [name for name in BASELINES if name in self.variants]:
            raise ValueError(f"variants: {', '.join(taken)} is the name of a reference row; choose another")
        return self

    @model_validator(mode="after")
    def _heads_can_turn(self) -> Self:
        model = self.chosen.model
        turned = [name for name in self.compared if self.variants[name].positions == "rope"]
        if turned and model.width and model.heads and model.width // model.heads % 2:
            raise ValueError(f"variants: {turned[0]} turns pairs of channels (rope), and presets.{self.preset}.model "
                             f"has heads of {model.width // model.heads}, an odd number; change width or heads")
        return self

    @property
    def chosen(self) -> Preset:
        """The preset that `preset` names."""
        return self.presets[self.preset]

    def with_preset(self, name: str) -> "Params":
        """The same with another preset.

        Raises:
            ParamsError: there is none of that name.
        """
        if name not in self.presets:
            raise ParamsError(f"unknown preset {name!r}; there are {', '.join(self.presets)}")
        return self.model_copy(update={"preset": name})

    @property
    def asked_backend(self) -> str | None:
        """The backend that runs the variants with kernel flash; None leaves it to dispatch."""
        return None if self.backend == "auto" else self.backend

    @property
    def compared(self) -> list[str]:
        """The variants of this run, without repeats: the study's four, `attention` and `also`."""
        return list(dict.fromkeys([*STUDY, self.attention, *self.also]))


def seeds_from(known: list[int], count: int) -> list[int]:
    """The first `count` of the seeds that there are, which may be trained already, and of new ones after them."""
    return [*known, *range(max(known) + 1, max(known) + 1 + count)][:count]


def as_option(key: str, values: list[int]) -> str:
    """How to set a list for a run."""
    return f"-S '{key}=[{','.join(map(str, values))}]'"


STUDY = ("standard", "flash", "flash_alibi", "flash_sparse")

# How much a message shows: the number of problems, and the characters of each.
SHOWN, LONGEST = 20, 500
BRIEF = reprlib.Repr()
BRIEF.maxlevel, BRIEF.maxstring, BRIEF.maxother = 1, 60, 60


def read_params(path: Path = PATH) -> Params:
    """Read and check params.yaml.

    Raises:
        ParamsError: not readable, not YAML, or with a wrong or unknown key; one line for each.
    """
    try:
        return Params.model_validate(_read(path))
    except ValidationError as error:
        problems = [_line(f"{path}: {_explain(problem)}") for problem in error.errors()]
        if len(problems) > SHOWN:
            problems[SHOWN:] = [f"and {len(problems) - SHOWN} more"]
        raise ParamsError("\n".join(problems)) from error


class _Constructor(SafeConstructor):
    """Reads YAML as DVC does; a number or date that cannot be read is an error with its line, too."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                str(value)  # Python refuses if it is too long to be shown
            return value
        except (ValueError, LookupError) as error:
            raise ConstructorError(problem=f"{BRIEF.repr(node.value)} cannot be read: {error}",
                                   problem_mark=node.start_mark) from error


def _read(path: Path) -> Any:
    """The file's content, read as DVC reads it: in YAML 1.1, which most libraries read, 5e-3 is not a number."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    text = _text(path)
    try:
        return yaml.load(text)
    except ReaderError as error:
        line, what = text.count("\n", 0, error.position), f"character {chr(error.character)!r} is not allowed"
        raise ParamsError(f"{path}, line {line + 1}: {what}") from error
    except MarkedYAMLError as error:
        what = ": ".join(filter(None, (error.context, error.problem)))
        raise ParamsError(_line(f"{path}, line {error.problem_mark.line + 1}: {what}")) from error
    except RecursionError as error:
        raise ParamsError(f"{path}: is nested too deeply") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ParamsError(f"{path}, line {line}: is not UTF-8: {error.reason}") from error


def _explain(problem: ErrorDetails) -> str:
    """What is wrong with which key; for an unknown key, which keys exist."""
    key = ".".join(_short(part) for part in problem["loc"] if part != "[key]")
    what, given = problem["msg"].split(" or instance of ")[0], problem["input"]
    if problem["type"] == "value_error":  # from a section's validator
        return ".".join(filter(None, (key, str(problem["ctx"]["error"]))))
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; {_alternatives(problem['loc'])}"
    if problem["type"] == "missing":
        return f"{key}: {what}"
    if problem["type"] == "string_type" and isinstance(given, int | float | date):
        what += "; put it in quotes"
    return f"{key}: {what} (is {BRIEF.repr(given)})".removeprefix(": ")


def _alternatives(location: tuple[str | int, ...]) -> str:
    """The keys that are allowed in place of the last one of `location`, and the most similar of them."""
    *within, key = map(str, location)
    sections = {section.__name__.lower(): section for section in Section.__subclasses__()}
    section = Params if not within else Preset if len(within) == 2 else sections[within[-1]]  # presets.NAME
    near = difflib.get_close_matches(key, section.model_fields, n=1)
    return f"keys there: {', '.join(section.model_fields)}" + (f"; did you mean {near[0]}?" if near else "")


def _short(key: str | int) -> str:
    text = str(key)
    return text if text.isprintable() and 0 < len(text) <= BRIEF.maxstring else BRIEF.repr(key)


def _line(text: str) -> str:
    """A message without control characters, cut if it is very long."""
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:LONGEST])
    return line + "…" * (len(text) > LONGEST)
