"""What a pretrained GPT-2's settings may say; imports no torch, so that `fingerprint` can refuse others quickly."""

import json
from pathlib import Path
from typing import Any

from headtohead.inputs import settings_folder
from headtohead.params import BRIEF
from headtohead.records import DataError

MODEL_TYPES = ("gpt2", "headtohead_gpt2")
ACTIVATIONS = ("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh",
               "gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu",
               "relu", "relu2", "relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh", "xielu")

# Settings in config.json that would make it a different model or run other code.
UNSUPPORTED = ("add_cross_attention", "auto_map", "gradient_checkpointing", "is_encoder_decoder", "per_layer_config",
               "pruned_heads", "quantization_config")

# Generation settings that change the tokens of greedy and beam search, with the values that leave them unchanged.
# Without those that `generate` in params.yaml decides (length, beams, repeats), and those that only sampling reads.
SEARCH = {"bad_words_ids": [], "begin_suppress_tokens": [], "constraints": [], "diversity_penalty": 0,
          "dola_layers": None, "early_stopping": False, "encoder_no_repeat_ngram_size": 0,
          "encoder_repetition_penalty": 1, "exponential_decay_length_penalty": None, "force_words_ids": [],
          "forced_bos_token_id": None, "forced_eos_token_id": None, "guidance_scale": 1, "length_penalty": 1,
          "min_length": 0, "min_new_tokens": 0, "num_beam_groups": 1, "penalty_alpha": 0, "renormalize_logits": False,
          "repetition_penalty": 1, "sequence_bias": {}, "stop_strings": [], "suppress_tokens": [],
          "token_healing": False, "watermarking_config": None}


def check_pretrained(pretrained: str) -> None:
    """Refuse a pretrained model by its settings, before any work.

    Those of a model on the hub are checked if they can be downloaded; if not, `tokenize` says why.

    Raises:
        DataError: a file of settings cannot be read, or says what is not supported.
    """
    folder = settings_folder(pretrained)
    if folder is None:
        return
    try:
        reason = unsupported(*read_settings(folder))
    except (OSError, ValueError) as error:
        reason = f"its settings cannot be read: {error}"
    if reason:
        raise DataError(f"model.pretrained {pretrained}: {reason}")


def read_settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model's own settings and those of its generation, which may be in a separate file.

    Raises:
        OSError: there is no config.json, or a file cannot be opened.
        ValueError: a file holds no JSON object.
    """
    config, generation = folder / "config.json", folder / "generation_config.json"
    return _object(config), _object(generation if generation.exists() else config)


def _object(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    return settings


def unsupported(config: dict[str, Any], generation: dict[str, Any]) -> str | None:
    """What a model's settings ask for that is not supported, in words; None if they can be honoured."""
    if (kind := config.get("model_type")) not in MODEL_TYPES:
        return f"is a {kind} model; model.pretrained must name a GPT-2"
    if (activation := config.get("activation_function", "gelu_new")) not in ACTIVATIONS:
        return f"its activation_function is {activation!r}; there are {', '.join(ACTIVATIONS)}"
    refused = {name: config[name] for name in UNSUPPORTED if config.get(name)}
    refused |= {name: generation[name] for name, off in SEARCH.items() if generation.get(name) not in (None, off)}
    if refused:
        said = ", ".join(f"{name} {BRIEF.repr(value)}" for name, value in refused.items())
        return f"its settings ask for {said}, which is not supported; take it out of a copy of the model's folder"
    return None
