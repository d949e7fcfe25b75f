"""One attention variant, validated; imports no torch, so that parameters can be checked at once."""

import hashlib
import inspect
import reprlib
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from headtohead.attention.patterns import PATTERNS, REACH

LOOKED_AT = 1024  # positions whose queries and keys identify a pattern


class AttentionSpec(BaseModel):
    """What a variant computes: `AttentionSpec(kernel="flash", pattern="window", window=64)`.

    Args:
        kernel: `eager` materialises the scores (matmul, softmax, matmul); `flash` is the same function
            by a fused kernel. Which library runs it is not part of the variant.
        positions: `learned`, GPT-2's position embedding, or `alibi`, a linear bias on the scores instead.
        pattern: name of a function in `patterns`; its keyword-only arguments are given beside it.

    Raises:
        pydantic.ValidationError: an unknown name, or a number that the pattern lacks, does not know or refuses.
    """

    # The pattern's own numbers arrive as extra fields and are checked against its signature.
    model_config = ConfigDict(frozen=True, extra="allow")

    kernel: Literal["eager", "flash"] = "eager"
    positions: Literal["learned", "alibi"] = "learned"
    pattern: str = "full"

    @property
    def numbers(self) -> dict[str, Any]:
        """The pattern's own numbers, by name."""
        return dict(self.model_extra or {})

    @property
    def reach(self) -> int | None:
        """How many keys back from its own, that one included, a query can look at most; None without limit."""
        return REACH[self.pattern](**self.numbers) if self.pattern in REACH else None

    def digest(self) -> str:
        """Identifies who sees whom: a pattern that leaves out other keys than before has another one."""
        import numpy as np  # most of those who read parameters do without

        query, key = np.ogrid[:LOOKED_AT, :LOOKED_AT]
        seen = (key <= query) & PATTERNS[self.pattern](query, key, **self.numbers)
        return hashlib.blake2b(np.packbits(seen).tobytes(), digest_size=8).hexdigest()

    @model_validator(mode="after")
    def _numbers_fit_pattern(self) -> Self:
        if self.pattern not in PATTERNS:
            raise ValueError(f"pattern: unknown pattern {self.pattern!r}; there are {', '.join(PATTERNS)}")
        parameters = inspect.signature(PATTERNS[self.pattern]).parameters.values()
        wanted = {p.name: p.annotation for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        if unknown := sorted(self.numbers.keys() - wanted.keys()):
            raise ValueError(f"{unknown[0]}: pattern {self.pattern!r} knows no {', '.join(unknown)}; "
                             f"keys: kernel, positions, pattern{''.join(', ' + name for name in wanted)}")
        if missing := sorted(wanted.keys() - self.numbers.keys()):
            raise ValueError(f"{missing[0]}: pattern {self.pattern!r} needs {', '.join(missing)}")
        for name, annotation in wanted.items():
            _check(name, self.numbers[name], annotation)
        return self


def _check(name: str, number: Any, annotation: Any) -> None:
    try:
        TypeAdapter(annotation).validate_python(number)
    except ValidationError as error:
        raise ValueError(f"{name}: {error.errors()[0]['msg']} (is {reprlib.repr(number)})") from error
