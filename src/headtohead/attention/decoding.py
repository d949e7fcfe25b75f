"""Which state decodes a variant here: the choice for one new query, as `plan` makes it for a whole prompt."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

from headtohead.attention.backends import eager, flex, reference, sdpa
from headtohead.attention.job import BackendError, Capability, Job
from headtohead.attention.plan import LIBRARIES
from headtohead.attention.spec import AttentionSpec
from headtohead.attention.states import Dense, Features, FlashAttn, OneQuery, Recurrent, State

log = logging.getLogger(__name__)

STATES: dict[str, tuple[Capability, Callable[..., State]]] = {
    "one-query": (OneQuery.capability, OneQuery),
    "flash-attn": (FlashAttn.capability, FlashAttn),
    "flex": (flex.capability, partial(Dense, "flex", flex.attend_biased)),
    "sdpa": (sdpa.capability, partial(Dense, "sdpa", sdpa.attend)),
    "eager": (eager.capability, partial(Dense, "eager", eager.attend)),
    "reference": (replace(reference.capability, kernels=frozenset({"eager", "flash"})),
                  partial(Dense, "reference", reference.attend)),
    "performer": (Recurrent.capability, Recurrent),
}


def choose_state(job: Job, backend: str | None = None) -> str:
    """The name of the state to decode with; see `explain_state`."""
    return explain_state(job, backend)[0]


def explain_state(job: Job, backend: str | None = None) -> tuple[str, str]:
    """The name of the state to decode with, and why: the backend asked for, else our own kernel or PyTorch's.

    Args:
        job: one query over a cache.
        backend: a name in `STATES`; a library of fused kernels only applies to variants with kernel flash.

    Raises:
        BackendError: the backend asked for is missing or cannot decode this; the message says why.
    """
    order: list[str]
    if job.spec.kernel != "flash" and (backend is None or backend in LIBRARIES):
        order, why = [job.spec.kernel], f"kernel {job.spec.kernel}"
    elif backend is not None:
        order, why = [backend], "asked for by name"
    else:
        order, why = ["one-query", "sdpa"], "the best that can do it here"
    for name in order:
        reason = STATES[name][0].unsupported(job) if name in STATES else "has no kernel for decoding"
        if reason is None:
            _log_choice(job.spec, str(job.device), str(job.dtype), name, why)
            return name, why
        why += f"; {name} {reason}"
    raise BackendError(f"nothing decodes {job.spec!r} in {job.dtype} on {job.device}: {why}")


@cache
def _log_choice(spec: AttentionSpec, device: str, dtype: str, name: str, why: str) -> None:
    """Log each distinct choice once per process."""
    log.info("decoding %s in %s on %s by %s: %s", spec, dtype, device, name, why)


def state_for(job: Job, layers: int, rows: int, length: int, backend: str | None = None,
              features: Features = None, drafted: int = 0) -> State:
    """The state of `layers` layers that compute `job`, for `rows` sequences of at most `length` tokens.

    Args:
        length: with drafted ones.
        backend: see `choose_state`.
        features: only for kernel performer; by default those of seed 0.
        drafted: how many of the tokens of a pass may be wrong, and are taken back then; see `takes_back`.

    Raises:
        BackendError: see `choose_state`.
    """
    return STATES[choose_state(job, backend)][1](job, layers, rows, length, features, drafted)


def takes_back(spec: AttentionSpec) -> bool:
    """Whether what is kept of a sequence can drop its latest tokens: Performer's sums over all keys cannot."""
    return spec.kernel != "performer"
