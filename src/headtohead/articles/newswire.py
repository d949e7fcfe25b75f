"""The bundled data source: short news reports with reference summaries, made up from a seed.

A report tells one story: a person, a city, an organisation, a number and a day, each stated once,
somewhere in the article, and repeated word for word in the summary. Around them stands filler, part of
which names other people, places, numbers and days, most of them in the words in which the story's own are named. To
summarise well, a model has to tell which values are the story's and copy them, often from far away, which is what its
attention is for.
"""

import random
import re
from collections.abc import Iterator
from functools import cache
from itertools import cycle, product
from typing import Any

from headtohead.articles.newswire_topics import FILLER, TOPICS, WRONG

Report = dict[str, Any]
Topic = dict[str, tuple[str, ...]]

KINDS = ("person", "city", "organisation", "number", "day")
SPLITS = ("train", "validation", "test")
SCALES = (1, 2, 4, 8)
LONGEST_SENTENCE = 20  # words; an article may overshoot its target by one sentence
POSITIONS = 4  # of a moved sentence
SHORTEST_ARTICLE = 50  # words; every topic can state its five facts in fewer

# First and second words: a name is any pair. Few words, and few numbers and days, because a small model must learn to
# copy each: with 40 words, 49 numbers and 12 months it takes more than twice as many steps.
NAMES = {
    "person": (
        "Adam Alice Anna Clara David Diana Eric Fiona Helen Henry Julia Karen",
        "Archer Barlow Bishop Carter Dalton Ellis Foster Garner Hobson Jarvis Keller Lambert",
    ),
    "city": (
        "North South East West Upper Lower Old New Great Little Port Lake",
        "Alden Barton Calder Denby Elmore Farley Harlow Kirby Linden Milton Oakley Preston",
    ),
    "organisation": (
        "Amber Blue Bright Copper Crystal Golden Grand Iron Ivory Polar Red Royal",
        "Anchor Arrow Beacon Compass Crown Eagle Falcon Harbour Lantern Lion River Rocket",
    ),
}
MONTHS = "March June September November"
DAYS = [f"{day} {month}" for month in MONTHS.split() for day in range(10, 29)]  # "3 June" would be part of "13 June"
NUMBERS = [str(number) for number in range(110, 510, 20)]


def newswire(split: str, count: int, *, seed: int, words: tuple[int, int], distractors: float, scale: int = 1
             ) -> Iterator[Report]:
    """News reports made up from a seed; report i depends on the arguments other than `count`, and on nothing else.

    No person's full name, city or organisation of one split occurs in another, whatever the seeds: each is a pair
    of words, and the pairs are divided among the splits. The single words ("Anna", "Barlow", "Port", "Harlow"), the
    numbers and the days are common to all.

    Args:
        split: "train", "validation" or "test".
        seed: a whole number; another one gives other reports.
        words: lowest and highest length of an article in words, at `scale` 1.
        distractors: share of filler sentences, 0..1, that carry wrong names, places, numbers or days.
        scale: 1, 2, 4 or 8: the same stories in articles this many times as long.

    Returns:
        An iterator of {"id", "article", "summary", "references", "facts": [{"kind", "value", "start"}]}: one fact of
        every kind in `KINDS`, `start` the offset in characters of its only mention. The summary has one sentence a
        line; the references are all that could have been written of this story, the summary among them.

    Raises:
        ValueError: a wrong argument; at the call, before the first report.
    """
    _check(split, count, seed, words, distractors, scale)
    return (_report(split, index, seed, words, distractors, scale) for index in range(count))


def moved(count: int, *, seed: int, words: tuple[int, int], distractors: float) -> Iterator[Report]:
    """Test reports in which one fact's sentence is moved and all else stays: how far away it stands is then a cause.

    Four versions of every story follow one another. The sentence stands behind the lead, after one third of the other
    sentences, after two, and at the end. Of which kind the fact is goes round from story to story. The stories are none
    of `newswire`'s; their names are those of its test split.

    Args:
        count: of stories.
        seed, words, distractors: as in `newswire`.

    Returns:
        Reports as `newswire` makes them, whose only fact is the moved one, with its "position" (0 to 3) in addition.

    Raises:
        ValueError: a wrong argument; at the call, before the first report.
    """
    _check("test", count, seed, words, distractors, 1)
    return (report for index in range(count) for report in _versions(index, seed, words, distractors))


def stated(text: str) -> set[str]:
    """All values in `text` that a report could have, of any kind and split: its own, wrong ones and made-up ones."""
    return {" ".join(value.split()) for value in _any_value().findall(text)}


def _check(split: str, count: int, seed: int, words: tuple[int, int], distractors: float, scale: int) -> None:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if not _is_int(count) or count < 0:
        raise ValueError(f"count must be a whole number, 0 or more, not {count!r}")
    if not _is_int(seed):
        raise ValueError(f"seed must be a whole number, not {seed!r}")
    if not (isinstance(words, tuple | list) and len(words) == 2 and all(map(_is_int, words))):
        raise ValueError(f"words must be two whole numbers (lowest, highest), not {words!r}")
    if words[0] < SHORTEST_ARTICLE or words[1] < words[0] + LONGEST_SENTENCE:
        raise ValueError(
            f"words must start at {SHORTEST_ARTICLE} or more and span {LONGEST_SENTENCE} or more, not {words!r}"
        )
    if isinstance(distractors, bool) or not isinstance(distractors, int | float) or not 0 <= distractors <= 1:
        raise ValueError(f"distractors must be a share between 0 and 1, not {distractors!r}")
    if not _is_int(scale) or scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(str, SCALES))}, not {scale!r}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _report(split: str, index: int, seed: int, words: tuple[int, int], distractors: float, scale: int) -> Report:
    rng = random.Random(f"{seed}/{split}/{index}")  # a string seeds alike in every process
    topic, right, wrong, summaries = _story(split, rng)
    target = rng.randint(words[0], words[1] - LONGEST_SENTENCE) * scale
    lead, facts = _facts(topic, right, target, rng)
    body = [*facts.values(), *_filler(topic, wrong, target - _length([lead, *facts.values()]), distractors, rng)]
    rng.shuffle(body)
    return _record(f"newswire-{split}-{index}" + (f"-x{scale}" if scale > 1 else ""), [lead, *body], right, summaries)


