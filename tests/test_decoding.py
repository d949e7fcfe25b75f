"""The inference engine against transformers' own `generate`, token for token, and its cache against arithmetic."""

import logging
import sys
from dataclasses import replace

import pytest
import torch
from conftest import SOFTMAX, VARIANTS, VOCABULARY, random_ids, tiny
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessor, LogitsProcessorList, NoRepeatNGramLogitsProcessor

from headtohead.attention import AttentionSpec
from headtohead.attention.decoding import choose_state
from headtohead.attention.job import BackendError, Job
from headtohead.attention.patterns import Kept
from headtohead.attention.states import KeysValues
from headtohead.inference import lookup
from headtohead.inference.engine import Engine, rounded
from headtohead.inference.predictions import predict
from headtohead.inference.search import generate, search_for, stream, without_repeats
from headtohead.params import Generate

variants = pytest.mark.parametrize("name", VARIANTS)


class NoRepeatInContinuation(LogitsProcessor):
    """transformers' own rule, shown the continuation alone."""

    def __init__(self, size, prompt_length):
        self._ban, self._prompt_length = NoRepeatNGramLogitsProcessor(size), prompt_length

    def __call__(self, input_ids, scores):
        return self._ban(input_ids[:, self._prompt_length:], scores)


def padded_prompts(batch, length, seed):
    """Prompts of different lengths with padding on their left: ids, mask, padding."""
    generator = torch.Generator().manual_seed(seed)
    padding = torch.randint(0, length, (batch,), generator=generator)
    padding[int(torch.randint(0, batch, (), generator=generator))] = 0
    mask = (torch.arange(length) >= padding[:, None]).long()
    return random_ids(batch, length, seed) * mask, mask, padding


def by_transformers(model, ids, mask, *, max_new_tokens, beams, no_repeat_ngram, end):
    ban = [NoRepeatInContinuation(no_repeat_ngram, ids.shape[1])] if no_repeat_ngram else []
    out = model.generate(ids, attention_mask=mask, do_sample=False, num_beams=beams, max_new_tokens=max_new_tokens,
                         eos_token_id=end, pad_token_id=end, logits_processor=LogitsProcessorList(ban))
    return out[:, ids.shape[1]:].tolist()


@variants
@settings(deadline=None, max_examples=12)
@given(batch=st.integers(1, 4), length=st.integers(1, 30), new=st.integers(1, 14), beams=st.integers(1, 4),
       no_repeat=st.integers(0, 3), seed=st.integers(0, 10_000))
def test_every_variant_writes_what_transformers_writes(name, batch, length, new, beams, no_repeat, seed):
    model = tiny(VARIANTS[name], seed=seed % 7).double()  # or two beams might tie but for rounding
    ids, mask, padding = padded_prompts(batch, length, seed)
    # A token that such a model likes: some rows end early, some late, some never.
    end = int(model(ids, attention_mask=mask).logits[0, -1].topk(3).indices[seed % 3])
    asked = {"max_new_tokens": new, "beams": beams, "no_repeat_ngram": no_repeat, "end": end}
    ours = generate(Engine(model), ids, padding, **asked).tolist()
    assert ours == by_transformers(model, ids, mask, **asked)


@variants
def test_without_an_end_all_are_equally_long(name):
    model, ids = tiny(VARIANTS[name]), random_ids(2, 9, seed=4)
    engine = Engine(model)
    for beams in (1, 3):
        assert generate(engine, ids, max_new_tokens=11, beams=beams).shape == (2, 11)
    with torch.no_grad():
        expected = model(ids).logits[:, -1]
    torch.testing.assert_close(engine.forward(ids), expected, atol=2e-5, rtol=1e-4)


@variants
def test_beyond_a_position_table_none_goes_on(name):
    model = tiny(VARIANTS[name], max_length=16)
    ids = random_ids(1, 14, seed=4)
    if VARIANTS[name].positions != "learned":
        assert generate(Engine(model), ids, max_new_tokens=8).shape == (1, 8)
    else:
        with pytest.raises(ValueError, match="21 tokens are more than the model's 16 positions"):
            generate(Engine(model), ids, max_new_tokens=8)


