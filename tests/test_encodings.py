"""Text in the encodings that people bring: read right, or refused with a line of it, never read wrong in silence."""

import codecs
import json

import pytest
import yaml
from closure import ROOT

from headtohead.articles.files import Table
from headtohead.articles.texts import Texts
from headtohead.params import PATH, ParamsError, read_params
from headtohead.records import DataError

LANGUAGES = yaml.safe_load((ROOT / "tests/languages.yaml").read_text(encoding="utf-8"))
WESTERN, OTHERS = LANGUAGES["western"], LANGUAGES["others"]
WRITTEN = [(name, encoding) for name, other in OTHERS.items() for encoding in other["in"]]
WRITTEN += [(name, "mac_roman") for name in LANGUAGES["on_a_mac"]]
WRITTEN += [(name, "cp850") for name in LANGUAGES["under_dos"]]


def text_in(name):
    return OTHERS[name]["text"] if name in OTHERS else WESTERN[name]


def table(path, text, encoding, suffix=".csv", rows=3):
    """A table of some rows of the text, which has no quotes of the ASCII kind."""
    file = path / f"news{suffix}"
    row = json.dumps({"article": text, "highlights": text[:40]}, ensure_ascii=False)
    lines = {".csv": ["article,highlights", *[f'"{text}","{text[:40]}"'] * rows],
             ".tsv": ["article\thighlights", *[f"{text}\t{text[:40]}"] * rows],
             ".jsonl": [row] * rows, ".json": [f"[{', '.join([row] * rows)}]"]}[suffix]
    file.write_bytes("\n".join(lines).encode(encoding, "replace"))
    return file


def articles(file, encoding=None):
    return [row["article"] for row in Table(file, "article", "highlights", encoding).rows()]


@pytest.mark.parametrize("name", WESTERN)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl"])
def test_western_text_in_cp1252_is_read_without_a_question(tmp_path, name, suffix):
    assert articles(table(tmp_path, WESTERN[name], "cp1252", suffix)) == [WESTERN[name]] * 3


def test_a_file_may_be_of_many_languages_and_full_of_their_names(tmp_path):
    rows = [{"article": " ".join([text] * 3), "highlights": "x"} for text in WESTERN.values()]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "news.jsonl").write_bytes(lines.encode("cp1252"))
    assert articles(tmp_path / "news.jsonl") == [row["article"] for row in rows]
    names = "The team: Müller, Núñez, João Félix, Ødegård, Öberg, Þór, Özil, Françoise. " + "It was late. " * 150
    assert articles(table(tmp_path, names, "cp1252")) == [names.strip()] * 3
    escaped = r"Das Wort.\nÜbermorgen.\tÄpfel.\rÖl. " * 20  # JSON's escapes are no letters before a capital
    (tmp_path / "news.jsonl").write_bytes(f'{{"article": "{escaped}", "highlights": "x"}}'.encode("cp1252"))
    assert "\nÜbermorgen" in articles(tmp_path / "news.jsonl")[0]


@pytest.mark.parametrize(("name", "encoding"), WRITTEN)
@pytest.mark.parametrize("rows", [1, 30])
def test_what_is_neither_utf8_nor_cp1252_is_refused_until_it_is_named(tmp_path, name, encoding, rows):
    file = table(tmp_path, text_in(name), encoding, rows=rows)
    with pytest.raises(DataError, match=r"news\.csv.* data\.encoding") as told:
        articles(file)
    assert "\n" not in str(told.value)
    written = text_in(name).encode(encoding, "replace").decode(encoding)
    assert articles(file, encoding) == [written] * rows


def test_the_message_shows_a_line_as_it_would_be_read(tmp_path):
    file = table(tmp_path, OTHERS["Polish"]["text"], "cp1250")
    with pytest.raises(DataError, match=r"news\.csv, line 2: reads 'Burmistrz otworzy³ w poniedzia³.* in cp1252, and "
                                        r"\d\d% of all accents .*data\.encoding: cp1250 for Polish.* or cp1252 if"):
        articles(file)
    assert articles(file, "cp1252")[0].startswith("Burmistrz otworzy³")  # it is the user's word


def test_text_files_are_judged_together_and_each_read_in_its_own(tmp_path):
    def write(name, encoding):
        files = [tmp_path / side / f"{name}.txt" for side in ("article", "summary")]
        for file, text in zip(files, (text_in(name), text_in(name)[:2]), strict=True):
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(text.replace(" ", "\r\n", 1).encode(encoding))
        return files

    texts = Texts(write("Danish", "cp1252") + write("Italian", "utf-8") + write("Irish", "utf-16"))
    assert texts.read_as == "text files, cp1252 and utf-16 and utf-8"
    assert [(row["id"], row["article"].replace("\n", " "), row["summary"]) for row in texts.rows()] == [
        (f"{name}.txt", WESTERN[name], WESTERN[name][:2]) for name in ("Danish", "Italian", "Irish")]
    with pytest.raises(DataError, match=r"Russian\.txt, line 1: reads 'Ìýð'"):
        list(Texts([*texts.files, *write("Russian", "cp1251")]).rows())


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8"])
def test_a_named_utf8_may_begin_with_its_mark(tmp_path, encoding):
    file = table(tmp_path, WESTERN["German"], "utf-8")
    file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    assert articles(file, encoding) == [WESTERN["German"]] * 3


@pytest.mark.parametrize(("written", "named"), [("cp1252", "utf-8"), ("cp1252", "shift_jis"), ("utf-8", "utf-16")])
def test_a_file_that_is_not_in_the_named_encoding_is_refused(tmp_path, written, named):
    file = table(tmp_path, WESTERN["Swedish"], written)
    with pytest.raises(DataError, match=rf"news\.csv, line [12]: is not {named} \(data\.encoding\) from there on"):
        articles(file, named)


@pytest.mark.parametrize("name", ["klingon", "hex", "rot13", "undefined", ""])
def test_an_encoding_that_python_does_not_have_is_refused_before_any_work(tmp_path, name):
    file = tmp_path / "params.yaml"
    file.write_text((ROOT / PATH).read_text().replace("encoding: null ", f'encoding: "{name}" ', 1))
    with pytest.raises(ParamsError, match=rf"laptop\.data\.encoding: '{name}' is no text encoding of Python's; there"):
        read_params(file)
