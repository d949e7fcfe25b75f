"""What the report claims of a run, and what it does not."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import FALL, results

from headtohead.params import read_params
from headtohead.reporting.claims import BUSY, judge
from headtohead.reporting.endings import still_falling
from headtohead.reporting.outlook import how_sure, next_step
from headtohead.reporting.recommendation import recommend, warnings
from headtohead.reporting.results import Training

PARAMS = read_params(Path(__file__).parents[1] / "params.yaml")
ARTICLES = 60
LESS = {"forward": 0.8, "generate": 0.7}  # what a fast kernel costs
MORE = {"train_step": 1.2}


def scores(mean, luck=0.004, trainings=5, articles=ARTICLES, seed=0, noise=0.1):
    """[trainings, articles] around `mean`; functions of one `seed` have the same articles."""
    shared, rng = np.random.default_rng(1).normal(0, noise, articles), np.random.default_rng(seed)
    found = shared - shared.mean() + rng.normal(0, 0.02, (trainings, articles))
    found -= found.mean(1, keepdims=True)
    return found + mean + luck * np.linspace(-1, 1, trainings)[:, None] if trainings > 1 else found + mean


def said(recall, ratios=None, **rest):
    """The first sentence of a run, standard's and flash's recall being 0.8."""
    full = {"standard": scores(0.8), "flash": scores(0.8)}
    return recommend(judge(results(PARAMS, full | recall, ratios, **rest)))


def test_a_faster_kernel_of_the_same_function_is_taken():
    sentence = said({"flash_sparse": scores(0.4)}, {"flash": LESS})
    assert sentence.startswith("On this machine, take flash: it computes what standard computes, generation takes 0.70 "
                               "(")
    assert sentence.endswith(") times as long and no cost is higher beyond its margin.")


def test_a_better_function_is_taken_before_a_faster_one():
    sentence = said({"flash_alibi": scores(0.85, seed=1)}, {"flash": LESS})
    assert sentence.startswith("On this machine, take flash_alibi: fact recall +0.050 (+0.04")
    assert " over full attention, ROUGE-1 is not inferior by 0.01 and no cost is higher beyond its margin." in sentence


def test_an_equivalent_function_is_taken_for_its_speed():
    sentence = said({"flash_alibi": scores(0.801, seed=1)}, {"flash": {"generate": 0.9}, "flash_alibi": LESS})
    assert "take flash_alibi: fact recall is equivalent to full attention's within 0.02 (+0.001 (" in sentence
    assert "generation takes 0.70 (" in sentence


def test_a_difference_below_the_margin_makes_no_choice():
    slightly = {"flash_alibi": scores(0.806, luck=0.0001, seed=1)}
    full = {name: scores(0.8, luck=0.0001) for name in ("standard", "flash")}
    claims = judge(results(PARAMS, full | slightly, {"flash": LESS, "flash_alibi": {"generate": 0.9}}))
    assert claims.quality["flash_alibi"].words == "better, by less than 0.02"
    assert "take flash:" in recommend(claims)
    worse = judge(results(PARAMS, full | {"flash_alibi": scores(0.794, luck=0.0001, seed=1)}, {"flash_alibi": LESS}))
    assert worse.quality["flash_alibi"].words == "worse, by less than 0.02"
    assert "take flash_alibi: fact recall is equivalent to full attention's within 0.02 (-0.006 (" in recommend(worse)


def test_of_several_that_are_as_good_the_fastest_generation_is_taken():
    costs = {"flash": {"generate": 0.6}, "flash_alibi": LESS}
    assert "take flash:" in said({"flash_alibi": scores(0.801, seed=1)}, costs)


def test_what_lies_within_the_margin_is_level_and_the_next_thing_decides():
    """Once a noisy hundredth of the generation time named a variant whose forward pass took an eighth longer."""
    level = {"flash": {"generate": 0.523, "forward": 0.60}, "flash_alibi": {"generate": 0.518, "forward": 0.68}}
    assert "take flash:" in said({"flash_alibi": scores(0.801, seed=1)}, level)
    assert "take flash_alibi:" in said({"flash_alibi": scores(0.801, seed=1)},
                                       level | {"flash_alibi": {"generate": 0.518, "forward": 0.55}})
    better = {"flash_alibi": scores(0.9, seed=1), "flash_sparse": scores(0.91, seed=2)}
    assert "take flash_alibi:" in said(better, {"flash_alibi": LESS})
    assert "take flash_sparse:" in said(better | {"flash_sparse": scores(0.95, seed=2)}, {"flash_alibi": LESS})


@pytest.mark.parametrize(("recall", "costs", "words"), [
    (0.5, LESS, r"generation takes 0\.70 \(.*\) times as long, but its fact recall is worse: -0\.300 \("),
    (0.85, MORE, r"fact recall is \+0\.050 \(.*\), but its training step is 1\.20 \(.*\) times standard's\."),
    (0.8, {**LESS, "memory": 1.1}, r"generation takes .* long, but its peak memory is 1\.10 \(.*\) times standard's")])
def test_a_trade_is_told_and_not_taken(recall, costs, words):
    sentence = said({"flash_alibi": scores(recall, seed=1)}, {"flash_alibi": costs})
    assert sentence.startswith("Keep standard: with flash_alibi ")
    assert re.search(words, sentence), sentence


def test_what_is_not_known_is_no_reason():
    unsure = {"flash_alibi": scores(0.79, luck=0.05, seed=1)}
    assert said(unsure) == "Keep standard: no variant is shown to be better, smaller or faster in inference."
    assert "but whether its fact recall is as good is open: about " in said(unsure, {"flash_alibi": LESS})


def test_nothing_is_recommended_below_lead_3():
    sentence = said({"flash_alibi": scores(0.85, seed=1)}, {"flash": LESS}, lead=0.9)
    assert sentence.startswith("No recommendation: the fact recall of every model (0.800 to 0.850) is below that of "
                               "Lead-3")
    assert "more steps, a pretrained model or more articles would help" in sentence
    assert "take flash_alibi: " in said({"flash_alibi": scores(0.85, seed=1)}, {"flash": LESS}, lead=0.82)
    assert said({"flash_alibi": scores(0.801, luck=0.03, seed=1)}, lead=0.8005).startswith(
        "No recommendation: standard's fact recall (0.800) is below that of Lead-3")


def test_a_worse_variant_below_lead_3_is_named():
    claims = judge(results(PARAMS, {"standard": scores(0.8), "flash_sparse": scores(0.2)}))
    assert warnings(claims) == ["Below Lead-3, so not recommended: flash_sparse."]


def quality(variant, recall, **rest):
    return judge(results(PARAMS, {"standard": scores(0.8), variant: recall}, **rest)).quality[variant]


@pytest.mark.parametrize(("recall", "luck", "words"), [
    (0.9, 0.004, "better"), (0.7, 0.004, "worse"), (0.801, 0.004, "equivalent within 0.02"),
    (0.82, 0.05, r"undecided: about \d+ seeds would tell")])
def test_the_verdict_of_a_function(recall, luck, words):
    assert re.fullmatch(words, quality("flash_alibi", scores(recall, luck, seed=1)).words)


def test_where_articles_are_too_few_no_number_of_seeds_would_tell():
    rng = np.random.default_rng(3)
    found = quality("flash_alibi", scores(0.81) + rng.normal(0, 0.4, ARTICLES))
    assert found.words == "undecided: only more articles would tell"


def test_short_summaries_cannot_be_better():
    short = quality("flash_alibi", scores(0.9, seed=1), words={"standard": 20.0, "flash_alibi": 17.0})
    assert (short.verdict, short.words) == ("undecided", "no claim: its summaries are 85 % as long")
    assert quality("flash_alibi", scores(0.7, seed=1), words={"flash_alibi": 17.0}).words == "worse"


def test_of_the_loss_the_difference_is_told_as_it_is():
    claims = judge(results(PARAMS, {"standard": scores(0.8), "flash_alibi": scores(0.9, seed=1)}))
    loss = claims.difference("loss", "flash_alibi")
    assert loss.low < loss.difference < loss.high < 0
    assert loss.difference == pytest.approx(-0.1)


def test_costs_are_told_in_words():
    costs = judge(results(PARAMS, {"standard": scores(0.8), "flash": scores(0.8)},
                          {"flash": {"forward": 0.8, "train_step": 1.2, "memory": 0.9}})).costs["flash"]
    words = {work: cost.words.replace("\u00a0", " ") for work, cost in costs.items()}
    assert words == {"forward": "faster", "first_token": "within 5 %", "generate": "within 5 %",
                     "train_step": "slower", "memory": "smaller"}


def test_a_busy_machine_is_told_to_be_busy():
    claims = judge(results(PARAMS, {"standard": scores(0.8), "flash": scores(0.8)}, {"flash": LESS}, noise=0.8))
    assert claims.costs["flash"]["forward"].words == BUSY
    assert "The machine was busy: profile again, or in more pairs (profile.pairs). Of standard (" in warnings(claims)[0]
    assert " flash (forward pass, first token, generation, " in warnings(claims)[0]
    assert recommend(claims) == "Keep standard: no variant is shown to be better, smaller or faster in inference."


def test_pairs_that_agree_while_all_is_slow_are_no_evidence():
    """As once seen: a forward pass .77 times as long, in every pair, while standard took 2.3 times its usual time."""
    run = results(PARAMS, {"standard": scores(0.8), "flash": scores(0.8)}, {"flash": {"forward": 0.77}})
    assert judge(run).costs["flash"]["forward"].words == "faster"
    for slow, words in ((1.9, "faster"), (2.3, BUSY)):
        pairs = run.variants[1].profile["pairs"]
        slowed = [[slow * ours, slow * standard] for ours, standard in pairs["forward"]]
        flash = replace(run.variants[1], profile={**run.variants[1].profile, "pairs": {**pairs, "forward": slowed}})
        claims = judge(replace(run, variants=[run.variants[0], flash]))
        assert claims.costs["flash"]["forward"].words == words
        assert ("busy" in "".join(warnings(claims))) == (words == BUSY)


def test_a_variant_of_which_a_cost_may_be_higher_is_not_taken():
    costs = {"flash": {"forward": 0.7, "generate": 1.04}}
    full = {"standard": scores(0.8), "flash": scores(0.8)}
    claims = judge(results(PARAMS, full, costs, noise=0.03))
    assert not claims.costs["flash"]["generate"].more
    assert re.fullmatch(r"Keep standard: with flash a forward pass takes 0\.\d+ \(.*\) times as long, but whether its "
                        r"generation.* costs more is open\.", recommend(claims))


def test_a_claimed_difference_is_never_rounded_away():
    tiny = judge(results(PARAMS, {"standard": scores(0.8, 1e-5), "flash_alibi": scores(0.8004, 1e-5)}))
    assert tiny.quality["flash_alibi"].verdict == "better"
    shown = tiny.shown("fact_recall", "flash_alibi")
    assert shown.startswith("+0.0004 (+0.000")
    assert not [part for part in re.findall(r"[+-][\d.]+", shown) if float(part) == 0]


# --- trained to the end


def curve(losses):
    return Training(13, {}, [{"step": 100.0 * (i + 1), "validation_loss": loss} for i, loss in enumerate(losses)])


# Read off docs/results/h200-news/learning_curves.svg: trainings of `news` that stopped at 1,200 of 2,600 steps. And of
# 300 steps of the laptop's reports, at whose end the loss is more than twice that of 600 steps.
CUT_OFF = {"standard": (5.342, 4.635, 3.931, 3.318, 3.194), "flash_alibi": (4.956, 4.054, 3.224, 2.992, 2.936),
           "flash_sparse": (5.314, 4.655, 4.328, 4.131, 4.079),
           "flash, laptop": (3.791, 1.841, 1.364, 1.171, 0.953, 0.794, 0.712, 0.692),
           "flash_alibi, laptop": (3.717, 1.595, 1.108, 0.935, 0.857, 0.783, 0.739, 0.727)}
# Of the laptop's trainings, 1,200 steps at commit 33e2773, and 600 of those with fewer names.
WHOLE = {"standard": (1.338, 0.625, 0.392, 0.193, 0.169, 0.148, 0.138, 0.136),
         "flash_alibi": (1.099, 0.555, 0.468, 0.348, 0.221, 0.148, 0.139, 0.135),
         "flash_sparse": (1.301, 1.024, 0.848, 0.685, 0.593, 0.503, 0.471, 0.464),
         "flash, 600 steps": (1.821, 1.184, 0.697, 0.467, 0.342, 0.284, 0.263, 0.255),
         "flash, 600 steps, another seed": (1.836, 1.217, 0.886, 0.581, 0.418, 0.328, 0.284, 0.276)}
# Two seeds of the laptop's flash_sparse, 1,600 steps: one ends far above the other, and no later than it.
LUCKY, UNLUCKY = ((1.053, 0.689, 0.589, 0.525, 0.496, 0.518, 0.517, 0.514),
                  (1.056, 0.867, 0.719, 0.624, 0.591, 0.596, 0.595, 0.592))


@pytest.mark.parametrize("losses", CUT_OFF.values(), ids=CUT_OFF)
def test_a_training_that_was_cut_off_in_its_fall_is_found(losses):
    assert still_falling([curve(losses)])


@pytest.mark.parametrize("losses", WHOLE.values(), ids=WHOLE)
def test_a_training_that_came_to_its_end_is_left_alone(losses):
    assert not still_falling([curve(losses), curve([loss + 0.01 for loss in losses])])


def test_a_seed_without_luck_was_not_cut_off():
    """Once the report said of such a variant that it was still falling; with more steps it came no further."""
    assert not still_falling([curve(LUCKY), curve(UNLUCKY)])


def test_a_training_whose_loss_rises_again_was_not_cut_off():
    """Once it was "still falling", because its minimum lay .058 below the loss at three quarters of its steps."""
    assert not still_falling([curve((0.993, 0.966, 0.949, 0.959, 0.986, 1.007, 1.027, 1.031))])


def test_a_pretrained_model_that_hardly_falls_is_not_falling():
    assert not still_falling([curve((2.95, 2.90, 2.88, 2.87, 2.865))])


def test_without_two_points_nothing_is_known_of_an_end():
    assert still_falling([curve((2.9,))])


# --- past mistakes: each of these once stood in a report


def test_one_seed_claims_nothing():
    one = {"standard": scores(0.8, trainings=1), "flash_alibi": scores(0.95, trainings=1, seed=1)}
    claims = judge(results(PARAMS, one, {"flash_alibi": LESS}))
    assert claims.quality["flash_alibi"].words == "no claim: one seed"
    assert recommend(claims).endswith("but whether its fact recall is as good is open: one seed.")
    assert "no claim of quality" in warnings(claims)[0]
    assert claims.shown("fact_recall", "flash_alibi") == "+0.150"


def test_a_training_cut_off_in_the_middle_is_told_and_claims_nothing():
    """Be it one of a variant's seeds, or one of full attention's."""
    recall = {"standard": scores(0.8), "flash_alibi": scores(0.9, seed=1), "flash_sparse": scores(0.4, seed=2)}
    late = [*[FALL] * 4, CUT_OFF["standard"]]
    own = judge(results(PARAMS, recall, curves={"flash_alibi": late}))
    assert own.quality["flash_alibi"].words == "no claim: it was still falling"
    assert own.quality["flash_sparse"].words == "worse"
    assert warnings(own)[0].startswith("Cut off before their end: flash_alibi (seed 17).")
    theirs = judge(results(PARAMS, recall, curves={"standard": late}))
    assert {found.words for found in theirs.quality.values()} == {"no claim: full attention was still falling"}
    assert "take" not in recommend(theirs)


def test_kernels_of_one_function_are_not_two_draws():
    """Twice the trainings, of which each two are the same, tell no more."""
    alibi = {"flash_alibi": scores(0.83, luck=0.03, seed=1)}
    one, two = (judge(results(PARAMS, full | alibi)).quality["flash_alibi"].comparison for full in (
        {"standard": scores(0.8, luck=0.03)}, {name: scores(0.8, luck=0.03) for name in ("standard", "flash")}))
    assert (one.low, one.high, one.p) == pytest.approx((two.low, two.high, two.p))
    claims = judge(results(PARAMS, {"standard": scores(0.8), "flash": scores(0.9, seed=1)} | alibi))
    assert "flash" not in claims.quality
    assert claims.difference("rouge1", "flash") is None


def test_luck_is_claimed_in_one_report_of_twenty_at_most():
    """Four variants, of which flash computes what standard does, and ALiBi is as good but for luck."""
    rng, false, reports = np.random.default_rng(7), 0, 150
    for _ in range(reports):
        shared = rng.normal(0, 0.1, 30)

        def draws(mean, shared=shared):
            return mean + shared + rng.normal(0, 0.015, (3, 1)) + rng.normal(0, 0.05, (3, 30)) + rng.normal(0, 0.05, 30)

        full, alibi, sparse = draws(0.8), draws(0.8), draws(0.5)
        claims = judge(results(PARAMS, {"standard": full, "flash": full + rng.normal(0, 0.01, (3, 1)),
                                        "flash_alibi": alibi, "flash_sparse": sparse}))
        found = claims.quality["flash_alibi"].verdict in ("better", "worse")
        assert found or "take flash_alibi" not in recommend(claims)
        false += found
    assert false / reports <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / reports)


def claims_of(recall, ratios=None, full=None, **rest):
    full = {name: scores(0.8) if full is None else full for name in ("standard", "flash")}
    return judge(results(PARAMS, full | recall, ratios, **rest))


def test_how_sure_a_run_is_follows_from_its_intervals():
    claims = claims_of({"flash_alibi": scores(0.801, seed=1), "flash_sparse": scores(0.4, luck=0.03)})
    sparse = claims.quality["flash_sparse"].comparison
    assert how_sure(claims) == (
        "5 seeds and 1,000 test articles give the difference to full attention in fact recall to ±0.005 for "
        f"flash_alibi (equivalent within 0.02) and ±{(sparse.high - sparse.low) / 2:.3f} for flash_sparse (worse); "
        "ratios of time and memory are from 5 pairs of fresh processes")
    single = claims_of({"flash_alibi": scores(0.9, trainings=1)}, full=scores(0.8, trainings=1))
    assert how_sure(single).startswith("one seed tells no difference in quality from luck; ")


@pytest.mark.parametrize(("claims", "told"), [
    (claims_of({"flash_alibi": scores(0.801, seed=1)}, {"flash": LESS}),
     "use the model: h2h summarize FILE --model models/flash/13"),
    (claims_of({"flash_alibi": scores(0.801, seed=1)}, noise=0.3),
     "profile again while nothing else runs: dvc repro --force -s profile@standard profile@flash"),
    (claims_of({"flash_alibi": scores(0.801, seed=1)}, curves={"flash_alibi": [FALL[:5]] + [FALL] * 4}),
     "train to the end: dvc exp run -S presets.laptop.train.steps=2000"),
    (claims_of({"flash_alibi": scores(0.9, trainings=1)}, full=scores(0.8, trainings=1)),
     "train from more seeds: dvc exp run -S 'seeds=[13,14,15]'"),
    (claims_of({"flash_alibi": scores(0.803, luck=0.025, seed=1)}),
     "train from more seeds: dvc exp run -S 'seeds=[13,14,15,16,17,18"),
    (claims_of({"flash_alibi": scores(0.1)}, full=scores(0.1)), "give the models a better start: more train.steps"),
], ids=["use it", "busy", "cut off", "one seed", "undecided", "below Lead-3"])
def test_the_next_step_is_the_most_useful_one_with_its_command(claims, told):
    assert next_step(claims).startswith(told)
