"""The tokenizer: the pretrained model's own, or byte-level BPE trained on the training split."""

from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from headtohead.params import Tokenizer
from headtohead.records import DataError

END_OF_TEXT = "<|endoftext|>"
ENDS = (END_OF_TEXT, "</s>", "<eos>", "[EOS]", "[SEP]")  # its usual names
SPELLED = 0.9  # least share of the characters that a tokenizer for the articles' language knows


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


def pretrained_tokenizer(settings: Tokenizer, source: str, texts: list[str]) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder; the separator is spelled in its own tokens, and end-of-text pads.

    Args:
        texts: a sample of the texts that it is meant for.

    Raises:
        DataError: it cannot be read, is not a fast one, has no end-of-text, or cannot spell the separator or more than
            a tenth of the texts' characters; says which, and what to do.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, separator=settings.separator)
    except Exception as error:  # the tokenizers library raises nothing more exact
        raise DataError(f"{source}: its tokenizer cannot be read: {' '.join(str(error).split())}") from error
    if not tokenizer.is_fast:
        raise DataError(f"{source}: {type(tokenizer).__name__} runs in Python alone; a tokenizer.json is needed")
    end = _end_of_text(tokenizer, settings.end_of_text, source)
    tokenizer.add_special_tokens({"eos_token": end, "pad_token": end})
    if (spelled := _spelled(tokenizer, texts)) < SPELLED:
        raise DataError(f"{source}: its tokenizer, of {len(tokenizer):,} tokens, knows only {spelled:.0%} of the "
                        "articles' characters; its files lack the vocabulary, tokenizer_config.json names no "
                        "tokenizer_class or a wrong one, or it was made for another language")
    separator = separator_ids(tokenizer)
    if not separator or _unknown(tokenizer).intersection(separator):
        raise DataError(f"{source}: its tokenizer cannot spell tokenizer.separator {settings.separator!r}; choose "
                        "another")
    return tokenizer


def _end_of_text(tokenizer: PreTrainedTokenizerBase, named: str | None, source: str) -> str:
    """The token that ends a summary: the named one, else the tokenizer's own."""
    end, vocabulary = named or tokenizer.eos_token, tokenizer.get_vocab()
    if end is None or end not in vocabulary:
        likely = [token for token in ENDS if token in vocabulary]
        what = f"has no token {end!r} (tokenizer.end_of_text)" if named else "names no end-of-text token (eos_token)"
        raise DataError(f"{source}: its tokenizer {what}. " + (
            f"It has {' and '.join(likely)}: set tokenizer.end_of_text: \"{likely[0]}\"" if likely else
            "Name a token of its vocabulary that no text contains in tokenizer.end_of_text"))
    if encode(tokenizer, [end])[0].ids == [vocabulary[end]]:
        raise DataError(f"{source}: tokenizer.end_of_text {end!r} is a token of the text itself; name one that no text "
                        "contains")
    return end


def _spelled(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> float:
    """The share of the characters, ignoring white space, that are in a token other than the unknown one."""
    unknown, total, known = _unknown(tokenizer), 0, 0
    for text, encoding in zip(texts, encode(tokenizer, texts, offsets=True), strict=True):
        places = {place for token, span in zip(encoding.ids, encoding.offsets, strict=True)
                  if token not in unknown for place in range(*span)}
        written = [place for place, character in enumerate(prefixed(text)) if not character.isspace()]
        total += len(written)
        known += len(places.intersection(written))
    return known / total if total else 1.0


def _unknown(tokenizer: PreTrainedTokenizerBase) -> set[int | None]:
    """Ids of the unknown token: tokenizer.json may name one that tokenizer_config.json does not."""
    backend = tokenizer.backend_tokenizer
    inner = getattr(backend.model, "unk_token", None)
    return {tokenizer.unk_token_id, inner and backend.token_to_id(inner)}


def separator_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of the separator between article and summary, which the tokenizer carries along when saved."""
    return tokenizer(tokenizer.init_kwargs["separator"], add_special_tokens=False)["input_ids"]


def prefixed(text: str) -> str:
    """A text as it is tokenised: after a space, so that a name has the same tokens at the start and within."""
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
