"""The bundled news reports keep what `newswire` promises."""

import os
import re
import subprocess
import sys
from itertools import chain, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headtohead.articles.newswire import (
    KINDS,
    LONGEST_SENTENCE,
    NAMES,
    SHORTEST_ARTICLE,
    SPLITS,
    _names,
    moved,
    newswire,
    stated,
)
from headtohead.articles.newswire_topics import CUES, FILLER, TOPICS, WRONG
from headtohead.articles.sources import open_splits
from headtohead.params import Data

SLOT = re.compile(r"(\w+) \{(\w+)\}")  # the word before a slot, and the slot
SETTINGS = {"seed": 7, "words": (60, 120), "distractors": 0.4}


def reports(split="train", count=300, **changes):
    return list(newswire(split, count, **{**SETTINGS, **changes}))


def names(report):
    """The report's own person, city and organisation."""
    return [fact["value"] for fact in report["facts"] if fact["kind"] in NAMES]


def shingles(report, size=5):
    words = report["article"].split()
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def readings(template):
    """Everything that the template can become before its values are filled in."""
    alternatives = [part.split("|") for part in re.split(r"\[(.*?)\]", template)]
    return {"".join(parts) for parts in product(*alternatives)}


def words(template):
    """The most words that the template can become; no value has more than two."""
    longest = re.sub(r"\[(.*?)\]", lambda match: max(match[1].split("|"), key=lambda text: len(text.split())), template)
    return len(re.sub(r"\{\w+\}", "two words", longest).split())


everywhere = given(
    split=st.sampled_from(SPLITS),
    seed=st.integers(-(10**9), 10**9),
    lowest=st.integers(50, 150),
    span=st.integers(LONGEST_SENTENCE, 100),
    distractors=st.floats(0, 1),
    scale=st.sampled_from([1, 2, 4, 8]),
)


@everywhere
@settings(max_examples=60, deadline=None)
def test_every_report_is_sound(split, seed, lowest, span, distractors, scale):
    limits = (lowest, lowest + span)
    for report in newswire(split, 3, seed=seed, words=limits, distractors=distractors, scale=scale):
        article, summary, references = report["article"], report["summary"], report["references"]
        assert limits[0] * scale <= len(article.split()) <= limits[1] * scale
        assert [fact["kind"] for fact in report["facts"]] == list(KINDS)
        for fact in report["facts"]:
            value, start = fact["value"], fact["start"]
            assert article[start : start + len(value)] == value
            assert (article.count(value), summary.count(value)) == (1, 1)
            assert article[:start].split()[-1] == CUES[fact["kind"]]
        assert summary in references
        assert len(set(references)) == 3
        assert all(stated(text) == {fact["value"] for fact in report["facts"]} <= stated(article)
                   for text in references)
        assert all(line.endswith(".") for line in "\n".join(references).split("\n"))
        assert not re.search(r"[\[\]{}|]|  |\ba [aeiou]|\ban [^aeiouh]", " ".join([article, *references]))
        assert all(sentence[0].isupper() for sentence in re.split(r"(?<=\.)\s", article + "\n" + summary))


def test_a_report_depends_on_its_index_alone():
    assert reports(count=5) == reports(count=9)[:5]
    assert reports(count=5) != reports(count=5, seed=8)


def test_other_processes_write_the_same_reports():
    code = f"from headtohead.articles.newswire import newswire; print(list(newswire('test', 4, **{SETTINGS!r})))"
    for hash_seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        output = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
        assert output.strip() == str(reports("test", 4))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_longer_versions_tell_the_same_stories(scale):
    for short, long in zip(reports(count=20), reports(count=20, scale=scale), strict=True):
        assert (short["summary"], short["references"]) == (long["summary"], long["references"])
        assert len(long["article"].split()) >= scale / 2 * len(short["article"].split())


@pytest.mark.parametrize("kind", NAMES)
def test_no_name_is_in_two_splits(kind):
    pools = [_names(kind, split) for split in SPLITS]
    assert len(set(chain(*pools))) == sum(map(len, pools)) >= 140
    assert min(map(len, pools)) >= 20


