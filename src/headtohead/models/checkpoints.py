"""Models as the parameters describe them, from folders and the hub; mismatched parts are refused."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from headtohead.attention.spec import AttentionSpec
from headtohead.inputs import pretrained_source
from headtohead.models.card import in_words
from headtohead.models.gpt2 import GPT2, Config, ModelError, from_scratch, variant_of
from headtohead.models.pretrained import read_settings, unsupported
from headtohead.params import Model, Params
from headtohead.paths import Run
from headtohead.tokens.continuations import read_continuations

# What config.json may say about how a model is called, which is up to the caller here.
OF_THE_CALLER = ("model_type", "attn_implementation", "output_attentions", "output_hidden_states", "return_dict")
PART_OF_GPT2 = re.compile(r"(^|\.)(h\.\d+|wte|ln_f|lm_head)\.")  # and not the head of another task


def named_variant(params: Params, name: str) -> AttentionSpec:
    """One of the parameters' variants.

    Raises:
        ModelError: there is none with that name.
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
        model = from_pretrained(spec, source, dropout=settings.dropout, max_length=max_length, seed=seed)
        _check_vocabulary(source, model, tokenizer)
    else:
        model = from_scratch(spec, settings, vocab_size=len(tokenizer), max_length=max_length,
                             end_of_text=tokenizer.eos_token_id, seed=seed)
    model.config.attention_backend = backend
    _end_with(model, tokenizer)
    return model


def _end_with(model: GPT2, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let transformers' `generate` end where training does, and drop the pretrained model's own settings for it."""
    end = tokenizer.eos_token_id
    model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id = tokenizer.bos_token_id, end, None
    model.generation_config = GenerationConfig(bos_token_id=tokenizer.bos_token_id, eos_token_id=end, pad_token_id=end)


def from_pretrained(spec: AttentionSpec, source: str | Path, *, dropout: float, max_length: int, seed: int = 0) -> GPT2:
    """A pretrained GPT-2, from the hub or a local folder, with every weight that the variant does not remove.

    Args:
        seed: of the random features that a Performer adds.

    Raises:
        ModelError: it cannot be found or read, is no GPT-2, is pickled, weights are missing, or its positions end
            before `max_length`.
    """
    config = _config(source)
    if spec.positions == "learned" and config.n_positions < max_length:
        raise ModelError(f"{source} has {config.n_positions} positions, fewer than tokenizer.max_length {max_length}")
    config.attention_variant = spec.model_dump()
    config.attn_pdrop, config.resid_pdrop, config.embd_pdrop = 0.0, dropout, dropout
    model = _checked(source, config, drawn=True)
    model.draw_features(seed)
    return model


def load(path: str | Path, backend: str | None = None) -> tuple[GPT2, PreTrainedTokenizerBase]:
    """Model (in eval mode, float32, on the CPU) and tokenizer of a `models/V/S` folder, with its own variant.

    Args:
        backend: what runs its attention if it has a fused kernel; None leaves it to dispatch.

    Raises:
        ModelError: no such folder, a file in it cannot be read, it names no variant, weights are missing, or the
            tokenizer has tokens that the model lacks.
        DataError: its table of continuations is damaged.
    """
    if not (Path(path) / "config.json").is_file():  # transformers would look for it on the hub
        raise ModelError(f"{path} is no checkpoint folder: it has no config.json; `dvc repro` makes "
                         "models/VARIANT/SEED")
    config = _config(path)
    variant_of(config, path)
    config.attention_backend = backend
    model = _checked(path, config).eval()
    with _reading(f"{path}/tokenizer.json"):
        tokenizer = AutoTokenizer.from_pretrained(path)
    _check_vocabulary(path, model, tokenizer)
    model.continuations = read_continuations(Path(path), model.config.vocab_size)
    return model, tokenizer


def check_trained_here(run: Run, model: GPT2, tokenizer: PreTrainedTokenizerBase, params: Params,
                       tokenizer_now: PreTrainedTokenizerBase) -> None:
    """Check that the run's model is what these parameters and this tokenizer would train.

    Raises:
        ModelError: its variant or its tokenizer differs.
    """
    again = f"`dvc repro train@{run} --force` trains it again"
    if model.variant != (wanted := named_variant(params, run.variant)):
        raise ModelError(f"{run.model} was trained with {in_words(model.variant)}, but variants.{run.variant} in "
                         f"params.yaml is {in_words(wanted)}; {again}")
    if vocabulary(tokenizer) != vocabulary(tokenizer_now):
        raise ModelError(f"{run.model} was trained with another tokenizer ({len(tokenizer):,} tokens) than "
                         f"data/tokens/tokenizer ({len(tokenizer_now):,} tokens); {again}")


def vocabulary(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, int], str | None]:
    """What must be the same for two tokenizers to write the same ids."""
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
        raise ModelError(f"{file} cannot be read: {' '.join(str(error).split())}; get the model again (`dvc repro` "
                         "does so for models/VARIANT/SEED)") from error


def _config(source: str | Path) -> Config:
    with _reading(f"{source}/config.json"):
        settings, generation = read_settings(Path(source))
    if reason := unsupported(settings, generation):
        raise ModelError(f"{source}: {reason}")
    with _reading(f"{source}/config.json"):
        return Config(**{name: value for name, value in settings.items() if name not in OF_THE_CALLER})


def _checked(source: str | Path, config: Config, drawn: bool = False) -> GPT2:
    """Load weights from safetensors; refuse a checkpoint that lacks any.

    Args:
        drawn: whether random features, which a plain GPT-2 does not have, are drawn later.
    """
    folder = Path(source)
    if any(folder.glob("pytorch_model*.bin")) and not any(folder.glob("*.safetensors")):
        raise ModelError(f"{source} holds pickled weights alone, and opening those can run any code; safetensors are "
                         "needed: load it once with transformers and `save_pretrained` it")
    with _reading(f"{source}/model.safetensors"):
        model, report = GPT2.from_pretrained(
            source, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True,
            ignore_mismatched_sizes=True)  # they are in the report, which says which
    missing = {name for name in report["missing_keys"] if not (drawn and name.endswith(".features.projection"))}
    if unfit := sorted({*missing, *(name for name, *_ in report["mismatched_keys"])}):
        raise ModelError(f"{source} lacks weights that its config.json asks for, or has them in another shape: "
                         f"{', '.join(unfit[:5])}")
    if unused := sorted(name for name in report["unexpected_keys"] if PART_OF_GPT2.search(name)):
        raise ModelError(f"{source} has weights that its config.json does not ask for: {', '.join(unused[:5])}")
    # A stored head that differs from the embedding is a head of its own, whatever config.json says.
    model.config.tie_word_embeddings = model.lm_head.weight is model.transformer.wte.weight
    return model
