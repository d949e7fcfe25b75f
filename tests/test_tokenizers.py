"""Pretrained tokenizers: one that cannot do the job is refused at once, and the message says what is missing."""

import json
from string import ascii_lowercase

import pytest
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, pre_tokenizers

from headtohead.inputs import pretrained_files, pretrained_source
from headtohead.params import PATH, ParamsError, Tokenizer, read_params
from headtohead.records import DataError
from headtohead.tokens.tokenizer import encode, pretrained_tokenizer, separator_ids

TEXTS = ["The mayor of Ashfield opened a bridge on Monday.", "A bridge was opened."]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".:", *ascii_lowercase, *(f"##{c}" for c in ascii_lowercase)]
PLAIN = {"tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})}
CLASS = {"tokenizer_config.json": json.dumps({"tokenizer_class": "BertTokenizer"})}
VOCABULARY = CLASS | {"vocab.txt": "\n".join(BERT)}


def words(*known: str) -> str:
    fast = Fast(models.WordLevel({word: number for number, word in enumerate(("[UNK]", *known))}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    return fast.to_str()


def bytewise(known: str) -> str:
    """Byte-level BPE that has no token for other bytes than these, and none for the unknown."""
    fast = Fast(models.BPE({byte: number for number, byte in enumerate(["<|endoftext|>", *known])}, []))
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return fast.to_str()


def folder(path, files):
    for name, content in {"config.json": '{"model_type": "gpt2"}', **files}.items():
        (path / name).write_text(content)
    return path


def load(path, **changes):
    settings = Tokenizer(**{"vocab_size": None, "separator": " tldr:", "max_length": 64} | changes)
    return pretrained_tokenizer(settings, pretrained_source(str(path)), TEXTS)


@pytest.mark.parametrize("files", [{}, CLASS, {"vocab.json": "{}"}, {"merges.txt": ""}])
def test_a_folder_without_a_tokenizer_is_refused_before_any_work(tmp_path, files):
    folder(tmp_path, files)
    for refuse in (pretrained_files, pretrained_source):  # the fingerprint, and every later stage
        with pytest.raises(DataError, match=r"has no tokenizer: none of tokenizer\.json, vocab\.json with merges\.txt, "
                                            r"vocab\.txt, \*\.model; put the files of the tokenizer"):
            refuse(str(tmp_path))


UNFIT = {
    "broken": ({"tokenizer.json": "{"}, {}, "its tokenizer cannot be read: "),
    "in Python": ({"vocab.txt": "", "tokenizer_config.json": json.dumps({"tokenizer_class": "ByT5Tokenizer"})}, {},
                  "ByT5Tokenizer runs in Python alone; a tokenizer.json is needed"),
    "no end of text": (VOCABULARY, {}, r"names no end-of-text token \(eos_token\)\. It has \[SEP\]: set "
                                       r'tokenizer\.end_of_text: "\[SEP\]"'),
    "none like it": (PLAIN | {"tokenizer.json": words("tldr", ":")}, {"end_of_text": "[END]"},
                     r"has no token '\[END\]' \(tokenizer\.end_of_text\)\. Name a token of its vocabulary"),
    "an end within texts": (VOCABULARY, {"end_of_text": "a"}, "end_of_text 'a' is a token of the text itself"),
    "an unknown separator": (VOCABULARY, {"end_of_text": "[SEP]", "separator": "|"},
                             r"cannot spell tokenizer\.separator '\|'"),
    "a separator of nothing": (VOCABULARY, {"end_of_text": "[SEP]", "separator": "\n"},
                               r"cannot spell tokenizer\.separator '\\n'"),
    "a vocabulary without its class": ({"vocab.txt": "\n".join(BERT)}, {},
                                       "of 1 tokens, knows only 0% of .* names no tokenizer_class"),
    "nothing known": (PLAIN | {"tokenizer.json": words("[END]", "tldr", ":")}, {"end_of_text": "[END]"},
                      r"knows only 0% of the articles' characters"),
    "letters dropped": ({"tokenizer.json": bytewise("abcdefghijkltr:Ġ")}, {}, r"knows only 58% of"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_tokenizer_that_cannot_do_the_job_is_refused_with_what_is_missing(tmp_path, case):
    files, changes, message = UNFIT[case]
    with pytest.raises(DataError, match=f"^{folder(tmp_path, files)}: .*{message}") as told:
        load(tmp_path, **changes)
    assert "\n" not in str(told.value)


def test_a_named_end_of_text_ends_pads_and_never_comes_from_a_text(tmp_path):
    tokenizer = load(folder(tmp_path, VOCABULARY), end_of_text="[SEP]")
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == BERT.index("[SEP]")
    assert len(tokenizer) == len(BERT)  # the model has no more rows
    assert tokenizer.eos_token_id not in encode(tokenizer, ["a [SEP] b"])[0].ids
    assert tokenizer.decode([BERT.index("a"), tokenizer.eos_token_id], skip_special_tokens=True) == "a"
    tokenizer.save_pretrained(tmp_path / "again")
    again = type(tokenizer).from_pretrained(tmp_path / "again")
    assert (again.eos_token_id, separator_ids(again)) == (tokenizer.eos_token_id, separator_ids(tokenizer))


def test_a_vocabulary_of_ones_own_has_its_own_end(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(PATH.read_text().replace("end_of_text: null ", 'end_of_text: "[SEP]" ', 1))
    with pytest.raises(ParamsError, match=r"laptop\.tokenizer\.end_of_text: names a token of a pretrained model's"):
        read_params(file)
