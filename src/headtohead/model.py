"""transformers' GPT-2 with an attention variant put in through its attention registry."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import CausalLMOutput

from headtohead.attention.dispatch import Backend, Job, choose
from headtohead.attention.spec import AttentionSpec
from headtohead.data.inputs import pretrained_source
from headtohead.data.prompts import IGNORED
from headtohead.params import Model, Params

ALIGNED = 64  # matrix units want the vocabulary's size to be a multiple of it
REGISTERED = "headtohead"  # the attention implementation's name in transformers' registries
COMPILATIONS = 64  # of one function: a shape or mode each; one more is an error


class ModelError(RuntimeError):
    """A checkpoint that cannot be the model it is asked to be; the message says which and why."""


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Config(GPT2Config):
    """GPT-2's configuration, and the library that runs its fused attention; a checkpoint does not depend on that."""

    attention_backend: str | None = None

    def to_dict(self) -> dict[str, Any]:
        settings = super().to_dict()
        del settings["attention_backend"]  # or it would be saved
        return settings


@dataclass(frozen=True)
class Prepared:
    """What one forward pass hands to each of its layers in place of a mask."""

    spec: AttentionSpec
    backend: Backend
    shared: Any


def _prepare(q_length: int, kv_length: int, attention_mask: Tensor | None, config: GPT2Config,
             dtype: torch.dtype, device: torch.device, **_: Any) -> Prepared:
    """The registry's mask function, called once a forward pass."""
    spec, device = variant_of(config), torch.device(device)
    padding = None if attention_mask is None else _left_padding(attention_mask)
    backend = _backend(config, device, dtype, q_length, kv_length, padding is not None, torch.is_grad_enabled())
    return Prepared(spec, backend, backend.prepare(spec, config.n_head, q_length, kv_length, padding, device))


def _backend(config: GPT2Config, device: torch.device, dtype: torch.dtype, queries: int, keys: int,
             padded: bool, backward: bool) -> Backend:
    if torch.is_autocast_enabled(device.type):  # weights keep their dtype, but queries and keys will not
        dtype = torch.get_autocast_dtype(device.type)
    job = Job(variant_of(config), device, dtype, config.n_embd // config.n_head, queries, keys, padded, backward)
    return choose(job, getattr(config, "attention_backend", None)).backend


def _left_padding(mask: Tensor) -> Tensor | None:
    """How many positions each row [batch, length] leaves out on its left; None where no row does.

    What is left out on the right needs no mask: causality already hides it from every real position.
    """
    mask = mask.to(torch.int)
    first, last = mask.argmax(-1), mask.shape[-1] - 1 - mask.flip(-1).argmax(-1)
    if not torch.equal(mask.sum(-1), last - first + 1):
        raise ValueError("attention_mask may leave out positions only at the ends of a row, and never a whole row")
    return first if bool(first.any()) else None


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Prepared,
               scaling: float, dropout: float = 0.0, **_: Any) -> tuple[Tensor, None]:
    """The registry's attention function: [batch, heads, length, head_dim] in, [batch, length, heads, head_dim] out."""
    if dropout:
        raise ValueError("attention dropout must be 0 (attn_pdrop): the kernels disagree on it")
    prepared = attention_mask
    out = prepared.backend.run(query, key, value, prepared.spec, prepared.shared, scaling)
    return out.transpose(1, 2), None


# Both under one name: with the first alone transformers passes no mask at all, and nothing is causal.
AttentionInterface.register(REGISTERED, _attention)
AttentionMaskInterface.register(REGISTERED, _prepare)


