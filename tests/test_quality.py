"""Scores against brute force, intervals against what they promise, facts and sentences by hand."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from headtohead.quality import facts, lead
from headtohead.quality.measures import BLEU, ROUGE, available, by_article, measure, over_trainings
from headtohead.quality.metric import SummaryQuality
from headtohead.quality.reading import read_articles, read_predictions
from headtohead.quality.scoring import over_seeds, score

SUMMARIES = ["Anna Berg opened the schools.\nIt has 120 pupils.", "Nobody came to Oslo.", ""]
REFERENCES = ["It has 120 pupils.\nAnna Berg opened a school in Oslo.", "Nobody came to Bergen today.", "Rain fell."]
ROWS = [{"id": str(i), "summary": summary, "reference": reference}
        for i, (summary, reference) in enumerate(zip(SUMMARIES, REFERENCES, strict=True))]
lines = st.lists(st.sampled_from(["the", "cats", "cat", "sat", "on", "a", "mat"]), min_size=1, max_size=6).map(" ".join)
sentences = st.lists(lines, min_size=1, max_size=3).map("\n".join)
texts = st.lists(st.text("ab cd.\n", max_size=30), min_size=1, max_size=6)


def compute(summaries, references, language="en"):
    return SummaryQuality(language).compute(predictions=summaries, references=references)


@pytest.mark.parametrize("name", ROUGE)
def test_rouge_is_the_mean_of_pairs_scored_alone(name):
    alone = [RougeScorer([name], use_stemmer=True).score(reference, summary)[name].fmeasure
             for summary, reference in zip(SUMMARIES, REFERENCES, strict=True)]
    assert compute(SUMMARIES, REFERENCES)[name] == pytest.approx(np.mean(alone))


def test_bleu_is_the_corpus_bleu_of_sacrebleu():
    expected = sacrebleu.corpus_bleu(SUMMARIES, [REFERENCES]).score / 100
    assert compute(SUMMARIES, REFERENCES)["bleu"] == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(sentences, st.lists(sentences, min_size=1, max_size=4)), min_size=1, max_size=3))
def test_several_references_count_as_the_libraries_count_them(pairs):
    summaries, references = map(list, zip(*pairs, strict=True))
    scorer = RougeScorer(list(ROUGE), use_stemmer=True)
    best = [scorer.score_multi(alike, summary) for summary, alike in pairs]
    expected = {name: np.mean([scores[name].fmeasure for scores in best]) for name in ROUGE}
    most = max(map(len, references))
    columns = [[alike[min(i, len(alike) - 1)] for alike in references] for i in range(most)]
    expected[BLEU] = sacrebleu.corpus_bleu(summaries, columns).score / 100
    assert compute(summaries, references) == pytest.approx(expected)


def test_english_is_scored_by_the_defaults_of_the_libraries():
    summary, reference = "Zürich's café: “3.5 naïve voters” voted.", "The cafés in Zürich have 3.5 voters (naïve)."
    expected = {name: value.fmeasure for name, value in
                RougeScorer(list(ROUGE), use_stemmer=True).score(reference, summary).items()}
    bleu = sacrebleu.corpus_bleu([summary], [[reference]]).score / 100
    assert compute([summary], [reference]) == pytest.approx({**expected, BLEU: bleu}, abs=0, rel=1e-15)


def test_newlines_are_kept_or_rougelsum_would_be_rougel():
    scores = compute(SUMMARIES[:1], REFERENCES[:1])
    assert scores["rougeLsum"] > scores["rougeL"]


def test_an_article_before_the_summary_would_show():
    with_article = [f"{reference} {summary}" for summary, reference in zip(SUMMARIES, REFERENCES, strict=True)]
    assert compute(SUMMARIES, REFERENCES)["rouge1"] != pytest.approx(compute(with_article, REFERENCES)["rouge1"])


@settings(max_examples=30, deadline=None)
@given(texts, st.randoms())
def test_scores_stay_within_bounds_and_ignore_order(summaries, random):
    references = random.sample(summaries, len(summaries))
    pairs = list(zip(summaries, references, strict=True))
    shuffled = random.sample(pairs, len(pairs))
    scores, again = compute(summaries, references), compute(*map(list, zip(*shuffled, strict=True)))
    assert all(0 <= value <= 1 + 1e-9 for value in scores.values())
    assert scores == pytest.approx(again)


def test_identical_texts_score_one():
    text = ["The school in Oslo opened on Monday with many pupils.", "Rain fell on the city all day long."]
    assert all(value == pytest.approx(1) for value in compute(text, text).values())


def test_empty_summaries_score_zero():
    details = score([{"id": "a", "summary": "", "reference": "Rain fell."}], [], {}, "en")
    assert {details[name] for name in (*ROUGE, BLEU)} == {0.0}


@pytest.mark.parametrize(("value", "summary", "found"), [
    ("12", "It took 12 days.", True), ("12", "It took 120 days.", False), ("12", "In all 12.", True),
    ("12", "In all 12,000.", False), ("12", "About 5.12 percent.", False), ("12", "12, not 13", True),
    ("Anna Berg", "Said Anna\nBerg's mother", True), ("Anna Berg", "Anna Bergen", False), ("Oslo", "oslo", False),
    ("C++", "They use C++ there", True), ("St. Ives", "StX Ives", False),
    ("北京", "他在北京市。", True), ("Oslo", "他在Oslo举行", True), ("12", "共12人", True), ("12", "共120人", False),
    ("राम", "रामा आया", False), ("राम", "राम आया", True)])
def test_a_fact_is_stated_as_words_of_its_own(value, summary, found):
    assert facts.states(summary, value) is found


@pytest.mark.parametrize(("distance", "group"), [
    (0, "0-31"), (31, "0-31"), (32, "32-63"), (127, "96-127"), (128, "128-255"), (256, "256-511"), (9999, "512+")])
def test_distances_fall_into_groups(distance, group):
    assert facts.group(distance) == group


def test_fact_recall_by_hand():
    known = [{"set": "test", "id": "0", "facts": [{"kind": "person", "value": "Anna Berg", "distance": 10},
                                                  {"kind": "number", "value": "12", "distance": 40}]},
             {"set": "test", "id": "1", "facts": [{"kind": "city", "value": "Oslo", "distance": 10}]},
             {"set": "test", "id": "2", "facts": [{"kind": "city", "value": "Rome", "distance": 70}]}]
    details = score(ROWS, known, {}, "en")
    by_distance = {row["distance"]: (row["facts"], row["fact_recall"]) for row in details["fact_recall_by_distance"]}
    by_kind = {row["kind"]: row["fact_recall"] for row in details["fact_recall_by_kind"]}
    assert details["fact_recall"] == 0.5
    assert by_distance == {"0-31": (2, 1.0), "32-63": (1, 0.0), "64-95": (1, 0.0)}
    assert by_kind == {"person": 1.0, "number": 0.0, "city": 0.5}
    assert details["articles"]["facts_found"] == [1, 1, 0]


def test_loss_is_weighted_by_tokens_and_left_out_where_there_is_none():
    losses = [{**row, "loss": loss, "tokens": tokens}
              for row, loss, tokens in zip(ROWS, (1.0, 2.0, 4.0), (10, 30, 0), strict=True)]
    assert score(losses, [], {}, "en")["loss"] == pytest.approx(1.75)
    assert "loss" not in score(ROWS, [], {}, "en")


def test_further_sets_are_scored_apart():
    rows = [*ROWS, {**ROWS[0], "set": "test-2x", "loss": 3.0, "tokens": 4}]
    known = [{"set": "test-2x", "id": "0", "facts": [{"kind": "number", "value": "120", "distance": 600}]}]
    details = score(rows, known, {}, "en")
    assert {**details, "further": {}} == score(ROWS, [], {}, "en")
    assert (details["further"]["test-2x"]["loss"], details["further"]["test-2x"]["fact_recall"]) == (3.0, 1.0)


@pytest.mark.parametrize(("rows", "known", "message"), [
    ([], [], "no rows"), ([*ROWS, ROWS[1]], [], "'1' twice"),
    ([{"id": "a", "summary": "x"}], [], "row 1 .*lacks reference"),
    ([{**ROWS[0], "loss": 1.0, "tokens": 2}, ROWS[1]], [], "'1' has no loss"),
    (ROWS, [{"set": "test", "id": "zzz", "facts": []}], "facts of 'zzz'")])
def test_wrong_rows_are_named(rows, known, message):
    with pytest.raises(ValueError, match=message):
        score(rows, known, {}, "en")


def test_predictions_must_be_of_the_articles(tmp_path):
    write(tmp_path / "test.jsonl", [{"id": "a"}, {"id": "b"}])
    for name, rows in {"swapped": "ba", "short": "a", "twice": "aa"}.items():
        path = write(tmp_path / f"{name}.jsonl", [{"id": i, "summary": "", "reference": ""} for i in rows])
        with pytest.raises(ValueError, match=rf"{name}.jsonl: set 'test'"):
            read_predictions(path, tmp_path)
    with pytest.raises(ValueError, match="1: no reference, summary"):
        read_predictions(tmp_path / "test.jsonl", tmp_path)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


STORY = {"id": "0", "article": "Anna Barlow came to North Kirby on 12 June. Clara Keller had 130.", "summary": "",
         "references": ["Anna Barlow was in North Kirby.", "In North Kirby, 12 June: Anna Barlow."]}


@pytest.mark.parametrize(("summary", "counts"), [
    ("Anna Barlow, North Kirby, 12 June", (3, 3, 0)), ("Clara Keller was in North Kirby.", (2, 1, 1)),
    ("Anna Keller has 130 or 150.", (3, 0, 1)), ("Anna Barlow, Anna Barlow!", (1, 1, 0)), ("Nobody came.", (0, 0, 0))])
def test_values_are_right_or_copied_or_made_up(summary, counts):
    facts_known = [{"set": "test", "id": "0", "facts": [{"kind": "day", "value": "12 June", "distance": 9}]}]
    details = score([{"id": "0", "summary": summary, "reference": "x"}], facts_known, {"test": {"0": STORY}})
    values, right, copied = counts
    columns = details["articles"]
    assert [columns[name] for name in ("values", "values_right", "values_copied")] == [[n] for n in counts]
    assert details.get("fact_precision") == (right / values if values else None)
    assert details.get("wrong_from_article") == (copied / (values - right) if values > right else None)


def test_references_are_taken_from_the_articles():
    rows = [{"id": "0", "summary": STORY["references"][1], "reference": "Nothing alike."}]
    assert score(rows, [], {"test": {"0": STORY}})["rouge1"] == pytest.approx(1)
    assert score(rows, [], {"test": {"0": {"article": "a", "summary": "b"}}})["rouge1"] == 0


def test_fact_recall_by_position():
    rows = [*ROWS, *({"id": f"{i}", "set": "test-moved", "summary": "Oslo" if i < 3 else "", "reference": "Oslo"}
                     for i in range(8))]
    known = [{"set": "test-moved", "id": f"{i}", "facts": [
        {"kind": "city", "value": "Oslo", "distance": 100 - 10 * (i % 4), "position": i % 4}]} for i in range(8)]
    found = score(rows, known, {})["further"]["test-moved"]["fact_recall_by_position"]
    assert [(row["position"], row["facts"], row["tokens"], row["fact_recall"]) for row in found] == [
        (0, 2, 100, 0.5), (1, 2, 90, 0.5), (2, 2, 80, 0.5), (3, 2, 70, 0.0)]


def many(rng, count):
    """Columns of random articles, of which longer ones do worse."""
    sizes = rng.integers(0, 6, count)
    counts = {"facts": sizes, "values": rng.integers(0, 5, count), "tokens": rng.integers(5, 60, count)}
    totals = np.maximum(rng.integers(8, 40, count)[:, None] - np.arange(4), 0)
    matches = rng.binomial(totals, [0.7, 0.5, 0.4, 0.3])
    right = rng.binomial(counts["values"], 0.6)
    return {**{name: rng.beta(4, 2, count) for name in ROUGE}, **counts,
            "loss": rng.gamma(2, 1, count) + counts["tokens"] / 30,
            "facts_found": rng.binomial(sizes, 0.9 - sizes / 10),
            "values_right": right, "values_copied": rng.binomial(counts["values"] - right, 0.5),
            "bleu_statistics": np.column_stack([totals[:, 0], rng.integers(8, 40, count), matches, totals])}


def test_what_articles_add_has_the_measures_mean_and_error():
    rng = np.random.default_rng(5)
    articles = many(rng, 400)
    drawn = [{name: values[which] for name, values in articles.items()} for which in rng.integers(0, 400, (1500, 400))]
    assert len(available(articles)) == 9
    for name in available(articles):
        added = by_article(name, articles)
        assert added.mean() == pytest.approx(measure(name, articles), rel=1e-12)
        error = np.std([measure(name, again) for again in drawn])
        assert np.std(added) / np.sqrt(400) == pytest.approx(error, rel=0.08), name


def test_one_training_repeated_has_no_spread_but_the_articles_interval():
    articles = many(np.random.default_rng(6), 50)
    for name in available(articles):
        one, three = over_trainings(name, [articles]), over_trainings(name, [articles] * 3)
        assert one[name] == pytest.approx(three[name])
        assert (one[f"{name}_spread"], three[f"{name}_spread"]) == (None, pytest.approx(0))
        assert one[f"{name}_low"] < one[name] < one[f"{name}_high"]
        assert one[f"{name}_low"] == pytest.approx(three[f"{name}_low"])


def trainings():
    """Two trainings' details: the second finds less, and writes an empty second summary of a moved fact."""
    facts_known = [{"set": name, "id": "0", "facts": [
        {"kind": "number", "value": "120", "distance": 8, "position": 0}]} for name in ("test", "test-moved")]
    rows = [{**row, "loss": 1.0, "tokens": 4, "cut": 0, "written_by": "sdpa", "later_tokens": 12, "passes": 4}
            for row in ROWS]
    worse = [{**row, "summary": row["summary"].replace("120", "130"), "loss": 2.0, "written_by": "flex",
              "passes": 6} for row in rows]
    return [score([*mine, *({**row, "set": "test-moved"} for row in mine)], facts_known, {}) for mine in (rows, worse)]


