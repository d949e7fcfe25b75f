"""One attention variant, validated; imports no torch, so that parameters are checked at once."""

import hashlib
import reprlib
from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer, model_validator

from headtohead.attention.patterns import PATTERNS, Count, Pattern

LOOKED_AT = 1024  # positions whose queries and keys identify a pattern,
DEPTH = 3         # and layers


class AttentionSpec(BaseModel):
    """What a variant computes: `AttentionSpec(kernel="flash", pattern="window", window=64)`.

    Args:
        kernel: `eager` materialises the scores (matmul, softmax, matmul); `flash` is the same function in a fused
            kernel; `performer` approximates it with random features (`features` of them), in linear time.
        positions: `learned`, GPT-2's position embedding; `alibi`, a linear bias on the scores; `rope`, rotated queries
            and keys; `none`.
        pattern: name of a class in `patterns`; its numbers are given beside it.
        layers: instead of `pattern`, several of them (each may have its own `kernel`), one for each layer of a model,
            repeated if it has more: `layers=[{"pattern": "window", "window": 64}, {"pattern": "full"}]`.

    Raises:
        pydantic.ValidationError: an unknown name, a number that is missing, unknown or refused by the pattern, or a
            meaningless combination.
    """

    # The pattern's own numbers arrive as extra fields and are checked by its class.
    model_config = ConfigDict(frozen=True, extra="allow")

    kernel: Literal["eager", "flash", "performer"] = "eager"
    positions: Literal["learned", "alibi", "rope", "none"] = "learned"
    pattern: str = "full"
    layers: tuple["AttentionSpec", ...] = Field(default=(), max_length=1000)

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers given beside the pattern's name."""
        return dict(self.model_extra or {})

    @property
    def visibility(self) -> Pattern:
        """The pattern with its numbers; only for a variant without `layers`."""
        own = {name: number for name, number in self.numbers.items() if name != "features"}
        return PATTERNS[self.pattern].model_validate(own)

    def layer(self, index: int) -> "AttentionSpec":
        """What one layer of a model computes: a variant without `layers`, with the random choices of that layer."""
        own = self.layers[index % len(self.layers)] if self.layers else self
        in_layer = own.visibility.in_layer(index)
        return own if in_layer == own.visibility else own.model_copy(update=in_layer.model_dump())

    def depth(self, count: int) -> list["AttentionSpec"]:
        """What each of `count` layers computes."""
        return [self.layer(index) for index in range(count)]

    @property
    def function(self) -> "AttentionSpec":
        """What is computed, regardless of the kernel: eager and flash compute the same function."""
        kernel = "flash" if self.kernel == "eager" else self.kernel
        return self.model_copy(update={"kernel": kernel, "layers": tuple(layer.function for layer in self.layers)})

    def digest(self) -> str:
        """Identifies who sees whom: it changes when a pattern leaves out or keeps other keys than before."""
        import numpy as np  # most readers of parameters do not need it

        query, key = np.ogrid[:LOOKED_AT, :LOOKED_AT]
        code = hashlib.blake2b(digest_size=8)
        for layer in dict.fromkeys(self.depth(max(DEPTH, len(self.layers)))):
            pattern = layer.visibility
            code.update(np.packbits((key <= query) & pattern.sees(query, key)).tobytes())
            code.update(repr((pattern.form, pattern.keeps(LOOKED_AT))).encode())
        return code.hexdigest()

    @model_serializer
    def _as_in_params(self) -> dict[str, Any]:
        own: dict[str, Any] = {"kernel": self.kernel, "positions": self.positions}
        if not self.layers:
            return own | {"pattern": self.pattern, **self.numbers}
        return own | {"layers": [{name: value for name, value in layer.model_dump().items() if own.get(name) != value}
                                 for layer in self.layers]}

    @model_validator(mode="before")
    @classmethod
    def _layers_share_the_rest(cls, given: Any) -> Any:
        """Each layer has the variant's positions, and its kernel unless the layer names one."""
        if isinstance(given, dict) and isinstance(given.get("pattern"), list | tuple):
            raise ValueError("pattern: is the name of one pattern, for all layers; for several write `layers: "
                             "[{pattern: window, window: 64}, {pattern: full}]`")
        if not isinstance(given, dict) or not isinstance(given.get("layers"), list | tuple) or not given["layers"]:
            return given
        if beside := sorted(given.keys() - {"kernel", "positions", "layers"}):
            raise ValueError(f"{beside[0]}: stands beside `layers`, which says it for each layer; write it there")
        shared = {name: given[name] for name in ("kernel", "positions") if name in given}
        return given | {"layers": tuple(_layer(layer, shared) for layer in given["layers"])}

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if self.layers:
            return self
        if self.pattern not in PATTERNS:
            raise ValueError(f"pattern: unknown pattern {self.pattern!r}; there are {', '.join(PATTERNS)}")
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        of_pattern = PATTERNS[self.pattern].model_fields
        of_kernel = Performer.model_fields if self.kernel == "performer" else {}
        fields = {**of_pattern, **of_kernel}
        if unknown := sorted(self.numbers.keys() - fields.keys()):
            yield (f"{unknown[0]}: pattern {self.pattern!r} knows no {', '.join(unknown)}; "
                   f"keys: {', '.join(['kernel', 'positions', 'pattern', *fields, 'layers'])}")
        if missing := [name for name, field in fields.items() if field.is_required() and name not in self.numbers]:
            whose = f"kernel {self.kernel!r}" if missing[0] in of_kernel else f"pattern {self.pattern!r}"
            yield f"{missing[0]}: {whose} needs {', '.join(missing)}"
        given = self.numbers.items()
        yield from _refused(PATTERNS[self.pattern], {name: number for name, number in given if name in of_pattern})
        if of_kernel:
            yield from _refused(Performer, {name: number for name, number in given if name in of_kernel})
        if self.kernel == "performer" and self.positions == "alibi":
            yield ("positions: ALiBi adds a bias to scores, and kernel 'performer' never computes them; "
                   "take learned, rope or none")
        if self.kernel == "performer" and self.pattern != "full":
            yield "pattern: kernel 'performer' sums over all earlier keys at once and can leave none out; take full"


class Performer(BaseModel):
    """The numbers of kernel `performer`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    features: Count


def _layer(given: Any, shared: dict[str, Any]) -> Any:
    """One of `layers` with the settings shared by all; pydantic refuses what is not a mapping."""
    if isinstance(given, AttentionSpec):
        given = given.model_dump()
    if not isinstance(given, dict):
        return given
    if own := [name for name in ("positions", "layers") if name in given and given[name] != shared.get(name)]:
        raise ValueError(f"layers: a layer has no {own[0]} of its own; write it beside `layers`")
    return shared | given


def _refused(owner: type[BaseModel], numbers: dict[str, Any]) -> Iterator[str]:
    """What is wrong with each of the numbers."""
    try:
        owner.model_validate(numbers)
    except ValidationError as error:
        for problem in error.errors():
            yield f"{problem['loc'][0]}: {problem['msg']} (is {reprlib.repr(problem['input'])})"