class NoPositions(nn.Module):
    """Stands where the position table was: adds nothing and sets no length limit."""

    def forward(self, position_ids: Tensor) -> Tensor:
        return torch.zeros((), device=position_ids.device)


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

    _keys_to_ignore_on_load_unexpected: ClassVar = [r"transformer\.wpe\.weight"]  # ALiBi has no use for the table
    accepts_loss_kwargs = False  # the loss is a mean within the batch; Trainer divides by accumulation
    _token_losses: Callable[[nn.Linear, Tensor, Tensor], Tensor] = staticmethod(_token_losses)

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        if variant_of(config).positions == "alibi":
            self.transformer.wpe = NoPositions()

    @property
    def variant(self) -> AttentionSpec:
        return variant_of(self.config)

    def backend_for(self, length: int, training: bool = False) -> str:
        """Name of what runs the attention of a pass over `length` tokens, on the model's device and dtype.

        Raises:
            BackendError: nothing can, or not what was asked for.
        """
        return _backend(self.config, self.device, self.dtype, length, length, False, training).name

    @property
    def length_limit(self) -> int | None:
        """The longest sequence in tokens, or None where positions set no limit."""
        return None if self.variant.positions == "alibi" else self.config.n_positions

    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
                position_ids: Tensor | None = None, labels: Tensor | None = None, weights: Tensor | None = None,
                **rest: Any) -> Any:
        """As in transformers, but positions follow the mask, and `weights` makes it the training loss alone.

        Args:
            labels: [batch, length], token ids at their own positions (the loss shifts them), -100 to leave out.
            weights: float [batch, length], each label's weight in the loss; then no logits are returned.
        """
        # transformers numbers positions from the row's start, padding included, unless told otherwise.
        if position_ids is None and attention_mask is not None and input_ids is not None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -input_ids.shape[1]:]
        rest |= {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        if labels is None or weights is None:
            return super().forward(labels=labels, **rest)
        at = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)  # waits for the device, so once
        losses, weight = self._losses(labels, at, **rest), weights[:, 1:][at]
        return CausalLMOutput(loss=(losses * weight).sum() / weight.sum())

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


def compile_for_training(model: GPT2) -> None:
    """Compile a model's blocks and loss in place, for training on CUDA; its parameters keep their names.

    Blocks are alike, so they share one compilation for each shape [batch, length]: give them few. The loss is
    compiled for any number of positions; under autocast its logits never stand in memory as float32.

    Raises (when the model runs):
        FailOnRecompileLimitHit: more than `COMPILATIONS` shapes; torch would go on uncompiled, after a warning.
    """
    torch._dynamo.config.recompile_limit = COMPILATIONS
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for block in model.transformer.h:
        block.compile(dynamic=False)
    model._token_losses = torch.compile(_aligned_losses, dynamic=True)


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


def named_variant(params: Params, name: str) -> AttentionSpec:
    """One of the parameters' variants.

    Raises:
        ModelError: there is none of that name.
    """
    if name not in params.variants:
        raise ModelError(f"params.yaml has no variant {name!r}; there are {', '.join(params.variants)}")
    return params.variants[name]


def build(spec: AttentionSpec, settings: Model, tokenizer: PreTrainedTokenizerBase, max_length: int, seed: int,
          backend: str | None = None) -> GPT2:
    """The model that the parameters describe, before training.

    Args:
        backend: what runs its attention if it has a fused kernel; None leaves it to dispatch.

    Raises:
        ModelError: see `from_pretrained`; or the tokenizer has tokens that the pretrained model lacks.
    """
    if settings.pretrained is not None:
        source = pretrained_source(settings.pretrained)
        model = from_pretrained(spec, source, dropout=settings.dropout, max_length=max_length)
        _check_vocabulary(source, model, tokenizer)
    else:
        model = from_scratch(spec, settings, vocab_size=len(tokenizer), max_length=max_length,
                             end_of_text=tokenizer.eos_token_id, seed=seed)
    model.config.attention_backend = backend
    return model


def from_scratch(spec: AttentionSpec, settings: Model, *, vocab_size: int, max_length: int,
                 end_of_text: int, seed: int) -> GPT2:
    """A GPT-2 with fresh weights; the same seed gives every variant the same ones, but for the position table."""
    torch.manual_seed(seed)
    model = GPT2(Config(
        vocab_size=vocab_size, n_positions=max_length, n_layer=settings.layers, n_embd=settings.width,
        n_head=settings.heads, initializer_range=settings.init_std,
        attn_pdrop=0.0, resid_pdrop=settings.dropout, embd_pdrop=settings.dropout,
        bos_token_id=end_of_text, eos_token_id=end_of_text,
        attention_variant=spec.model_dump(), attn_implementation=REGISTERED))
    if spec.positions == "learned":
        assert settings.position_init_std is not None  # the parameters' validator saw to it
        nn.init.normal_(model.transformer.wpe.weight, std=settings.position_init_std)
    return model


def from_pretrained(spec: AttentionSpec, source: str | Path, *, dropout: float, max_length: int) -> GPT2:
    """A pretrained GPT-2, from the hub or a local folder, with every weight that the variant does not remove.

    Raises:
        ModelError: it cannot be found or read, is no GPT-2, is pickled, weights are missing, or its positions end
            before `max_length`.
    """
    config = _config(source)
    if spec.positions == "learned" and config.n_positions < max_length:
        raise ModelError(f"{source} has {config.n_positions} positions, fewer than tokenizer.max_length {max_length}")
    config.attention_variant = spec.model_dump()
    config.attn_pdrop, config.resid_pdrop, config.embd_pdrop = 0.0, dropout, dropout
    return _checked(source, config)


