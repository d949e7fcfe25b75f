"""Who may see whom. A pattern is one function; its keyword-only arguments are its numbers in params.yaml.

Each takes the positions of queries and keys (integer tensors that broadcast against each other, or plain
integers; 0 is a sequence's first token) and says where the key may be seen. Causality is added for all of
them in one place (`masks.visible_at`), so a pattern speaks only of what it leaves out.
"""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


def full(query: Any, key: Any) -> Any:
    """Every key up to the query's own."""
    return key <= query


def window(query: Any, key: Any, *, window: Count) -> Any:
    """The last `window` keys: the query's own and the window-1 before it."""
    return query - key < window


PATTERNS: dict[str, Callable[..., Any]] = {pattern.__name__: pattern for pattern in (full, window)}

# How many keys back from its own, that one included, a query can look at most; no limit for a pattern that is not here.
REACH: dict[str, Callable[..., int]] = {"window": lambda *, window: window}