def _versions(index: int, seed: int, words: tuple[int, int], distractors: float) -> Iterator[Report]:
    rng = random.Random(f"{seed}/moved/{index}")
    topic, right, wrong, summaries = _story("test", rng)
    target, kind = rng.randint(words[0], words[1] - LONGEST_SENTENCE), KINDS[index % len(KINDS)]
    lead, facts = _facts(topic, right, target, rng, without=kind)
    others = _filler(topic, wrong, target - _length([lead, *facts.values()]), distractors, rng)
    sentence = facts.pop(kind)
    others += facts.values()
    rng.shuffle(others)
    for position in range(POSITIONS):
        before = round(len(others) * position / (POSITIONS - 1))
        report = _record(f"newswire-moved-{index}-{position}", [lead, *others[:before], sentence, *others[before:]],
                         right, summaries)
        yield report | {"facts": [fact | {"position": position} for fact in report["facts"] if fact["kind"] == kind]}


def _story(split: str, rng: random.Random) -> tuple[Topic, dict[str, str], dict[str, Iterator[str]], list[str]]:
    """A topic, right and wrong values, and every summary of them; the first is the one to give."""
    topic = TOPICS[rng.choice(list(TOPICS))]
    right, wrong = _values(split, rng)
    summaries = [_fill(template, right, rng) for template in topic["summary"]]
    rng.shuffle(summaries)
    return topic, right, wrong, summaries


def _record(name: str, sentences: list[str], right: dict[str, str], summaries: list[str]) -> Report:
    article = " ".join(sentences)
    return {
        "id": name,
        "article": article,
        "summary": summaries[0],
        "references": summaries,
        "facts": [{"kind": kind, "value": right[kind], "start": article.index(right[kind])} for kind in KINDS],
    }


def _values(split: str, rng: random.Random) -> tuple[dict[str, str], dict[str, Iterator[str]]]:
    """The story's own value of each kind, and an endless supply of wrong ones."""
    pools = {**{kind: _names(kind, split) for kind in NAMES}, "number": NUMBERS, "day": DAYS}
    draws = {kind: rng.sample(pool, 19) for kind, pool in pools.items()}
    return {kind: own for kind, (own, *_) in draws.items()}, {kind: cycle(rest) for kind, (_, *rest) in draws.items()}


@cache
def _names(kind: str, split: str) -> list[str]:
    """The split's share of the names of a kind: a fifth each to validation and test, the rest to train."""
    names = [" ".join(words) for words in product(*map(str.split, NAMES[kind]))]
    random.Random(kind).shuffle(names)  # the same for every seed, so that splits never mix
    fifth = len(names) // 5
    return {"validation": names[:fifth], "test": names[fifth : 2 * fifth], "train": names[2 * fifth :]}[split]


def _facts(topic: Topic, right: dict[str, str], target: int, rng: random.Random,
           without: str | None = None) -> tuple[str, dict[str, str]]:
    """A lead and one sentence for each fact that it leaves out, in at most `target` words.

    Args:
        without: a kind of fact that the lead must leave out.
    """
    while True:
        lead = rng.choice(topic["lead"])
        templates = {kind: rng.choice(topic[kind]) for kind in KINDS if f"{{{kind}}}" not in lead}
        lead, facts = _fill(lead, right, rng), {kind: _fill(text, right, rng) for kind, text in templates.items()}
        if _length([lead, *facts.values()]) <= target and (without is None or without in facts):
            return lead, facts


def _filler(topic: Topic, wrong: dict[str, Iterator[str]], missing: int, distractors: float,
            rng: random.Random) -> list[str]:
    """Filler and distractor sentences until at least `missing` words are there."""
    plain, misleading = (
        cycle(rng.sample(deck, len(deck))) for deck in (topic["filler"] + FILLER, topic["wrong"] + WRONG)
    )
    sentences: list[str] = []
    while _length(sentences) < missing:
        template = next(misleading if rng.random() < distractors else plain)
        values = {kind: next(wrong[kind]) for kind in KINDS if f"{{{kind}}}" in template}
        sentences.append(_fill(template, values, rng))
    return sentences


@cache
def _any_value() -> re.Pattern[str]:
    names = [rf"(?:{_one_of(first)})\s+(?:{_one_of(second)})" for first, second in NAMES.values()]
    values = "|".join([*names, *NUMBERS, rf"\d\d\s+(?:{_one_of(MONTHS)})"])
    return re.compile(rf"(?<!\w)(?<!\d[.,])(?:{values})(?!\w)(?![.,]\d)")


def _one_of(words: str) -> str:
    return "|".join(words.split())


def _fill(template: str, values: dict[str, str], rng: random.Random) -> str:
    sentence = re.sub(r"\[(.*?)\]", lambda match: rng.choice(match[1].split("|")), template)
    return sentence.format(**values)


def _length(sentences: list[str]) -> int:
    return sum(len(sentence.split()) for sentence in sentences)