def test_one_engine_serves_changing_shapes():
    model = tiny(VARIANTS["flash"])
    engine = Engine(model)
    for batch, length, beams in ((3, 20, 1), (1, 5, 2), (3, 20, 1), (2, 30, 1)):
        ids, mask, padding = padded_prompts(batch, length, seed=length)
        asked = {"max_new_tokens": 6, "beams": beams, "no_repeat_ngram": 0, "end": 0}
        assert generate(engine, ids, padding, **asked).tolist() == by_transformers(model, ids, mask, **asked)
    engine.release()


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_a_named_backend_decodes(backend):
    model, ids = tiny(VARIANTS["flash_sparse"]), random_ids(2, 9, seed=4)
    expected = generate(Engine(model), ids, max_new_tokens=8)
    model.config.attention_backend = backend
    engine = Engine(model)
    assert engine.decoder == backend
    assert torch.equal(generate(engine, ids, max_new_tokens=8), expected)


ON_CUDA = Job(VARIANTS["flash"], torch.device("cuda"), torch.bfloat16, heads=4, head_dim=64, queries=1, keys=2,
              padded=True)


@pytest.mark.parametrize(("backend", "changes", "message"), [
    ("flash-attn", {}, "flash-attn is not installed"),
    ("flash-attn", {"dtype": torch.float32}, "flash-attn takes no float32 on cuda"),
    ("flex", {"head_dim": 8}, "flex takes head dimensions from 16 to 256, not 8"),
    ("flex", {"device": torch.device("cpu")}, "flex takes no bfloat16 on cpu"),
    ("cudnn", {}, "cudnn has no kernel for decoding"),
])
def test_a_named_backend_that_cannot_decode_is_refused_and_never_replaced(monkeypatch, backend, changes, message):
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # as where it is not installed
    with pytest.raises(BackendError, match=message):
        choose_state(replace(ON_CUDA, **changes), backend)


def test_what_decodes_is_logged_with_the_reason(caplog):
    caplog.set_level(logging.INFO)
    assert choose_state(replace(ON_CUDA, head_dim=24)) == "sdpa"  # our kernel wants powers of two
    [record] = caplog.records
    assert "by sdpa: the best that can do it here; one-query takes head dimensions 16, 32" in record.getMessage()


@pytest.mark.parametrize("backend", [None, "flash-attn", "flex", "sdpa"])
def test_standard_decodes_eagerly_whatever_runs_fused_kernels(backend):
    assert choose_state(replace(ON_CUDA, spec=VARIANTS["standard"]), backend) == "eager"


def repetitive(ids, kinds):
    """Prompts of few different tokens, in which much occurs before."""
    return ids % kinds + 1


@pytest.mark.parametrize("name", SOFTMAX)
@settings(deadline=None, max_examples=15)
@given(batch=st.integers(1, 4), length=st.integers(1, 30), new=st.integers(1, 24), drafted=st.integers(1, 15),
       no_repeat=st.sampled_from([0, 0, 2, 3]), kinds=st.sampled_from([2, 5, VOCABULARY - 1]),
       seed=st.integers(0, 10_000))
def test_prompt_lookup_writes_the_same_tokens(name, batch, length, new, drafted, no_repeat, kinds, seed):
    """In few passes, some of whose drafted tokens are right and some wrong; rings are written over and taken back."""
    model = tiny(VARIANTS[name], seed=seed % 7).double()
    ids, mask, padding = padded_prompts(batch, length, seed)
    ids = repetitive(ids, kinds) * mask
    end = [int(model(ids, attention_mask=mask).logits[0, -1].topk(3).indices[seed % 3]), None][seed % 2]
    asked = {"max_new_tokens": new, "no_repeat_ngram": no_repeat, "end": end}
    model.continuations = random_ids(VOCABULARY, 5, seed) % 3 - 1 if seed % 3 else None
    engine = Engine(model)
    expected = generate(engine, ids, padding, **asked)
    assert torch.equal(generate(engine, ids, padding, **asked, drafted=drafted), expected)
    row = ids[-1:, int(padding[-1]):]
    assert [*stream(engine, row, **asked, drafted=drafted)] == [*stream(engine, row, **asked)]


