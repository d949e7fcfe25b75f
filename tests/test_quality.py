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
from headtohead.quality.intervals import difference, interval
from headtohead.quality.measures import BLEU, ROUGE
from headtohead.quality.metric import SummaryQuality
from headtohead.quality.rows import read_predictions
from headtohead.quality.scoring import score

SUMMARIES = ["Anna Berg opened the schools.\nIt has 120 pupils.", "Nobody came to Oslo.", ""]
REFERENCES = ["It has 120 pupils.\nAnna Berg opened a school in Oslo.", "Nobody came to Bergen today.", "Rain fell."]
ROWS = [{"id": str(i), "summary": summary, "reference": reference}
        for i, (summary, reference) in enumerate(zip(SUMMARIES, REFERENCES, strict=True))]
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
    assert set(score([{"id": "a", "summary": "", "reference": "Rain fell."}], [], 0, "en")[0].values()) == {0.0}


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
    flat, details = score(ROWS, known, 0, "en")
    by_distance = {row["distance"]: (row["facts"], row["fact_recall"]) for row in details["fact_recall_by_distance"]}
    by_kind = {row["kind"]: row["fact_recall"] for row in details["fact_recall_by_kind"]}
    assert flat["fact_recall"] == 0.5
    assert by_distance == {"0-31": (2, 1.0), "32-63": (1, 0.0), "64-95": (1, 0.0)}
    assert by_kind == {"person": 1.0, "number": 0.0, "city": 0.5}
    assert details["articles"]["facts_found"] == [1, 1, 0]


def test_loss_is_weighted_by_tokens_and_left_out_where_there_is_none():
    losses = [{**row, "loss": loss, "tokens": tokens}
              for row, loss, tokens in zip(ROWS, (1.0, 2.0, 4.0), (10, 30, 0), strict=True)]
    assert score(losses, [], 0, "en")[0]["loss"] == pytest.approx(1.75)
    assert "loss" not in score(ROWS, [], 0, "en")[0]


def test_further_sets_are_scored_apart():
    rows = [*ROWS, {**ROWS[0], "set": "test-2x", "loss": 3.0, "tokens": 4}]
    known = [{"set": "test-2x", "id": "0", "facts": [{"kind": "number", "value": "120", "distance": 600}]}]
    flat, details = score(rows, known, 0, "en")
    assert flat == score(ROWS, [], 0, "en")[0]
    assert (details["further"]["test-2x"]["loss"], details["further"]["test-2x"]["fact_recall"]) == (3.0, 1.0)


@pytest.mark.parametrize(("rows", "known", "message"), [
    ([], [], "no rows"), ([*ROWS, ROWS[1]], [], "'1' twice"),
    ([{"id": "a", "summary": "x"}], [], "row 1 .*lacks reference"),
    ([{**ROWS[0], "loss": 1.0, "tokens": 2}, ROWS[1]], [], "'1' has no loss"),
    (ROWS, [{"set": "test", "id": "zzz", "facts": []}], "facts of 'zzz'")])
def test_wrong_rows_are_named(rows, known, message):
    with pytest.raises(ValueError, match=message):
        score(rows, known, 0, "en")


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


def columns(values):
    return {"id": list(range(len(values))), "rouge1": list(values)}


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        low, high = interval("rouge1", columns(rng.beta(2, 5, size=60)), seed % 4)
        hits += low <= 2 / 7 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_the_paired_interval_of_a_constant_shift_is_that_shift():
    values = np.random.default_rng(1).uniform(size=50)
    assert difference("rouge1", columns(values + 0.25), columns(values), 0) == pytest.approx((0.25, 0.25, 0.25))


def test_pairing_needs_the_same_articles():
    with pytest.raises(ValueError, match="same articles"):
        difference("rouge1", columns([1, 2]), columns([1, 2, 3]), 0)


def test_intervals_hold_their_number_and_repeat():
    flat, details = score(ROWS, [], 7, "en")
    assert details == score(ROWS, [], 7, "en")[1]
    assert all(details[f"{name}_low"] <= flat[name] <= details[f"{name}_high"] for name in flat)
    assert not any(map(math.isnan, flat.values()))


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