def test_names_of_training_articles_never_occur_in_other_splits():
    seen = " ".join(report["article"] for report in reports("train", 300))
    for split in ("validation", "test"):
        for report in reports(split, 100, seed=1):
            assert not any(name in seen for name in names(report))


def test_distractors_add_wrong_values_of_every_kind():
    assert all(sum(map(report["article"].count, _names("city", "train"))) == 1 for report in reports(distractors=0))
    for kind in NAMES:
        pool = _names(kind, "train")
        crowded = [sum(map(report["article"].count, pool)) > 1 for report in reports(distractors=0.4)]
        assert sum(crowded) > len(crowded) / 4, kind
    for pattern in (r"\b\d{3}\b", r"\b\d\d [A-Z]"):  # numbers, days
        assert sum(len(re.findall(pattern, report["article"])) > 1 for report in reports(distractors=0.4)) > 75


def test_distractors_is_a_share_of_the_filler():
    fixed = re.compile(r"\\\{\w+\\\}")
    wrong = [fixed.sub(".+", re.escape(t)) for t in chain(WRONG, *(topic["wrong"] for topic in TOPICS.values()))]
    wrong = re.compile("|".join(re.sub(r"\\\[(.*?)\\\]", ".+", pattern) for pattern in wrong))
    sentences = [s for report in reports(scale=4) for s in re.split(r"(?<=\.) ", report["article"])]
    share = sum(bool(wrong.fullmatch(s)) for s in sentences) / len(sentences)
    assert 0.3 < share < 0.4  # of all sentences, facts included


def test_no_article_resembles_another():
    train = [shingles(report) for report in reports("train", 300)]
    for report in reports("test", 100):
        mine = shingles(report)
        assert max(len(mine & other) / len(mine | other) for other in train) < 0.6
    everything = [report["article"] for split in SPLITS for report in reports(split, 1000)]
    assert len(set(everything)) == len(everything)


def test_facts_are_spread_over_the_article():
    places = [fact["start"] / len(report["article"]) for report in reports() for fact in report["facts"]]
    quarters = [sum(low <= place < low + 0.25 for place in places) / len(places) for low in (0, 0.25, 0.5, 0.75)]
    assert min(quarters) > 0.12


def test_templates_keep_the_rules():
    kinds = {f"{{{kind}}}" for kind in KINDS}
    assert len(TOPICS) >= 6
    for topic in TOPICS.values():
        assert set(topic) == {"lead", *KINDS, "filler", "wrong", "summary"}
        assert all(set(re.findall(r"\{\w+\}", t)) == kinds for t in topic["summary"])
        assert all(re.findall(r"\{\w+\}", t) == [f"{{{kind}}}"] for kind in KINDS for t in topic[kind])
        assert not any("{" in t for t in (*topic["filler"], *FILLER))
        stories = [
            words(lead) + sum(min(map(words, topic[kind])) for kind in KINDS if f"{{{kind}}}" not in lead)
            for lead in topic["lead"]
        ]
        assert min(stories) <= SHORTEST_ARTICLE  # or the shortest articles could not be written
        for template in chain(topic["lead"], *(topic[kind] for kind in KINDS)):
            assert all(CUES[kind] == cue for cue, kind in SLOT.findall(template)), template
        assert all(SLOT.search(template) for template in (*topic["wrong"], *WRONG))
        for template in chain(*topic.values(), FILLER, WRONG):
            assert "\n" in template or words(template) <= LONGEST_SENTENCE, template


def test_most_wrong_values_stand_where_right_ones_do():
    for topic in TOPICS.values():
        deck = [SLOT.findall(template) for template in (*topic["wrong"], *WRONG)]
        assert sum(all(CUES[kind] == cue for cue, kind in slots) for slots in deck) >= len(deck) / 2
        assert {kind for slots in deck for cue, kind in slots if CUES[kind] == cue} == set(KINDS)


