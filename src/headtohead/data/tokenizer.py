"""The tokenizer: the pretrained model's own, or byte-level BPE trained on the training split."""

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from headtohead.params import Tokenizer

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(settings: Tokenizer, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """Byte-level BPE with GPT-2's pre-tokenizer (Radford et al. 2019, section 2.2), of at most `vocab_size` tokens.

    The separator becomes one token of its own.
    """
    assert settings.vocab_size is not None  # the parameters' validator saw to it
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator((prefixed(text) for text in texts), trainers.BpeTrainer(
        vocab_size=settings.vocab_size, special_tokens=[END_OF_TEXT, settings.separator],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT,
                                   pad_token=END_OF_TEXT, sep_token=settings.separator, separator=settings.separator)


def pretrained_tokenizer(settings: Tokenizer, source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub name or local folder; the separator is spelled in its own tokens.

    Raises:
        OSError: it cannot be found or read.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, separator=settings.separator)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def separator_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of the separator between article and summary, which the tokenizer carries along when saved."""
    return tokenizer(tokenizer.init_kwargs["separator"], add_special_tokens=False)["input_ids"]


def prefixed(text: str) -> str:
    """A text as it is tokenised: after a space, so that a name is spelled alike at the start and within."""
    return " " + text.strip() if text.strip() else ""


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], offsets: bool = False) -> list[tokenizers.Encoding]:
    """Many texts, on all cores: `.ids`, and with `offsets` also `.char_to_token`, which takes longer.

    A special token's name within a text is only text.
    """
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True
    backend.no_truncation()  # a checkpoint may have been saved with either
    backend.no_padding()
    run = backend.encode_batch if offsets else backend.encode_batch_fast
    return run([prefixed(text) for text in texts], add_special_tokens=False)
