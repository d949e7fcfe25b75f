"""The work itself, made ready to run again and again: by our engine, by transformers, by the kernels' own libraries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import GPT2Config, GPT2LMHeadModel

from headtohead.attention.job import Job
from headtohead.attention.plan import plan as planned_for
from headtohead.attention.positions import alibi_slopes
from headtohead.attention.spec import AttentionSpec
from headtohead.benchmark.plan import OURS, Architecture, Plan, Point, Task, tasks
from headtohead.inference.engine import Engine
from headtohead.inference.search import generate
from headtohead.models.gpt2 import GPT2, compile_for_training, from_scratch, mixed
from headtohead.params import Model

STD = 0.02  # of GPT-2's fresh weights
LEARNING_RATE = 1e-5  # so small that the weights, and with them the work, stay as they are

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


class BenchmarkError(ValueError):
    """The benchmark cannot run here; the message says what it needs."""


@dataclass(frozen=True)
class Ready:
    """Work to run. backend: what computes attention in it, where that is ours; release: gives back what it holds."""

    run: Callable[[], Any]
    backend: str | None
    release: Callable[[], object]


def check(plan: Plan) -> None:
    """Whether everything that the plan names is installed.

    Raises:
        BenchmarkError: flash-attn is not.
    """
    if any(task.implementation == "flash-attn" for task in tasks(plan)) and find_spec("flash_attn") is None:
        raise BenchmarkError("the benchmark calls flash-attn directly, and it is not installed: "
                             "pip install --no-build-isolation flash-attn (docs/attention.md)")


def ready(task: Task, plan: Plan, device: torch.device) -> Ready:
    """A fresh model and its work, on random tokens; everything but attention alone."""
    point, dtype = task.point, getattr(torch, plan.dtype)
    ids = torch.randint(plan.vocabulary, (point.batch, point.length),
                        generator=torch.Generator().manual_seed(plan.seed)).to(device)
    with torch.device(device):  # so many random weights take seconds on a CPU
        model = (ours(task.variant, task.model, plan) if task.implementation == OURS else
                 theirs(task.implementation, task.model, plan))
    if point.work == "train_step":
        return _training(model, ids, plan)
    model = model.to(dtype).eval()
    return _by_engine(model, ids, point) if isinstance(model, GPT2) else _by_transformers(model, ids, point)


def ours(variant: str, model: Architecture, plan: Plan) -> GPT2:
    """A GPT-2 with the variant inside; random float32 weights, on the current default device."""
    settings = Model(pretrained=None, layers=model.layers, width=model.width, heads=model.heads, init_std=STD,
                     position_init_std=STD, dropout=0.0)
    return from_scratch(plan.variants[variant], settings, vocab_size=plan.vocabulary, max_length=plan.positions,
                        end_of_text=plan.vocabulary - 1, seed=plan.seed)


def theirs(implementation: str, model: Architecture, plan: Plan) -> GPT2LMHeadModel:
    """transformers' own GPT-2, as `ours`."""
    torch.manual_seed(plan.seed)
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=plan.vocabulary, n_positions=plan.positions, n_layer=model.layers, n_head=model.heads,
        n_embd=model.width, initializer_range=STD, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
        bos_token_id=plan.vocabulary - 1, eos_token_id=plan.vocabulary - 1,
        attn_implementation=implementation.removeprefix("transformers-")))


def _by_engine(model: GPT2, ids: Tensor, point: Point) -> Ready:
    # A replayed graph allocates nothing: its peak says nothing, so memory is read without graphs.
    engine = Engine(model, graphs=False if point.work == "peak_memory" else None)
    if point.work == "cache":
        return Ready(partial(engine.cache, point.batch, point.length), engine.decoder, engine.release)
    if point.work == "generate":
        run = partial(generate, engine, ids, max_new_tokens=point.new_tokens, beams=point.beams,
                      no_repeat_ngram=point.no_repeat_ngram)
        return Ready(run, engine.generation_by(point.length), engine.release)
    return Ready(partial(engine.forward, ids), engine.backend_for(point.length), engine.release)