def test_trainings_are_brought_together():
    one, other = trainings()
    flat, details = over_seeds([one, other])
    assert flat == {**{name: pytest.approx((one[name] + other[name]) / 2) for name in (*ROUGE, BLEU)},
                    "loss": 1.5, "fact_recall": 0.5, "seeds": 2}
    assert details["loss_spread"] == pytest.approx(np.std([1, 2], ddof=1))
    assert details["loss_low"] < 1.5 < details["loss_high"]
    assert details["written_by"] == "sdpa and flex"
    assert (one["tokens_a_pass"], details["tokens_a_pass"]) == (3.0, 2.5)
    (row,) = details["further"]["test-moved"]["fact_recall_by_position"]
    assert (row["facts"], row["tokens"], row["fact_recall"]) == (1, 8, 0.5)
    assert "articles" not in details
    assert details.keys() | {"articles", "by_fact"} == one.keys()
    json.dumps(details, allow_nan=False)


def test_one_training_brought_together_keeps_its_scores():
    one = trainings()[0]
    flat, details = over_seeds([one])
    assert details == {name: value for name, value in one.items() if name not in ("articles", "by_fact", "further")} | {
        "further": {"test-moved": {name: value for name, value in one["further"]["test-moved"].items()
                                   if name not in ("articles", "by_fact")}}}
    assert (flat["seeds"], details["loss_spread"]) == (1, None)


