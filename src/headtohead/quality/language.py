"""The articles' language, and the words, stems and sentences by which it is scored."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import islice

import regex
import snowballstemmer
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from rouge_score.tokenizers import Tokenizer

from headtohead.params import AUTO, ENGLISH, LANGUAGES
from headtohead.words import words

SAMPLE, BEGINNING = 200, 1000  # articles that are examined, and characters of each
WITHOUT_SPACES = ("ja", "km", "lo", "my", "th", "zh")  # written without spaces between words
STEMMERS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "eo": "esperanto",
    "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish", "fr": "french", "ga": "irish",
    "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian",
    "ne": "nepali", "nl": "dutch", "nn": "norwegian", "no": "norwegian", "pl": "polish", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "sr": "serbian", "st": "sesotho", "sv": "swedish", "ta": "tamil",
    "tr": "turkish"}
INVISIBLE = regex.compile(r"\p{Cf}")  # joiners, soft hyphens, direction marks: not everyone writes them


def choose(language: str, articles: Iterable[str]) -> str:
    """The language to score in: `language`, or if that is auto the one that most of the first `articles` are in."""
    return detect(articles) if language == AUTO else language


def detect(articles: Iterable[str]) -> str:
    """One of `params.LANGUAGES`; the same for the same articles."""
    found = Counter(_identifier().classify(article[:BEGINNING])[0] for article in islice(articles, SAMPLE))
    return str(found.most_common(1)[0][0])


@cache
def _identifier() -> LanguageIdentifier:
    """Its model takes half a second to read."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(LANGUAGES)
    return identifier


class Words(Tokenizer):
    """For rouge-score: the lower-case words of a text in any script, stemmed if Snowball knows the language."""

    def __init__(self, language: str) -> None:
        self._stem = cache(snowballstemmer.stemmer(STEMMERS[language]).stemWord) if language in STEMMERS else str

    def tokenize(self, text: str) -> list[str]:
        visible = INVISIBLE.sub("", unicodedata.normalize("NFKC", text).lower())
        return [self._stem(word) for word in words(visible)]


def rouge_tokenizer(language: str) -> Tokenizer | None:
    """None for English, for which rouge-score's own tokenizer is made: it keeps a to z and digits."""
    return None if language == ENGLISH else Words(language)


def bleu_tokenizer(language: str) -> str:
    """The name of sacrebleu's tokenizer: its default for English, else one that knows the script's punctuation."""
    if language == ENGLISH:
        return "13a"
    if language == "zh":
        return "zh"
    return "char" if language in WITHOUT_SPACES else "intl"


def settings(language: str) -> dict[str, str]:
    """How ROUGE and BLEU are computed, in words."""
    if language == ENGLISH:
        tokenizer, parameters = "use_stemmer=True, default tokenizer", "its defaults"
    else:
        stems = f"stemmed by Snowball's {STEMMERS[language]} stemmer" if language in STEMMERS else "not stemmed"
        unit = "characters" if language in WITHOUT_SPACES else "Unicode words"
        tokenizer, parameters = f"{unit}, {stems}", f"tokenize={bleu_tokenizer(language)!r}"
    return {"language": language,
            "rouge": f"rouge-score, {tokenizer}, mean F1 over articles, newlines kept",
            "bleu": f"sacrebleu.corpus_bleu with {parameters}, divided by 100"}
