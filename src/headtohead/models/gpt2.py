"""transformers' GPT-2 with an attention variant put in through its attention registry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.modeling_outputs import CausalLMOutput

from headtohead.attention.favor import orthogonal_features
from headtohead.attention.job import Job
from headtohead.attention.plan import Plan, named, plan
from headtohead.attention.spec import AttentionSpec
from headtohead.attention.table import Table
from headtohead.models.batches import IGNORED
from headtohead.models.card import card
from headtohead.params import Model

ALIGNED = 64  # matrix units want the vocabulary's size to be a multiple of it
REGISTERED = "headtohead"  # the attention implementation's name in transformers' registries
# What transformers calls the same function: GELU by tanh (Hendrycks, Gimpel 2016).
TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")
COMPILATIONS = 64  # of one kind of layers: a shape or mode each; one more is an error


class ModelError(RuntimeError):
    """A checkpoint that cannot be the model it is asked to be; the message says which and why."""


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Config(GPT2Config):
    """GPT-2's configuration with what makes it one of ours.

    Args:
        attention_variant: the `AttentionSpec`, as a dictionary.
        training: what the model was trained from, as `card.origin` has it; None if that was not written down.
        trained_on: the device of the training, its threads on a CPU and what ran its attention; None if that was not
            written down.
        attention_backend: the library that runs its fused attention; not saved, a checkpoint does not depend on it.
        attention_table: what was measured on this machine, for the inference engine to choose by; not saved either.
    """

    model_type = "headtohead_gpt2"
    attention_variant: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    trained_on: dict[str, Any] | None = None
    attention_backend: str | None = None
    attention_table: Table | None = None

    def to_dict(self) -> dict[str, Any]:
        settings = super().to_dict()
        del settings["attention_backend"], settings["attention_table"]  # or they would be saved
        return settings


@dataclass(frozen=True)
class Plans:
    """What one forward pass hands to each of its layers in place of a mask: a plan for each kind of layers."""

    of_kind: tuple[Plan, ...]


def _prepare(batch_size: int, q_length: int, kv_length: int, attention_mask: Tensor | None, config: GPT2Config,
             dtype: torch.dtype, device: torch.device, **_: Any) -> Plans:
    """The registry's mask function, called once a forward pass."""
    padding = None if attention_mask is None else _left_padding(attention_mask)
    jobs = _jobs(config, torch.device(device), dtype, q_length, kv_length, padding is not None,
                 torch.is_grad_enabled(), batch_size)
    return Plans(tuple(plan(job, padding, config.attention_backend) for job in jobs))


def _jobs(config: GPT2Config, device: torch.device, dtype: torch.dtype, queries: int, keys: int,
          padded: bool, backward: bool, batch: int = 1) -> list[Job]:
    """One for each kind of layers."""
    if torch.is_autocast_enabled(device.type):  # weights keep their dtype, but queries and keys will not
        dtype = torch.get_autocast_dtype(device.type)
    return [Job(spec, device, dtype, config.n_head, config.n_embd // config.n_head, queries, keys, padded, backward,
                scale, batch) for spec, scale in kinds_of(config)]