def test_trainings_are_of_the_same_articles():
    with pytest.raises(ValueError, match="same articles"):
        over_seeds([score(ROWS, [], {}), score(ROWS[::-1], [], {})])


def test_articles_are_read_by_set_and_id(tmp_path):
    write(tmp_path / "test.jsonl", [{"id": "a"}, {"id": "b"}])
    write(tmp_path / "test-2x.jsonl", [{"id": "c"}])
    write(tmp_path / "train.jsonl", [{"id": "d"}])
    assert read_articles(tmp_path) == {"test": {"a": {"id": "a"}, "b": {"id": "b"}}, "test-2x": {"c": {"id": "c"}}}


def test_intervals_hold_their_number_and_repeat():
    details = score(ROWS, [], {}, "en")
    assert details == score(ROWS, [], {}, "en")
    names = (*ROUGE, BLEU)
    assert all(details[f"{name}_low"] <= details[name] <= details[f"{name}_high"] for name in names)
    assert not any(math.isnan(details[name]) for name in names)


def test_one_article_has_no_interval():
    details = score(ROWS[:1], [], {}, "en")
    assert (details["rouge1_low"], details["bleu_high"]) == (None, None)
    json.dumps(details, allow_nan=False)


@pytest.mark.parametrize(("article", "sentences"), [
    ("one went. two stayed, mr. x said. \"three?\" four left.",
     ["one went.", "two stayed, mr. x said.", '"three?"']),  # CNN/DailyMail is often lower-cased
    ('Mr. Hall met Dr. J. R. Wu in the U.S. Senate. "It went well!" he said. They left. More.',
     ["Mr. Hall met Dr. J. R. Wu in the U.S. Senate.", '"It went well!" he said.', "They left."]),
    ("It cost 3.5 million.\nOn Jan. 5 it\nfell.\n\nHEADLINE\n\nEnd.",
     ["It cost 3.5 million.", "On Jan. 5 it fell.", "HEADLINE"]),
    ("He said \u201cNo.\u201d She left.", ["He said \u201cNo.\u201d", "She left."]),
    ("No stop at all", ["No stop at all"]), ("", [])])
def test_lead3_is_the_first_three_sentences(article, sentences):
    assert lead.lead3(article, "en").split("\n") == (sentences or [""])


def test_scoring_loads_no_torch():
    code = "import sys, headtohead.quality.scoring; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=True)
