"""Whether accented letters are where a Western European language has them; in a wrong encoding they are not."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

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
ODD = (f"[{SMALL}{CAPITAL}{SIGNS}]{{3,}}|(?<=[a-z{SMALL}])[{CAPITAL}]"
       f"|(?<=[a-zA-Z{SMALL}{CAPITAL}])[{SIGNS}](?=[a-zA-Z{SMALL}{CAPITAL}])")
ESCAPES = re.compile(r"\\[nrt]")  # JSON's, whose letter belongs to no word
ENOUGH = 20  # accented letters that identify a language
FOREIGN = 0.015  # accented letters per character; a text with fewer has them only in names, from anywhere
LONGEST = 2_000  # characters; a longer line may continue in another language


class Piece:
    """A stretch of text that is long enough to identify its language; it holds the lines with accents."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []  # the name of its place, and the line
        self.letters: list[str] = []  # with accents
        self.length = 0  # characters, of lines without accents too

    def add(self, place: str, line: str, letters: list[str]) -> None:
        self.length += len(line)
        self.letters += letters
        if not line.isascii():
            self.lines.append((place, line))

    def strange(self) -> tuple[int, int]:
        """How many characters are where no text has them, and of how many accents.

        These are signs within words, capitals after lower-case letters, three or more accents in a row, and letters
        that do not belong to the language with most of the others.
        """
        found = "".join(self._strange().findall("\n".join(line for _, line in self.lines)))
        return len(found), len(self.letters) + len(LETTER.sub("", found))

    def shown(self) -> tuple[str, str]:
        """The place of the line with the most strange characters, and some text around its first."""
        strange = self._strange()
        place, line = max(self.lines, key=lambda line: len("".join(strange.findall(line[1]))))
        found = strange.search(line)
        at = found.start() if found else 0
        return place, line[max(0, at - 30):at + 30]

    def _strange(self) -> re.Pattern[str]:
        if len(self.letters) <= FOREIGN * self.length:
            return _strange_in(None)
        counts = Counter("".join(self.letters).lower())
        return _strange_in(max(LANGUAGES, key=lambda language: sum(counts[letter] for letter in language)))


@cache
def _strange_in(language: str | None) -> re.Pattern[str]:
    """What no text in this language has; with None, what no text in any language has."""
    foreign = f"|(?![{language}{language.upper()}])[{SMALL}{CAPITAL}]" if language else ""
    return re.compile(rf"(?=[^\x00-\x7f])(?:{ODD}{foreign})")  # the lookahead is quick to rule out most places


def pieces(lines: Iterable[tuple[str, str]]) -> Iterator[Piece]:
    """The lines, each with the name of its place, in pieces: one that identifies its language by itself, or several."""
    piece = Piece()
    for place, line in lines:
        for start in range(0, len(line), LONGEST):
            text = ESCAPES.sub("  ", line[start:start + LONGEST].rstrip("\r\n"))
            letters = LETTER.findall(text)
            if max(len(letters), len(piece.letters)) >= ENOUGH:
                yield piece
                piece = Piece()
            piece.add(place, text, letters)
    yield piece