@given(batch=st.integers(1, 3), data=st.data())
@settings(deadline=None, max_examples=15)
def test_right_drafts_save_passes_and_wrong_ones_cost_none(batch, data):
    """Passes over one token and over more write as many tokens; a draft that is right is taken whole."""
    new, drafted = data.draw(st.integers(2, 24)), data.draw(st.integers(1, 7))
    engine = Engine(tiny(VARIANTS["flash"], seed=data.draw(st.integers(0, 6))).double())
    ids = repetitive(random_ids(batch, 12, data.draw(st.integers(0, 999))), 2)
    expected = generate(engine, ids, max_new_tokens=new)
    foresight = data.draw(st.sampled_from(["perfect", "none"]))
    passes = []

    def drafts(block, positions, text, filled, continuations):
        passes.append(len(block))
        ahead = filled[:, None] - ids.shape[1] + torch.arange(drafted)
        known = expected.gather(1, ahead.clamp(max=new - 1))
        block[:, 0] = text.gather(1, filled[:, None] - 1)[:, 0]
        block[:, 1:] = known if foresight == "perfect" else (known + 1) % VOCABULARY
        positions.copy_(filled[:, None] - 1 + torch.arange(1 + drafted))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "draft", drafts)
        assert torch.equal(generate(engine, ids, max_new_tokens=new, drafted=drafted), expected)
    assert len(passes) == (1 + -(-(new - 1) // (1 + drafted)) if foresight == "perfect" else new)


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 4), new=st.integers(1, 20), drafted=st.integers(1, 7), kinds=st.sampled_from([2, 5]),
       seed=st.integers(0, 999))
def test_passes_are_counted_without_a_model_as_they_happen(rows, new, drafted, kinds, seed):
    engine = Engine(tiny(VARIANTS["flash"], seed=seed % 7).double())
    engine.continuations = 1 + random_ids(engine.config.vocab_size, 3, seed) % 3
    prompts = [(random_ids(1, 5 + i, seed + i)[0] % kinds + 1).tolist() for i in range(rows)]
    counted = []
    with torch.inference_mode():
        for prompt in prompts:
            recording = search_for(engine, torch.tensor([prompt]), None, new, 1, 0, 7, drafted)
            recording.replay(0)
            steps = 0
            while not recording.program.done():
                recording.replay(1)
                steps += 1
            counted.append((recording.program.written(), steps))
    written = [tokens for tokens, _ in counted]
    assert lookup.count_passes(prompts, written, engine.continuations, drafted) == [steps for _, steps in counted]


def test_prompt_lookup_is_for_greedy_search_and_for_what_can_take_tokens_back():
    greedy = Generate(batch_size=8, max_new_tokens=9, beams=1, no_repeat_ngram=0, precision="float32")
    with_six, flash = greedy.model_copy(update={"lookup": 6}), Engine(tiny(VARIANTS["flash"]))
    assert lookup.drafted_for(flash, 8, with_six) == 6
    assert lookup.drafted_for(flash, 1, greedy) == 0  # it is measured to pay on a GPU alone
    assert lookup.drafted_for(flash, 8, greedy.model_copy(update={"beams": 2})) == 0
    for name in ("performer", "rope_performer"):
        assert lookup.drafted_for(Engine(tiny(VARIANTS[name])), 8, with_six) == 0
        with pytest.raises(ValueError, match="cannot take tokens back"):
            generate(Engine(tiny(VARIANTS[name])), random_ids(1, 5, seed=1), max_new_tokens=4, drafted=3)


def test_predictions_say_how_many_tokens_were_drafted(tokenizer, caplog):
    settings = Generate(batch_size=3, max_new_tokens=12, beams=1, no_repeat_ngram=0, precision="float32")
    rows = [{"id": str(i), "article": random_ids(1, 9 + i, seed=i)[0].tolist(), "summary": [5, 6], "reference": "x"}
            for i in range(5)]
    rows = Dataset.from_list(rows)
    plain, drafted = (predict(tiny(VARIANTS["flash"]), tokenizer, rows, settings.model_copy(update={"lookup": number}),
                              40, "test") for number in (0, 4))
    assert [row["summary"] for row in plain] == [row["summary"] for row in drafted]
    assert drafted[0]["written_by"] == plain[0]["written_by"] + ", 4 tokens drafted by prompt lookup"
    assert all(1 <= row["passes"] <= row["later_tokens"] == 11 for row in plain)
    performer = predict(tiny(VARIANTS["performer"]), tokenizer, rows, settings.model_copy(update={"lookup": 4}), 40,
                        "test")
    assert "passes" not in performer[0]
    assert "test: no prompt lookup, because Performer's sums cannot take tokens back" in caplog.messages


