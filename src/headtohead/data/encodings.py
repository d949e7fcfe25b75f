"""Which encoding a text file is in: UTF-8, UTF-16 or cp1252, told from its bytes."""

import codecs
from pathlib import Path

from headtohead.data.records import DataError

BLOCK = 1 << 20  # bytes decoded at a time
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
         codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # UTF-32's mark begins with UTF-16's


def detect(file: Path) -> str:
    """The encoding's Python name: by its byte order mark, else UTF-8 if all of it is, else UTF-16, else cp1252.

    Raises:
        DataError: empty, or in none of them; names the line where a UTF-8 file breaks off.
    """
    with file.open("rb") as data:
        start = data.read(4096)
    if not start:
        raise DataError(f"{file} is empty")
    marked = next((name for mark, name in MARKS.items() if start.startswith(mark)), None)
    if encoding := marked or _utf16_without_mark(start):
        return encoding if _decodes(file, encoding) is None else _refuse(file, encoding)
    line = _decodes(file, "utf-8")
    if line is None:
        return "utf-8"
    if _has_other_than_ascii(file, line):  # right so far: a damaged UTF-8 file, which cp1252 would turn into rubbish
        raise DataError(f"{file}, line {line}: is not UTF-8, though all before it is; the file is damaged or of "
                        "mixed encodings. Save it as UTF-8")
    return "cp1252" if _decodes(file, "cp1252") is None else _refuse(file, "cp1252")


def _utf16_without_mark(start: bytes) -> str | None:
    """Text has no NUL characters: where every other byte is mostly NUL, it is the upper half of a letter."""
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if max(even, odd) * 4 < len(start) // 2:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _decodes(file: Path, encoding: str) -> int | None:
    """None if all of it is in this encoding, else the first line that is not, counted from 1."""
    decoder, line = codecs.getincrementaldecoder(encoding)(), 1
    with file.open("rb") as data:
        while True:
            block = data.read(BLOCK)
            try:
                line += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as error:
                return line + error.object[:error.start].count(b"\n")
            if not block:
                return None


def _has_other_than_ascii(file: Path, before: int) -> bool:
    with file.open("rb") as data:
        return any(not line.isascii() for _, line in zip(range(before - 1), data, strict=False))


def _refuse(file: Path, encoding: str) -> str:
    raise DataError(f"{file}, line {_decodes(file, encoding)}: is neither UTF-8 nor {encoding} from there on; the "
                    "file is cut off or in another encoding. Save it as UTF-8")