def layers_of(config: GPT2Config) -> list[tuple[AttentionSpec, float]]:
    """What each layer computes, and what it multiplies scores by."""
    scale = float((config.n_embd // config.n_head) ** -0.5) if config.scale_attn_weights else 1.0
    by_layer = config.scale_attn_by_inverse_layer_idx
    return [(spec, scale / (index + 1) if by_layer else scale)
            for index, spec in enumerate(variant_of(config).depth(config.n_layer))]


def kinds_of(config: GPT2Config) -> list[tuple[AttentionSpec, float]]:
    """`layers_of`, each once: layers of one kind share masks, compiled code and memory."""
    return list(dict.fromkeys(layers_of(config)))


def features_of(model: "GPT2") -> list[tuple[Tensor, ...]]:
    """Each layer's random features, float32 [features, head_dim], if it is a Performer's."""
    return [_features(block.attn) for block in model.transformer.h]


def _features(module: nn.Module) -> tuple[Tensor, ...]:
    own = getattr(module, "features", None)
    return () if own is None else (own.projection,)


def _left_padding(mask: Tensor) -> Tensor | None:
    """How many positions each row [batch, length] leaves out on its left; None if none does.

    What is left out on the right needs no mask: causality already hides it from every real position.
    """
    mask = mask.to(torch.int)
    first, last = mask.argmax(-1), mask.shape[-1] - 1 - mask.flip(-1).argmax(-1)
    if not torch.equal(mask.sum(-1), last - first + 1):
        raise ValueError("attention_mask may leave out positions only at the ends of a row, and never a whole row")
    return first if bool(first.any()) else None


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Plans,
               scaling: float, dropout: float = 0.0, **_: Any) -> tuple[Tensor, None]:
    """The registry's attention function: [batch, heads, length, head_dim] in, [batch, length, heads, head_dim] out."""
    if dropout:
        raise ValueError("attention dropout must be 0 (attn_pdrop): the kernels disagree on it")
    kind: Any = module.kind
    return attention_mask.of_kind[kind](query, key, value, *_features(module)).transpose(1, 2), None


# Both under one name: with the first alone transformers passes no mask at all, and nothing is causal.
AttentionInterface.register(REGISTERED, _attention)
AttentionMaskInterface.register(REGISTERED, _prepare)


class NoPositions(nn.Module):
    """Stands where the position table was: adds nothing and sets no length limit."""

    def forward(self, position_ids: Tensor) -> Tensor:
        return torch.zeros((), device=position_ids.device)


class RandomFeatures(nn.Module):
    """A Performer layer's projection: float32 [features, head_dim] in a model of any dtype, drawn once, not trained."""

    projection: Tensor

    def __init__(self, features: int, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("projection", torch.zeros(features, head_dim))

    def draw(self, seed: int) -> None:
        features, head_dim = self.projection.shape
        self.projection.copy_(orthogonal_features(features, head_dim, seed))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RandomFeatures":
        self.projection = self.projection.to(fn(self.projection).device)  # and not to another dtype
        return self


def _token_losses(head: nn.Linear, hidden: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood (nats) of labels [tokens] after hidden states [tokens, width]."""
    return nn.functional.cross_entropy(head(hidden).float(), labels, reduction="none")


def _aligned_losses(head: nn.Linear, hidden: Tensor, labels: Tensor) -> Tensor:
    """The same for matrix units: over a vocabulary of 50,257 gradients take five times as long as over 50,304."""
    size = head.out_features
    padded = nn.functional.pad(head.weight, (0, 0, 0, -size % ALIGNED))
    logits = nn.functional.linear(hidden, padded).float()
    beyond = torch.arange(len(padded), device=logits.device) >= size
    return nn.functional.cross_entropy(logits.masked_fill(beyond, -torch.inf), labels, reduction="none")


class GPT2(GPT2LMHeadModel):
    """GPT-2 with the variant in `config.attention_variant`; a plain GPT-2 checkpoint loads into it unchanged."""

    config_class = Config
    continuations: Tensor | None = None  # what summaries go on with after each token, for prompt lookup
    # ALiBi has no use for the table; old checkpoints hold parts of the causal mask.
    _keys_to_ignore_on_load_unexpected: ClassVar = [r"wpe\.weight$", r"attn\.(masked_)?bias$"]
    accepts_loss_kwargs = True  # Trainer says what to divide the loss by, and does not divide it again
    _token_losses: Callable[[nn.Linear, Tensor, Tensor], Tensor] = staticmethod(_token_losses)

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        if variant_of(config).positions != "learned":
            self.transformer.wpe = NoPositions()
        layers, kinds = layers_of(config), kinds_of(config)
        for block, layer in zip(self.transformer.h, layers, strict=True):
            block.attn.kind = kinds.index(layer)
            if layer[0].kernel == "performer":
                block.attn.features = RandomFeatures(layer[0].numbers["features"], block.attn.head_dim)
        if config.activation_function in TANH_GELU:
            for block in self.transformer.h:
                block.mlp.act = nn.GELU(approximate="tanh")  # one operation where transformers has eight

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """transformers' question which implementation to use: the variant's, and no other computes the same.

        Raises:
            ValueError: another is asked for.
        """
        if requested_attention not in (None, REGISTERED):
            raise ValueError(f"attn_implementation {requested_attention!r}: this model's attention is its variant's "
                             f"({REGISTERED!r}); leave it out")
        return REGISTERED

    def save_pretrained(self, save_directory: str | Path, **rest: Any) -> None:
        """As in transformers, with a model card."""
        super().save_pretrained(save_directory, **rest)
        Path(save_directory, "README.md").write_text(card(self.config, self.variant), encoding="utf-8")

    def draw_features(self, seed: int) -> None:
        """Draw the random features of all Performer layers, other ones for each layer and seed."""
        for index, block in enumerate(self.transformer.h):
            if hasattr(block.attn, "features"):
                block.attn.features.draw(seed * self.config.n_layer + index)

    @property
    def variant(self) -> AttentionSpec:
        return variant_of(self.config)

    def backend_for(self, length: int, training: bool = False, device: torch.device | None = None) -> str:
        """Name of what runs the attention of a pass over `length` tokens, in the model's dtype.

        Args:
            device: by default the model's.

        Raises:
            BackendError: nothing can, or not what was asked for.
        """
        return named(_jobs(self.config, device or self.device, self.dtype, length, length, False, training),
                     self.config.attention_backend)

    @property
    def length_limit(self) -> int | None:
        """The longest sequence in tokens, or None if positions set no limit."""
        return self.config.n_positions if self.variant.positions == "learned" else None

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
                position_ids: Tensor | None = None, labels: Tensor | None = None, weights: Tensor | None = None,
                total: Tensor | float | None = None, **rest: Any) -> Any:
        """As in transformers, but positions follow the mask, and `weights` makes it the training loss alone.

        Args:
            labels: [batch, length], token ids at their own positions (the loss shifts them), -100 to leave out.
            weights: float [batch, length], each label's weight in the loss; then no logits are returned.
            total: what the weighted sum is divided by: the weight of a whole step, of which this batch may be a
                part. By default the batch's own weight, which makes the loss a mean.
        """
        # transformers numbers positions from the row's start, padding included, unless told otherwise.
        if position_ids is None and attention_mask is not None and input_ids is not None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -input_ids.shape[1]:]
        rest |= {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        if labels is None or weights is None:
            return super().forward(labels=labels, **rest)
        at = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)  # waits for the device, so once
        losses, weight = self._losses(labels, at, **rest), weights[:, 1:][at]
        return CausalLMOutput(loss=(losses * weight).sum() / (weight.sum() if total is None else total))

    def summary_losses(self, input_ids: Tensor, labels: Tensor) -> list[tuple[float, int]]:
        """For each row [batch, length], the mean negative log-likelihood (nats) of its labels and how many count."""
        labels = labels.to(self.device)
        counted = labels[:, 1:] != IGNORED
        losses = self._losses(labels, counted.nonzero(as_tuple=True), input_ids=input_ids.to(self.device))
        tokens = counted.sum(1).tolist()
        return [(row.mean().item(), n) for row, n in zip(torch.split(losses, tokens), tokens, strict=True)]

    def _losses(self, labels: Tensor, at: tuple[Tensor, ...], **inputs: Tensor | None) -> Tensor:
        """Negative log-likelihood [counted] of the labels that count, at rows and columns `at` of labels[:, 1:].

        The vocabulary's logits are computed at those positions alone: most of a sequence is article.
        """
        hidden = self.transformer(**inputs, use_cache=False).last_hidden_state[:, :-1]
        return self._token_losses(self.lm_head, hidden[at], labels[:, 1:][at])


AutoConfig.register(Config.model_type, Config)
AutoModelForCausalLM.register(Config, GPT2)


def compile_for_training(model: GPT2) -> None:
    """Compile a model's blocks and loss in place, for training on CUDA; its parameters keep their names.

    Blocks of one kind share one compilation for each shape [batch, length]: give them few. The loss is
    compiled for any number of positions; under autocast its logits never stand in memory as float32.

    Raises (when the model runs):
        FailOnRecompileLimitHit: more than `COMPILATIONS` shapes of a kind; torch would go on uncompiled with a warning.
    """
    torch._dynamo.config.recompile_limit = COMPILATIONS * len(kinds_of(model.config))
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._dynamo.config.optimize_ddp = False  # it splits what is compiled by gradients' buckets, as blocks already do
    for block in model.transformer.h:
        block.compile(dynamic=False)
    model._token_losses = torch.compile(_aligned_losses, dynamic=True)


def mixed(device: torch.device, precision: str) -> torch.autocast:
    """How training computes: precision bfloat16 is bfloat16 products on float32 weights."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def variant_of(config: GPT2Config, source: str | Path = "this model") -> AttentionSpec:
    """The variant that a configuration holds; `source` is what messages call it.

    Raises:
        ModelError: it holds none, or one that there is not.
    """
    settings = getattr(config, "attention_variant", None)
    if settings is None:
        raise ModelError(f"{source} names no attention variant in its config.json")
    try:
        return AttentionSpec.model_validate(settings)
    except ValidationError as error:
        raise ModelError(f"{source}: attention_variant in its config.json: {error.errors()[0]['msg']}") from error


def from_scratch(spec: AttentionSpec, settings: Model, *, vocab_size: int, max_length: int,
                 end_of_text: int, seed: int) -> GPT2:
    """A GPT-2 with fresh weights; the same seed gives every variant the same ones, but for the position table."""
    torch.manual_seed(seed)
    model = GPT2(Config(
        vocab_size=vocab_size, n_positions=max_length, n_layer=settings.layers, n_embd=settings.width,
        n_head=settings.heads, initializer_range=settings.init_std,
        attn_pdrop=0.0, resid_pdrop=settings.dropout, embd_pdrop=settings.dropout,
        bos_token_id=end_of_text, eos_token_id=end_of_text,
        attention_variant=spec.model_dump()))
    if spec.positions == "learned":
        assert settings.position_init_std is not None  # the parameters' validator saw to it
        nn.init.normal_(model.transformer.wpe.weight, std=settings.position_init_std)
    model.draw_features(seed)
    return model