ROWS_OF_TEXT = st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(0, 2), min_size=10, max_size=24)),
                        min_size=1, max_size=4)


CONTINUATIONS = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 8), st.integers(-1, 8)), min_size=10, max_size=10)


@given(rows=ROWS_OF_TEXT, drafted=st.integers(1, 6), continuations=st.just([(0, 0, 0)] * 10) | CONTINUATIONS)
def test_a_draft_follows_the_best_earlier_occurrence(rows, drafted, continuations):
    """Or begins with what often follows the latest token, if the occurrence shares too few."""
    width = max(len(tokens) for _, tokens in rows)
    text = torch.tensor([tokens + [9] * (width - len(tokens)) for _, tokens in rows])
    block = torch.zeros(len(rows), 1 + drafted, dtype=torch.int64)
    positions = torch.zeros_like(block)
    lookup.draft(block, positions, text, torch.tensor([len(tokens) for _, tokens in rows]), torch.tensor(continuations))
    assert positions.tolist() == [[len(tokens) - 1 + i for i in range(1 + drafted)] for _, tokens in rows]
    for got, (_, tokens), padded in zip(block.tolist(), rows, text.tolist(), strict=True):
        def shared(place, tokens=tokens):
            sizes = [size for size in range(1, lookup.GRAMS + 1) if place + 1 >= size
                     and tokens[place + 1 - size:place + 1] == tokens[-size:]]
            return max(sizes, default=0)
        place = max(range(len(tokens) - 1), key=lambda place: (shared(place), -place))
        follows = [padded[min(place + 1 + i, width - 1)] for i in range(drafted)]
        enough, *frequent = continuations[tokens[-1]]
        if shared(place) < enough:
            follows = [often if often >= 0 else follows[i] for i, often in enumerate(frequent[:drafted])] + follows[2:]
        assert got == [tokens[-1], *follows]


