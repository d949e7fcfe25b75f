"""The model card of a checkpoint folder: what the model is, what it was trained from, and how to load it."""

from pathlib import Path
from typing import Any

from transformers import GPT2Config

from headtohead.attention.spec import AttentionSpec
from headtohead.params import Data, Params
from headtohead.paths import Run

CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [summarization, headtohead]
---
# GPT-2 summarizer{name}

A GPT-2 that continues an article with its summary. Its attention is one of Head-to-Head's variants, which transformers'
own GPT-2 does not have.

{table}

## Load it

```python
import headtohead

model, tokenizer = headtohead.load("path/to/this/folder")
```

After `import headtohead`, transformers' `AutoModelForCausalLM.from_pretrained` gives the same model. Without it,
transformers says that it does not know the model type `{model_type}`.
"""


def origin(params: Params, run: Run, devices: int = 1) -> dict[str, Any]:
    """What a training starts from, for its checkpoint to keep; and on how many devices it ran, if on several."""
    preset = params.chosen
    return {"variant": run.variant, "preset": params.preset, "data": _described(preset.data),
            "pretrained": preset.model.pretrained, "steps": preset.train.steps,
            "batch_size": preset.train.batch_size * preset.train.accumulation, "seed": run.seed,
            "max_length": preset.tokenizer.max_length, "max_new_tokens": preset.generate.max_new_tokens,
            **({"devices": devices} if devices > 1 else {})}


def _described(data: Data) -> str:
    if data.source == "hub" and data.hub:
        config = f", {data.hub.config}" if data.hub.config else ""
        source = f"{data.hub.name}{config}, revision {data.hub.revision}"
    elif data.source == "files" and data.path:
        source = Path(data.path).name
    else:
        source = "the bundled newswire"
    return f"{source}; {data.train:,} training articles"


def in_words(spec: AttentionSpec) -> str:
    """A variant's kernel, positions and pattern with its numbers."""
    return ", ".join(f"{key} {value}" for key, value in spec.model_dump().items())


def card(config: GPT2Config, spec: AttentionSpec) -> str:
    """The card as Markdown; the same model always has the same one."""
    training = config.training
    rows = {"model": f"{config.n_layer} layers, width {config.n_embd}, {config.n_head} heads, "
                     f"vocabulary {config.vocab_size:,}",
            "attention": in_words(spec)}
    if training is not None:
        on_several = f", on {training['devices']} devices" if "devices" in training else ""
        rows |= {"data": f"{training['data']} (preset `{training['preset']}`)",
                 "starting weights": training["pretrained"] or "random",
                 "training": f"{training['steps']:,} steps of {training['batch_size']}, seed {training['seed']}"
                             f"{on_several}"}
    if on := config.trained_on:
        threads = f", threads: {on['threads']}" if on["threads"] else ""
        rows["trained on"] = f"{on['device']}{threads}; attention by {on['backend']}"
    if training and "max_length" in training:
        rows["length"] = f"{training['max_length']:,} tokens, {training['max_new_tokens']:,} of them for the summary"
    table = "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])
    name = f", attention `{training['variant']}`" if training else ""
    return CARD.format(name=name, table=table, model_type=config.model_type)
