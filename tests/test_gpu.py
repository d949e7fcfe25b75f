"""The same rules on a CUDA device; run there by `make test-gpu`."""

import pytest
import torch
from conftest import VARIANTS, random_ids, tiny

from headtohead.attention import attend
from headtohead.data.prompts import Layout
from headtohead.decoding.generation import write_summaries
from headtohead.params import Generate, Train
from headtohead.training import make_examples, train

pytestmark = pytest.mark.gpu
variants = pytest.mark.parametrize("name", VARIANTS)
LAYOUT = Layout([1], end=0, max_length=64)


def examples(count, seed):
    rows = [{"id": str(i), "article": random_ids(1, 8 + i % 9, seed + i)[0].tolist(), "summary": [5, 6, 7]}
            for i in range(count)]
    return make_examples(rows, LAYOUT)


@variants
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("padding", [None, [0, 9, 30]])
def test_a_backend_errs_at_most_twice_as_much_as_plain_code(name, dtype, padding):
    spec = VARIANTS[name]
    plain = spec.model_copy(update={"kernel": "eager"})
    tensors = [torch.randn(3, 4, 130, 64, device="cuda").to(dtype) for _ in range(3)]
    left = None if padding is None else torch.tensor(padding, device="cuda")

    def run(its_spec, backend, cast):
        inputs = [t.detach().to(cast).requires_grad_() for t in tensors]
        out = attend(*inputs, its_spec, backend, left_padding=left)
        out.float().square().sum().backward()
        return [out, *(t.grad for t in inputs)]

    exact = run(spec, "reference", torch.float32)
    for ours, same_precision, reference in zip(run(spec, None, dtype), run(plain, "eager", dtype), exact, strict=True):
        assert ours.isfinite().all()
        allowed = 2 * (same_precision.float() - reference).abs().max() + 1e-4
        assert (ours.float() - reference).abs().max() <= allowed


@variants
def test_the_gpu_gives_the_cpus_logits(name):
    model, ids = tiny(VARIANTS[name]), random_ids(2, 40, seed=1)
    expected = model(ids).logits
    torch.testing.assert_close(model.cuda()(ids.cuda()).logits.cpu(), expected, atol=2e-3, rtol=2e-3)


@variants
def test_the_gpu_writes_the_cpus_summaries(name, tokenizer):
    model = tiny(VARIANTS[name])
    settings = Generate(batch_size=3, max_new_tokens=12, beams=1, no_repeat_ngram=0, precision="float32")
    prompts = [sequence[:prompt].tolist() for sequence, prompt in examples(7, 50)]
    expected = write_summaries(model, tokenizer, prompts, settings)
    assert write_summaries(model.cuda(), tokenizer, prompts, settings) == expected


@variants
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_learns(name, precision, tmp_path):
    settings = Train(steps=20, batch_size=8, accumulation=1, learning_rate=0.003, warmup_steps=2, weight_decay=0.0,
                     article_weight=0.1, precision=precision, evaluations=4)
    curves = train(tiny(VARIANTS[name]), examples(40, 100), examples(8, 900), settings, filler=0, seed=7,
                   checkpoints=tmp_path)
    assert curves["validation_loss"].iloc[-1] < curves["validation_loss"].iloc[0]