def load(path: str | Path, backend: str | None = None) -> tuple[GPT2, PreTrainedTokenizerBase]:
    """Model (in eval mode, float32, on the CPU) and tokenizer of a `models/V` folder, with its own variant.

    Args:
        backend: what runs its attention if it has a fused kernel; None leaves it to dispatch.

    Raises:
        ModelError: no such folder, a file in it cannot be read, it names no variant, weights are missing, or the
            tokenizer has tokens that the model lacks.
    """
    if not (Path(path) / "config.json").is_file():  # transformers would look for it on the hub
        raise ModelError(f"{path} is no checkpoint folder: it has no config.json; `dvc repro` makes models/VARIANT")
    config = _config(path)
    variant_of(config, path)
    config.attention_backend = backend
    model = _checked(path, config).eval()
    with _reading(f"{path}/tokenizer.json"):
        tokenizer = AutoTokenizer.from_pretrained(path)
    _check_vocabulary(path, model, tokenizer)
    return model, tokenizer


def check_trained_here(name: str, model: GPT2, tokenizer: PreTrainedTokenizerBase, params: Params,
                       tokenizer_now: PreTrainedTokenizerBase) -> None:
    """Whether models/`name` is what this run's parameters and tokenizer would train.

    Raises:
        ModelError: its variant or its tokenizer is another.
    """
    again = f"`dvc repro train@{name} --force` trains it again"
    if model.variant != (wanted := named_variant(params, name)):
        raise ModelError(f"models/{name} was trained with {_in_words(model.variant)}, but variants.{name} in "
                         f"params.yaml is {_in_words(wanted)}; {again}")
    if _vocabulary(tokenizer) != _vocabulary(tokenizer_now):
        raise ModelError(f"models/{name} was trained with another tokenizer ({len(tokenizer):,} tokens) than "
                         f"data/tokens/tokenizer ({len(tokenizer_now):,} tokens); {again}")


def _in_words(spec: AttentionSpec) -> str:
    return ", ".join(f"{key} {value}" for key, value in spec.model_dump().items())


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, int], str | None]:
    return tokenizer.get_vocab(), tokenizer.init_kwargs.get("separator")


def _check_vocabulary(source: str | Path, model: GPT2, tokenizer: PreTrainedTokenizerBase) -> None:
    if len(tokenizer) > model.config.vocab_size:
        raise ModelError(f"{source}: its tokenizer has {len(tokenizer):,} tokens, but its model embeds only "
                         f"{model.config.vocab_size:,}; put the tokenizer beside it that it was trained with")


@contextmanager
def _reading(file: str) -> Iterator[None]:
    """Name the file; transformers, safetensors and tokenizers raise errors of every type, some without its name."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ModelError(f"{file} cannot be read: {' '.join(str(error).split())}; get the model anew (`dvc repro` "
                         "does so for models/VARIANT)") from error


def _config(source: str | Path) -> Config:
    with _reading(f"{source}/config.json"):
        config = Config.from_pretrained(source)
    if config.model_type != "gpt2":
        raise ModelError(f"{source} is a {config.model_type} model; model.pretrained must name a GPT-2")
    return config


def _checked(source: str | Path, config: Config) -> GPT2:
    """Load weights from safetensors; refuse to go on with any that the checkpoint does not have."""
    folder = Path(source)
    if any(folder.glob("pytorch_model*.bin")) and not any(folder.glob("*.safetensors")):
        raise ModelError(f"{source} holds pickled weights alone, and opening those can run any code; safetensors are "
                         "needed: load it once with transformers and `save_pretrained` it")
    with _reading(f"{source}/model.safetensors"):
        model, report = GPT2.from_pretrained(
            source, config=config, attn_implementation=REGISTERED, dtype=torch.float32, use_safetensors=True,
            output_loading_info=True, ignore_mismatched_sizes=True)  # they are in the report, which says which
    absent = set(report["missing_keys"]) - {"lm_head.weight"}  # tied to the token embedding
    if unfit := sorted(absent | {name for name, *_ in report["mismatched_keys"]}):
        raise ModelError(f"{source} lacks weights that its config.json asks for, or has them in another shape: "
                         f"{', '.join(unfit[:5])}")
    return model
