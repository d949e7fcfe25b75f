"""The encoding of a text file: the one that is named, or UTF-8, UTF-16 or cp1252, detected from its bytes."""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from headtohead.articles.formats import opened
from headtohead.articles.letters import pieces
from headtohead.records import DataError

BLOCK = 1 << 20  # bytes decoded at a time
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
         codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # UTF-32's mark begins with UTF-16's
STRANGE = 0.06  # share of accents that may be strange: foreign names, typing errors
NAME_IT = "name its encoding in data.encoding, or save it as UTF-8"


def encodings_of(files: list[Path], named: str | None) -> dict[Path, str]:
    """The encoding of each file: the one that is named, else by its byte order mark, UTF-8, UTF-16 or cp1252.

    Raises:
        DataError: a file is not in the one that is named, or in none of the others, or if it were in cp1252 its accents
            would be strange; says where.
    """
    if named:
        return {file: _checked(file, _named(file, named)) for file in files}
    found = {file: _detect(file) for file in files}
    _check_accents([file for file, encoding in found.items() if encoding == "cp1252"])
    return found


def _named(file: Path, encoding: str) -> str:
    marked = codecs.lookup(encoding).name == "utf-8" and _start(file).startswith(codecs.BOM_UTF8)
    return "utf-8-sig" if marked else encoding


def _checked(file: Path, encoding: str) -> str:
    if (line := _breaks_off(file, encoding)) is not None:
        raise DataError(f"{file}, line {line}: is not {encoding} (data.encoding) from there on; the file is damaged, "
                        "cut off or in another encoding")
    return encoding


def _detect(file: Path) -> str:
    start = _start(file)
    marked = next((name for mark, name in MARKS.items() if start.startswith(mark)), None)
    if encoding := marked or _utf16_without_mark(start):
        return encoding if _breaks_off(file, encoding) is None else _refuse(file, encoding)
    line = _breaks_off(file, "utf-8")
    if b"\x1b$" in start:
        raise DataError(f"{file} holds the escape sequences of ISO 2022, as Japanese and Korean mail does: name it in "
                        "data.encoding, such as iso2022_jp")
    if line is None:
        return "utf-8"
    if _has_other_than_ascii(file, line):  # right so far: a damaged UTF-8 file, which cp1252 would turn into rubbish
        raise DataError(f"{file}, line {line}: is not UTF-8, though all before it is; the file is damaged or of "
                        f"mixed encodings; {NAME_IT}")
    return "cp1252" if _breaks_off(file, "cp1252") is None else _refuse(file, "cp1252")


def _start(file: Path) -> bytes:
    with opened(file) as data:
        return data.read(4096)


def _utf16_without_mark(start: bytes) -> str | None:
    """Text has no NUL characters: if every other byte is mostly NUL, it is the upper half of a letter."""
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if max(even, odd) * 4 <= len(start) // 2:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _breaks_off(file: Path, encoding: str) -> int | None:
    """The first line that is not in this encoding, counted from 1; None if all of the file is."""
    decoder, line = codecs.getincrementaldecoder(encoding)(), 1
    with opened(file) as data:
        while True:
            block = data.read(BLOCK)
            try:
                line += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as error:
                return line + error.object[:error.start].count(b"\n")
            except UnicodeError:  # UTF-16 that lacks its mark
                return line
            if not block:
                return None


def _has_other_than_ascii(file: Path, before: int) -> bool:
    with opened(file) as data:
        return any(not line.isascii() for _, line in zip(range(before - 1), data, strict=False))


def _refuse(file: Path, encoding: str) -> str:
    raise DataError(f"{file}, line {_breaks_off(file, encoding)}: is neither UTF-8 nor {encoding} from there on; the "
                    f"file is cut off or in another encoding; {NAME_IT}")


def _check_accents(files: list[Path]) -> None:
    """Nearly every file can be read as cp1252, so check whether the result could be a text."""
    strange, accents, shown = 0, 0, None
    for piece in pieces(_lines(files)):
        here, of = piece.strange()
        strange, accents = strange + here, accents + of
        if not shown and here > STRANGE * of:
            shown = piece.shown()
    if shown and strange > STRANGE * accents:
        raise DataError(f"{shown[0]}: reads {shown[1]!r} in cp1252, and {strange / accents:.0%} of all accents are "
                        "where no text of Western Europe has them. Name the encoding in data.encoding: cp1250 for "
                        "Polish, Czech or Hungarian, cp1251 for Russian, cp1254 for Turkish, mac_roman for old Macs, "
                        "..., or cp1252 if that line is right")


def _lines(files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Every line as read in cp1252, with its place."""
    for file in files:
        with opened(file) as data:
            for number, line in enumerate(data, 1):
                yield f"{file}, line {number}", line.decode("cp1252")