def _by_transformers(model: GPT2LMHeadModel, ids: Tensor, point: Point) -> Ready:
    # As our engine: the logits of the next token alone.
    run = partial(model, input_ids=ids, use_cache=False, logits_to_keep=1) if point.work != "generate" else partial(
        model.generate, ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=point.beams,
        no_repeat_ngram_size=point.no_repeat_ngram, min_new_tokens=point.new_tokens, max_new_tokens=point.new_tokens,
        pad_token_id=0)
    return Ready(run, None, lambda: None)


def _training(model: GPT2 | GPT2LMHeadModel, ids: Tensor, plan: Plan) -> Ready:
    """A step with the loss on every token; our model computes it as in training."""
    model.train()
    backend: str | None = None
    more: dict[str, Any] = {"use_cache": False}
    if isinstance(model, GPT2):
        with mixed(ids.device, plan.dtype):
            backend = model.backend_for(ids.shape[1], training=True)
        more = {"weights": torch.ones_like(ids, dtype=torch.float32)}
        if ids.device.type == "cuda":
            compile_for_training(model)
    step = training_step(model, ids, plan.dtype, lambda model, ids: model(input_ids=ids, labels=ids, **more).loss)
    return Ready(step, backend, lambda: None)


def training_step(model: torch.nn.Module, ids: Tensor, precision: str, loss: Callable[[Any, Tensor], Tensor]
                  ) -> Callable[[], None]:
    """Forward, loss, backward and AdamW's step, fused: the least that any trainer does, and the same for all models."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def step() -> None:
        with mixed(ids.device, precision):
            value = loss(model, ids)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def attention(task: Task, plan: Plan, device: torch.device) -> tuple[Sequence[Attention], str | None]:
    """Attention alone on q, k, v [batch, heads, length, head_dim], and the backend's name where it is ours.

    One for each layer that differs by what the variant says. Masks and slopes are made here, once, as they would be for
    all layers of a pass.
    """
    spec, length = plan.variants[task.variant], task.point.length
    if task.implementation == OURS:
        return _dispatched(spec, task, plan, device)
    return [{"flash-attn": _flash_attn, "flex": _flex, "sdpa": _sdpa}[task.implementation](
        spec, task.model.heads, length, device)], None


def _dispatched(spec: AttentionSpec, task: Task, plan: Plan, device: torch.device
                ) -> tuple[Sequence[Attention], str]:
    model, point = task.model, task.point
    layers = [planned_for(Job(layer, device, getattr(torch, plan.dtype), model.heads, model.width // model.heads,
                              point.length, point.length, backward=point.work == "attention_backward",
                              batch=point.batch)) for layer in spec.depth(len(spec.layers) or 1)]
    return layers, " + ".join(dict.fromkeys(planned.backend for planned in layers))


def _flash_attn(spec: AttentionSpec, heads: int, length: int, device: torch.device) -> Attention:
    """Its window (left, right) is how many keys beside the query's own; it takes [batch, length, heads, head_dim]."""
    form = spec.visibility.form
    assert form is not None  # or `takes` had said no
    window = (-1, -1) if form.window is None else (form.window - 1, 0)
    slopes = alibi_slopes(heads).to(device) if spec.positions == "alibi" else None
    call = partial(import_module("flash_attn").flash_attn_func, causal=True, window_size=window, alibi_slopes=slopes)
    return lambda q, k, v: call(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def _flex(spec: AttentionSpec, heads: int, length: int, device: torch.device) -> Attention:
    pattern, slopes = spec.layer(0).visibility, alibi_slopes(heads).to(device)

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & pattern.sees(query, key)

    def biased(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score - slopes[head] * (query - key)

    mask = create_block_mask(seen, None, None, length, length, device=device)
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    return partial(compiled, score_mod=biased if spec.positions == "alibi" else None, block_mask=mask)


def _sdpa(spec: AttentionSpec, heads: int, length: int, device: torch.device) -> Attention:
    return partial(scaled_dot_product_attention, is_causal=True)


def queries_keys_values(task: Task, plan: Plan, device: torch.device, gradients: bool) -> list[Tensor]:
    """Random q, k, v [batch, heads, length, head_dim], lying in memory as GPT-2's one projection leaves them."""
    torch.manual_seed(plan.seed)
    model, point = task.model, task.point
    shape = (point.batch, point.length, 3, model.heads, model.width // model.heads)
    projected = torch.randn(shape, device=device, dtype=getattr(torch, plan.dtype))
    return [part.transpose(1, 2).detach().requires_grad_(gradients) for part in projected.unbind(2)]
