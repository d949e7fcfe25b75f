"""Who may see whom. A pattern is one class: its fields are its numbers in params.yaml, and its methods say what it
sees, what a decoder must keep, how many pairs there are, and which form it has that kernels are built for.

Positions are integers, or integer tensors that broadcast against each other (torch or numpy); 0 is a sequence's first
token. Causality is added for all patterns in one place (`masks.visible_at`), so `sees` only says what a pattern leaves
out. Imports no torch, so that parameters are checked at once.
"""

from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Blocks = Annotated[int, Field(ge=0, le=10_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

PATTERNS: dict[str, type["Pattern"]] = {}  # by name; a class adds itself


class Form(NamedTuple):
    """What a pattern consists of, in the terms that kernels are built for; defaults ask for nothing.

    Args:
        window: how many of the last keys are seen, including the query's own; of others, only `first` and `stride`.
        first: how many leading keys all later queries see.
        block: the size of the blocks, if a query sees only its own block.
        stride: the distance between the keys that are seen before the window.
    """

    window: int | None = None
    first: int = 0
    block: int | None = None
    stride: int | None = None

    @property
    def parts(self) -> frozenset[str]:
        """Names of what it asks for; empty for full attention."""
        return frozenset(name for name, number in self._asdict().items() if number)


class Kept(NamedTuple):
    """How many of a sequence's first and last keys a decoder must keep."""

    first: int
    last: int


class Pattern(BaseModel):
    """A pattern and its numbers. params.yaml can name every subclass, unless it is declared with named=False.

    A subclass defines `sees`. The other methods have defaults that hold for any pattern: all keys are kept, pairs are
    counted one by one, and kernels that are built for a form do not take it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: ClassVar[str] = ""
    drawn: ClassVar[tuple[str, ...]] = ()  # the numbers from which it draws at random

    def __init_subclass__(cls, named: bool = True, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.name = cls.__name__.lower()
        if named:
            PATTERNS[cls.name] = cls

    def sees(self, query: Any, key: Any) -> Any:
        """Whether the query at one position may see the key at another that is not later."""
        raise NotImplementedError

    def keeps(self, length: int) -> Kept:
        """What later queries may still see of a sequence of at most `length` tokens."""
        return Kept(0, length)

    def count(self, query: int) -> int:
        """How many keys the query at a position sees."""
        import numpy as np  # most readers of parameters do not need it

        return int(np.count_nonzero(self.sees(query, np.arange(query + 1))))

    def pairs(self, queries: int, keys: int) -> int:
        """How many pairs of query and key are visible, for the last `queries` of `keys` positions."""
        return sum(map(self.count, range(keys - queries, keys)))

    @property
    def form(self) -> Form | None:
        """Its form, for kernels that are built for one; None if it has no such form."""
        return None

    @property
    def grain(self) -> int | None:
        """The size of blocks of queries and keys that are either all visible or not at all; None if there are none."""
        return None

    def in_layer(self, index: int) -> Self:
        """The pattern in one layer of a model: the same, except for patterns that draw at random."""
        return self

    def draw(self, axes: Any, length: int) -> None:
        """Draw who sees whom onto matplotlib `axes`: queries downwards, keys to the right."""
        import numpy as np

        query, key = np.ogrid[:length, :length]
        seen = np.broadcast_to((key <= query) & self.sees(query, key), (length, length))
        axes.imshow(np.where(seen, 1.0, np.where(key <= query, 0.12, 0.0)), cmap="Blues", vmin=0, vmax=1,
                    interpolation="none", aspect="equal")
        axes.set(xticks=[], yticks=[])


class Full(Pattern):
    """Every key up to the query's own."""

    def sees(self, query: Any, key: Any) -> Any:
        return key <= query

    def count(self, query: int) -> int:
        return query + 1

    @property
    def form(self) -> Form:
        return Form()


class Window(Pattern):
    """The last `window` keys: the query's own and the window-1 before it."""

    window: Count

    def sees(self, query: Any, key: Any) -> Any:
        return query - key < self.window

    def keeps(self, length: int) -> Kept:
        return Kept(0, min(self.window, length))

    def count(self, query: int) -> int:
        return min(query + 1, self.window)

    @property
    def form(self) -> Form:
        return Form(window=self.window)


class Strided(Pattern):
    """The last `stride` keys, and every stride-th before them, counted back from the query (Child et al. 2019)."""

    stride: Count

    def sees(self, query: Any, key: Any) -> Any:
        return (query - key < self.stride) | ((query - key) % self.stride == 0)

    def count(self, query: int) -> int:
        return min(query + 1, self.stride) + query // self.stride * (self.stride > 1)

    @property
    def form(self) -> Form:
        return Form(window=self.stride, stride=self.stride)


class Block(Pattern):
    """The keys in the query's own block of `block` keys."""

    block: Count

    def sees(self, query: Any, key: Any) -> Any:
        return query // self.block == key // self.block

    def keeps(self, length: int) -> Kept:
        return Kept(0, min(self.block, length))

    def count(self, query: int) -> int:
        return query % self.block + 1

    @property
    def form(self) -> Form:
        return Form(block=self.block)

    @property
    def grain(self) -> int:
        return self.block


class Longformer(Pattern):
    """A window, and the first `globals` keys, which everyone sees (Beltagy et al. 2020, in a causal decoder).

    A few globals are what Xiao et al. 2023 call attention sinks.
    """

    window: Count
    globals: Count

    def sees(self, query: Any, key: Any) -> Any:
        return (query - key < self.window) | (key < self.globals)

    def keeps(self, length: int) -> Kept:
        first = min(self.globals, length)
        return Kept(first, min(self.window, length - first))

    def count(self, query: int) -> int:
        return min(query + 1, self.window + self.globals)

    @property
    def form(self) -> Form:
        return Form(window=self.window, first=self.globals)


class BigBird(Pattern):
    """Blocks of `block` keys (Zaheer et al. 2020, in a causal decoder): the query's own and the window_blocks-1 before
    it, the first `global_blocks`, and `random_blocks` of those in between, which differ from layer to layer.

    The blocks in between are divided into as many equal parts, and one is drawn from each, so that they are spread
    out. Only integer arithmetic derives them from the seed, so they are the same on every machine and backend.
    """

    block: Count
    window_blocks: Count
    global_blocks: Blocks
    random_blocks: Blocks
    seed: Seed = 0

    drawn = ("seed",)

    def sees(self, query: Any, key: Any) -> Any:
        at, other = query // self.block, key // self.block
        seen = (at - other < self.window_blocks) | (other < self.global_blocks)
        between = at + 1 - self.window_blocks - self.global_blocks
        between = between * (between > 0)
        for part in range(self.random_blocks):
            start, end = part * between // self.random_blocks, (part + 1) * between // self.random_blocks
            size = end - start
            drawn = self.global_blocks + start + _mixed(self.seed, at, part) % (size + (size == 0))
            seen = seen | ((other == drawn) & (size > 0))
        return seen

    def count(self, query: int) -> int:
        before = query // self.block
        near = min(before, self.window_blocks - 1)
        leading = min(before - near, self.global_blocks)
        drawn = min(before - near - leading, self.random_blocks)
        return (near + leading + drawn) * self.block + query % self.block + 1

    @property
    def grain(self) -> int:
        return self.block

    def in_layer(self, index: int) -> Self:
        return self.model_copy(update={"seed": (self.seed + 40_503 * index) % 2**32})


def _mixed(seed: int, at: Any, part: int) -> Any:
    """A pseudo-random number below 2^16 from three; all intermediate values fit in 32 bits, as GPUs need."""
    number = (at + (seed ^ seed >> 16)) & 0xFFFF
    for step in (part + 1, 2 * part + 1):
        number = ((number ^ number >> 7) * 0x6D2B + step * 0x3C6F) & 0xFFFF
    return number ^ number >> 9