@given(data=st.data(), drafted=st.integers(1, 6), new=st.integers(1, 12), end=st.sampled_from([None, 2]))
def test_what_the_draft_foresaw_is_accepted_and_one_token_beyond(data, drafted, new, end):
    rows = data.draw(st.integers(1, 4))
    numbers = st.integers(0, 2)
    tokens = torch.tensor(data.draw(st.lists(st.lists(numbers, min_size=2 * drafted + 2, max_size=2 * drafted + 2),
                                             min_size=rows, max_size=rows)))
    chosen, block = tokens.split(drafted + 1, dim=1)
    starts = torch.tensor(data.draw(st.lists(st.integers(1, 5), min_size=rows, max_size=rows)))
    before = torch.tensor(data.draw(st.lists(st.integers(0, new - 1), min_size=rows, max_size=rows)))
    finished = torch.tensor(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    text, filled, was_finished = torch.full((rows, 5 + new + drafted), 7), starts + before, finished.clone()
    lookup.accept(chosen, block, text, filled, starts, finished, new, end)
    for row in range(rows):
        written = []
        for place, token in enumerate(chosen[row].tolist()):
            if was_finished[row] or int(before[row]) + len(written) == new:
                break
            written.append(token)
            if token == end or place == drafted or block[row, place + 1] != token:
                break
        first = int(starts[row] + before[row])
        assert int(filled[row]) == first + len(written)
        assert text[row, first:first + len(written)].tolist() == written
        assert (text[row] == 7).sum() == text.shape[1] - len(written)
        assert bool(finished[row]) == (bool(was_finished[row]) or written[-1] == end
                                       or int(before[row]) + len(written) == new)


@given(first=st.integers(0, 6), last=st.integers(1, 12), data=st.data())
@settings(deadline=None, max_examples=80)
def test_a_cache_holds_the_first_and_the_last_and_no_others(first, last, data):
    """Rows of different lengths, each from its own first token on."""
    slots = first + last
    length = slots + data.draw(st.integers(0, 20))
    prompt = data.draw(st.integers(1, length))
    padding = torch.tensor(data.draw(st.lists(st.integers(0, prompt - 1), min_size=2, max_size=2)))
    job = replace(ON_CUDA, device=torch.device("cpu"), dtype=torch.float32, heads=1, head_dim=2)
    cache = KeysValues(job, Kept(first, slots - first), layers=1, rows=2, length=length)
    assert cache.slots == slots
    lengths = prompt - padding
    given_keys = torch.arange(prompt).float()[:, None].expand(2, 1, prompt, 2)  # each key is its own position
    cache.fill(0, given_keys, given_keys, lengths)
    newest = lengths - 1
    for _ in range(data.draw(st.integers(0, length - prompt))):
        newest = newest + 1
        cache.ready(newest[:, None])
        cache.append(0, *[newest.float()[:, None, None, None].expand(2, 1, 1, 2)] * 2)
    held = cache.positions(newest)
    for row in range(2):
        now, kept = int(newest[row]), cache.storage[0, 0, row, 0, :, 0].tolist()
        expected = [t for t in range(now + 1) if t < first or t > now - (slots - first)]
        assert sorted(p for p in held[row].tolist() if p >= 0) == expected
        assert all(value == p for p, value in zip(held[row].tolist(), kept, strict=True) if p >= 0)


@given(specs=st.lists(st.sampled_from([*SOFTMAX.values()]), min_size=1, max_size=3),
       positions=st.sampled_from(["rope", "alibi"]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_any_stack_of_layers_writes_what_transformers_writes(specs, positions, seed):
    layers = [layer for spec in specs for layer in spec.layers or (spec,)]
    stack = [{name: value for name, value in layer.model_dump().items() if name != "positions"} for layer in layers]
    model = tiny(AttentionSpec(positions=positions, layers=stack), layers=3, seed=seed).double()
    ids, mask, padding = padded_prompts(3, 17, seed)
    asked = {"max_new_tokens": 12, "beams": 1 + seed % 2, "no_repeat_ngram": 0, "end": 5}
    assert generate(Engine(model), ids, padding, **asked).tolist() == by_transformers(model, ids, mask, **asked)


def test_each_layer_keeps_what_it_needs_and_no_more():
    near, length = {"pattern": "window", "window": 4}, 40
    caches = [Engine(tiny(AttentionSpec(kernel="flash", layers=tile), layers=4)).cache(2, length).bytes
              for tile in ([{"pattern": "full"}], [near, near, near, {"pattern": "full"}], [near])]
    assert caches == [caches[0], caches[0] * (3 * 4 + 40) / (4 * 40), caches[0] * 4 / 40]
    performer = Engine(tiny(VARIANTS["performer"]))
    assert performer.cache(2, 40).bytes == performer.cache(2, 4_000).bytes


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 4), st.data())
@settings(deadline=None, max_examples=60)
def test_repeats_are_banned_as_spelled_out(tokens, size, data):
    count = data.draw(st.integers(0, len(tokens)))
    written = tokens[:count]
    recent = tuple(written[count - size + 1:]) if size > 1 else ()
    banned = {written[i + size - 1] for i in range(count - size + 1) if tuple(written[i:i + size - 1]) == recent}
    scores = torch.randn(1, VOCABULARY)
    got = without_repeats(scores, torch.tensor([tokens]), torch.tensor([count]), size)
    for token in range(VOCABULARY):
        assert got[0, token] == (-torch.inf if token in banned else scores[0, token])


@given(st.integers(1, 100_000))
def test_sizes_are_few_and_little_is_wasted(count):
    assert count <= rounded(count) <= max(count, count * 9 / 8)
    assert rounded(rounded(count)) == rounded(count)


def test_there_are_eight_sizes_in_a_doubling():
    assert len({rounded(count) for count in range(1025, 2049)}) == 8
    assert [rounded(count) for count in (412, 512, 513, 64)] == [416, 512, 576, 64]
