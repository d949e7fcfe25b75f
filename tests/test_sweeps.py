"""Cost against length and batch size: where lines cross, and what had no room."""

import numpy as np
import pytest
import test_reporting
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import LENGTH, edit, forward

from headtohead import reporting
from headtohead.reporting.results import read_results
from headtohead.reporting.sweeps import BY_LENGTH, Curve, Point, compare, crossings

made, params, run = test_reporting.made, test_reporting.params, test_reporting.run  # pytest finds fixtures by name


LENGTHS = [2**power for power in range(5, 15)]


def line(value, noise=0.001):
    """A curve through `value` at each of `LENGTHS`, with a range of so much to each side."""
    return Curve([Point(at, value(at), value(at) * (1 - noise), value(at) * (1 + noise)) for at in LENGTHS], [])


@settings(max_examples=100, deadline=None)
@given(st.floats(40, 12_000), st.floats(0, 2), st.floats(0.2, 2))
def test_power_laws_cross_where_they_are_equal(meeting, exponent, steeper):
    flat, steep = (line(lambda at, p=power: (at / meeting)**p) for power in (exponent, exponent + steeper))
    for a, b, words in ((flat, steep, "b, from about {:,.0f} a"), (steep, flat, "a, from about {:,.0f} b")):
        found = compare(a, b, least=1.0)
        assert found.crossings == pytest.approx([meeting])
        assert found.in_words("a", "b") == words.format(found.crossings[0])


def test_lines_that_do_not_cross_say_who_takes_less_throughout():
    found = compare(line(lambda at: 2.0 * at), line(lambda at: 3.0 * at), least=1.0)
    assert (found.crossings, found.in_words("a", "b"), found.range) == ([], "a throughout", "32 to 16,384")
    assert compare(line(lambda at: 3.0), line(lambda at: 2.0), least=1.0).in_words("a", "b") == "b throughout"


@pytest.mark.parametrize(("noise", "least", "words"), [
    (0.001, 1.0, "a, from about 724 b"),
    (0.06, 1.0, "about the same"),  # ranges overlap
    (0.001, 1.2, "about the same")])  # the machine itself differed by more
def test_a_crossing_of_lines_that_are_about_the_same_is_none(noise, least, words):
    """The two differ by a tenth, with the order changed between 512 and 1,024."""
    found = compare(line(lambda at: 1.0, noise), line(lambda at: 1.1 if at < 600 else 1 / 1.1, noise), least)
    assert found.in_words("a", "b") == words


def test_an_order_that_only_noise_changes_at_the_end_is_no_crossing():
    ours, theirs = line(lambda at: at, 0.02), line(lambda at: 1.5 * at if at < 16_000 else 0.99 * at, 0.02)
    assert compare(ours, theirs, 1.0).in_words("a", "b") == "a; about the same at 16,384"


def set_forward(run, name, values):
    """Let a variant's forward passes of batch 1 take these times; None is a point without room."""
    def change(profile):
        for rows in ("timings", "memory"):
            rest = [row for row in profile[rows] if row["work"] != "forward" or row["batch"] != 1]
            sizes = {at: 400.0 if value and rows == "memory" else value for at, value in values.items()}
            profile[rows] = [*rest, *(forward(rows, 1, at, value) for at, value in sizes.items())]

    edit(run / f"data/details/{name}/efficiency.json", change)


def test_the_report_says_where_the_lines_cross(run, params):
    set_forward(run, "standard", {64: 1.0, LENGTH: 4.0})
    set_forward(run, "flash", {64: 2.0, LENGTH: 3.0})
    set_forward(run, "flash_alibi", {64: 3.0, LENGTH: 2.0, 512: 9.0})
    found = {pair: words for pair, _, words, _ in crossings(read_results(params), BY_LENGTH).rows}
    crossing = 64 * np.exp(np.log(LENGTH / 64) * np.log(2) / (np.log(2) + np.log(4 / 3)))  # by hand
    assert found["flash / standard"] == f"standard, from about {crossing:.0f} flash"
    assert found["flash_alibi / standard"].startswith("standard, from about ")
    assert found["flash / flash_alibi"].startswith("flash, from about ")
    reporting.build(params)
    text = (run / "report/report.md").read_text(encoding="utf-8")
    assert found["flash / standard"] in text
    assert "flash_sparse / flash_alibi" not in text.replace("\\", "")  # of others only those that cross


def test_what_had_no_room_and_what_was_left_out_is_told(run, params):
    set_forward(run, "standard", {64: 1.0, LENGTH: 4.0, 512: None})
    set_forward(run, "flash_alibi", {64: 1.0, LENGTH: 4.0, 512: 9.0})
    reporting.build(params)
    text = (run / "report/report.md").read_text(encoding="utf-8").replace("\\", "")
    assert "| standard | forward ms | 1.00 | 4.00 | no room |" in text
    assert "| flash_alibi | forward ms | 1.00 | 4.00 | 9.00 |" in text
    assert "| flash | forward ms | 1.50 | 3.00 | - |" in text
    assert text.count("no room in memory (standard at 512)") == 2
    assert "Left out, because learned positions end there: standard, flash and flash_sparse beyond 176 tokens." in text


@pytest.mark.pictures
def test_a_point_without_room_is_a_cross(run, params):
    def crosses():
        reporting.build(params)
        return {name: (run / f"plots/{name}.svg").read_text().count("stroke-width: 2.2")
                for name in ("time_by_length", "memory_by_length", "batch_sizes")}

    set_forward(run, "flash_alibi", {64: 1.0, LENGTH: 4.0, 512: 9.0})
    before = crosses()
    set_forward(run, "flash_alibi", {64: 1.0, LENGTH: 4.0, 512: None})
    after = crosses()
    assert before["batch_sizes"] == after["batch_sizes"]
    assert all(after[name] > before[name] for name in ("time_by_length", "memory_by_length"))


