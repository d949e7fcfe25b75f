"""Whether letters with accents are where a language of Western Europe has them; in a wrong encoding they are not."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

LANGUAGES = (  # the letters beyond a to z that each has, in words of its own and in the commonest names
    "äöüßéèàç",  # German
    "àâæçéèêëîïôœùûüÿñäö",  # French, Dutch, Albanian, Breton, Luxembourgish
    "áéíñóúüçà",  # Spanish, Galician, Basque, Irish
    "áâãàçéêíóôõúü",  # Portuguese
    "àèéìíîòóùúäöü",  # Italian, Romansh, Scottish Gaelic
    "àáçèéíïòóúüñ",  # Catalan, Occitan
    "æøåäöéüšž",  # Danish, Norwegian, Swedish, Finnish
    "áðéíóúýþæöø",  # Icelandic, Faroese
    "äõöüšžé",  # Estonian
)
SMALL, CAPITAL = "ß-öø-ÿœšž", "À-ÖØ-ÞŒŠŽŸ"
SIGNS = "‚ƒ„†‡ˆ‰‹›˜¡¢£¤¥¦§¨ª¬¯°±²³µ¸¹º¼½¾¿×÷"  # no word has one inside  # noqa: RUF001
LETTER = re.compile(f"[{SMALL}{CAPITAL}]")
ODD = re.compile(f"[{SMALL}{CAPITAL}{SIGNS}]{{3,}}|(?<=[a-z{SMALL}])[{CAPITAL}]"
                 f"|(?<=[a-zA-Z{SMALL}{CAPITAL}])[{SIGNS}](?=[a-zA-Z{SMALL}{CAPITAL}])")
ESCAPES = re.compile(r"\\[nrt]")  # JSON's, whose letter belongs to no word
ENOUGH = 20  # letters that tell a language
FOREIGN = 0.015  # letters a character; a text with fewer has them in names alone, from anywhere
LONGEST = 500  # characters; a longer line may go on in another language


@dataclass
class Piece:
    """The lines with accents of a stretch of text, without those between; it is long enough to tell the language.

    Args:
        length: characters of the whole stretch.
    """

    places: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    length: int = 0

    @cached_property
    def _text(self) -> str:
        return "\n".join(self.lines)

    @cached_property
    def letters(self) -> list[int]:
        """Where in the lines the letters with accents stand."""
        return [found.start() for found in LETTER.finditer(self._text)]

    @cached_property
    def strange(self) -> list[int]:
        """Where a text has none: signs within words, capitals after small letters, three or more accents in a row, and
        letters that are not of the language which has most of the others."""
        odd = {place for found in ODD.finditer(self._text) for place in range(*found.span())}
        if len(self.letters) > FOREIGN * self.length:
            unfit = min((self._not_of(language) for language in LANGUAGES), key=len)
            odd.update(unfit)
        return sorted(odd)

    def _not_of(self, language: str) -> list[int]:
        return [place for place in self.letters if self._text[place].lower() not in language]

    def shown(self) -> tuple[str, str]:
        """The place of the line with the most strange characters, and some text around its first."""
        lines = [self._text.count("\n", 0, place) for place in self.strange]
        line = max(lines, key=lines.count)
        at = self.strange[lines.index(line)] - self._text.rfind("\n", 0, self.strange[lines.index(line)]) - 1
        return self.places[line], self.lines[line][max(0, at - 30):at + 30]


def pieces(lines: Iterable[tuple[str, str]]) -> Iterator[Piece]:
    """The lines, each with the name of its place, in pieces: one that tells its language by itself, or several."""
    piece, count = Piece(), 0
    for place, line in lines:
        for start in range(0, len(line), LONGEST):
            text = ESCAPES.sub("  ", line[start:start + LONGEST].rstrip("\r\n"))
            letters = len(LETTER.findall(text))
            if max(letters, count) >= ENOUGH:
                yield piece
                piece, count = Piece(), 0
            piece.length += len(text)
            count += letters
            if not text.isascii():
                piece.places.append(place)
                piece.lines.append(text)
    yield piece