def test_a_sentence_with_a_right_value_never_has_a_wrong_one():
    right = {frame for topic in TOPICS.values() for part in ("lead", *KINDS) for text in topic[part]
             for frame in readings(text)}
    wrong = {frame for text in chain(WRONG, *(topic["wrong"] for topic in TOPICS.values())) for frame in readings(text)}
    assert not right & wrong


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_two_words_before_a_value_do_not_tell(topic, kind):
    before = re.compile(rf"(\w+ \w+) \{{{kind}\}}")
    right, wrong = ({found.lower() for part in parts for text in TOPICS[topic][part] for reading in readings(text)
                     for found in before.findall(reading)} for parts in (("lead", kind), ("wrong",)))
    assert right & wrong


def test_moved_reports_differ_in_where_one_sentence_stands():
    rows = list(moved(10, **SETTINGS))
    assert [row["facts"][0]["kind"] for row in rows[::4]] == [*KINDS, *KINDS]
    for story in (rows[start : start + 4] for start in range(0, len(rows), 4)):
        sentences = [re.split(r"(?<=\.) ", row["article"]) for row in story]
        (value,) = {row["facts"][0]["value"] for row in story}
        others = [[sentence for sentence in article if value not in sentence] for article in sentences]
        assert [row["facts"][0]["position"] for row in story] == [0, 1, 2, 3]
        assert others == 4 * [others[0]]
        assert all(len(article) == len(others[0]) + 1 and len(row["facts"]) == 1
                   for row, article in zip(story, sentences, strict=True))
        assert len({row["summary"] for row in story}) == 1
        assert all(row["article"].index(value) == row["facts"][0]["start"] for row in story)
        assert value in sentences[0][1]
        assert value in sentences[3][-1]


def test_moved_facts_stand_in_their_quarters():
    rows = list(moved(100, **SETTINGS))
    places = [(row["facts"][0]["position"], row["facts"][0]["start"] / len(row["article"])) for row in rows]
    for position in range(4):
        share = [position / 4 <= place < (position + 1) / 4 for at, place in places if at == position]
        assert sum(share) > 0.7 * len(share)


def test_moved_stories_are_no_others():
    assert {row["article"] for row in moved(100, **SETTINGS)}.isdisjoint(row["article"] for row in reports("test"))
    known = {name for kind in NAMES for name in _names(kind, "train")}
    assert known.isdisjoint(chain(*(stated(row["summary"]) for row in moved(50, **SETTINGS))))


@pytest.mark.parametrize(("asked", "longer", "versions"), [(300, 100, 120), (16, 16, 20)])
def test_further_test_sets_are_small(asked, longer, versions):
    data = Data(source="newswire", path=None, article="article", summary="highlights", train=1, validation=1,
                test=asked, newswire={"words": [60, 120], "distractors": 0.4, "longer": [2]})
    counts = {name: len(list(rows)) for name, rows in open_splits(data, seed=7)[0].items()}
    assert counts == {"test": asked, "validation": 1, "train": 1, "test-2x": longer, "test-moved": versions}


@pytest.mark.parametrize(("text", "values"), [
    ("Anna Barlow and Anna\nBishop left North Barton.", {"Anna Barlow", "Anna Bishop", "North Barton"}),
    ("Anna Barton", set()), ("On 12 June, 130 of 1,300 came to 12.130.", {"12 June", "130"}),
    ("XAnna Barlow, 1130 people, 12 Juneau", set()), ("", set())])
def test_values_are_found_in_any_text(text, values):
    assert stated(text) == values


@pytest.mark.parametrize(
    "change",
    [
        {"split": "dev"}, {"count": -1}, {"count": 1.5}, {"seed": "1"}, {"words": (60,)}, {"words": (10, 90)},
        {"words": (90, 95)}, {"words": 90}, {"distractors": 1.1}, {"distractors": "x"}, {"distractors": float("nan")},
        {"scale": 3}, {"scale": True},
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        newswire(**{"split": "train", "count": 1, **SETTINGS, **change})
