"""The same rules on a CUDA device; run there by `make test-gpu`."""

import random
from dataclasses import dataclass
from importlib.util import find_spec

import pytest
import torch
from conftest import BIGBIRD, VARIANTS, random_ids, tiny
from transformers import TrainerCallback

from headtohead.attention import AttentionSpec, attend
from headtohead.attention.backends import compiled as alone
from headtohead.attention.job import BackendError, Job
from headtohead.attention.plan import BACKENDS, alternatives, choose
from headtohead.attention.table import Entry, Size, Table, Time, same_work
from headtohead.doctor import measuring
from headtohead.doctor.diagnosis import diagnose
from headtohead.doctor.facts import shape
from headtohead.inference.engine import Engine
from headtohead.inference.search import generate
from headtohead.models.gpt2 import compile_for_training, from_scratch
from headtohead.params import Model, Train, read_params
from headtohead.tokens.layout import Layout
from headtohead.training.devices import launch
from headtohead.training.examples import make_examples
from headtohead.training.run import best, take_steps, train
from headtohead.training.step import prepare

pytestmark = pytest.mark.gpu
variants = pytest.mark.parametrize("name", VARIANTS)
LAYOUT = Layout([1], end=0, max_length=64, new_tokens=12)


def examples(count, seed):
    rows = [{"id": str(i), "article": random_ids(1, 8 + i % 9, seed + i)[0].tolist(), "summary": [5, 6, 7]}
            for i in range(count)]
    return make_examples(rows, LAYOUT)


@dataclass(frozen=True)
class Case:
    """An attention to compute: with fewer queries than keys as with a cache, without gradients."""

    spec: AttentionSpec
    dtype: torch.dtype
    batch: int
    heads: int
    queries: int
    keys: int
    padding: list[int] | None
    dim: int = 64

    def check(self, backend):
        """flash-attention's own rule: at most twice the error of plain code, for outputs and gradients of real rows."""
        grad = self.queries == self.keys and "cuda" in BACKENDS[backend].capability.backward
        reason = BACKENDS[backend].capability.unsupported(
            Job(self.spec, torch.device("cuda"), self.dtype, self.heads, self.dim, self.queries, self.keys,
                padded=self.padding is not None, backward=grad))
        if reason:
            return
        plain = self.spec.model_copy(update={"kernel": "eager"})
        tensors = [torch.randn(self.batch, self.heads, length, self.dim, device="cuda").to(self.dtype)
                   for length in (self.queries, self.keys, self.keys)]
        ways = ((self.spec, backend, self.dtype), (plain, "eager", self.dtype), (self.spec, "reference", torch.float32))
        with torch.set_grad_enabled(grad):
            results = [self.run(tensors, *way) for way in ways]
        for ours, same_precision, exact in zip(*results, strict=True):
            assert ours.isfinite().all(), self
            scale = exact.abs().max().clamp(min=1)  # plain code may be exact, as with one key
            allowed = 2 * (same_precision - exact).abs().max() + max(1e-5, torch.finfo(self.dtype).eps / 4) * scale
            assert (ours - exact).abs().max() <= allowed, self

    def run(self, tensors, spec, backend, dtype):
        inputs = [tensor.to(dtype).requires_grad_(torch.is_grad_enabled()) for tensor in tensors]
        left = None if self.padding is None else torch.tensor(self.padding, device="cuda")
        out = attend(*inputs, spec, backend, left_padding=left)
        assert out.dtype == dtype
        first = torch.zeros(self.batch, 1, device="cuda") if left is None else left[:, None]
        real = (torch.arange(self.keys - self.queries, self.keys, device="cuda") >= first)[:, None, :, None]
        if not torch.is_grad_enabled():
            return [out.float() * real]
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).cuda() * real
        gradients = torch.autograd.grad((out * weights).sum(), inputs)
        return [out.detach().float() * real, *(gradient.float() for gradient in gradients)]


def pattern(positions="learned", window=None, **numbers):
    if window is not None:
        numbers = {"pattern": "window", "window": window}
    return AttentionSpec(kernel="flash", positions=positions, **numbers)


PATTERNS = [{}, {"window": 1}, {"window": 3}, {"window": 64}, {"window": 500}, {"pattern": "block", "block": 50},
            {"pattern": "block", "block": 64}, {"pattern": "longformer", "window": 20, "globals": 3},
            {"pattern": "strided", "stride": 16}, BIGBIRD, BIGBIRD | {"block": 64}]


def drawn(seed, dtype, dim):
    """A random case; lengths have no common factor with any kernel's blocks."""
    draw = random.Random(seed)
    keys = draw.choice([1, 2, 17, 64, 65, 127, 129, 200, 333])
    batch = draw.randint(1, 3)
    return Case(pattern(draw.choice(["learned", "alibi", "rope"]), **draw.choice(PATTERNS)), dtype, batch,
                draw.randint(1, 6), draw.choice([1, keys, keys, keys, max(1, keys // 3)]), keys,
                draw.choice([None, [draw.randrange(keys) for _ in range(batch)]]), dim)


@pytest.mark.parametrize(("backend", "dim"), [("flash-attn", 64), ("sdpa", 64), ("sdpa", 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_backend_errs_at_most_twice_as_much_as_plain_code(backend, dim, dtype):
    torch.manual_seed(1)
    for spec in (pattern(), pattern("alibi"), pattern(window=64), pattern("alibi", 3), pattern("rope", 3),
                 pattern("alibi", pattern="block", block=96)):
        if not BACKENDS[backend].capability.unsupported(Job(spec, torch.device("cuda"), dtype, 3, dim, 1100, 1100)):
            Case(spec, dtype, 2, 3, 1100, 1100, None, dim).check(backend)
    for seed in range(60):
        drawn(seed, dtype, dim).check(backend)


@pytest.mark.parametrize("case", [  # few, for it compiles for each
    Case(pattern("alibi"), torch.bfloat16, 2, 3, 1100, 1100, None),
    Case(pattern("alibi", 64), torch.bfloat16, 3, 4, 200, 200, [0, 9, 199]),
    Case(pattern(window=3), torch.float16, 2, 5, 65, 65, [0, 9]),
    Case(pattern("alibi"), torch.float32, 2, 3, 333, 333, None),
    Case(pattern(window=500), torch.float32, 1, 2, 129, 129, [30], dim=32),
    Case(pattern(window=1), torch.bfloat16, 2, 3, 17, 17, None, dim=32),
    Case(pattern("alibi", 64), torch.bfloat16, 3, 4, 7, 200, [0, 9, 199]),
    Case(pattern(), torch.float16, 2, 3, 1, 333, None),
    Case(pattern(), torch.bfloat16, 1, 1, 1, 1, None),
    Case(pattern("rope", **BIGBIRD), torch.bfloat16, 2, 3, 333, 333, None),
    Case(pattern("alibi", **BIGBIRD | {"block": 64}), torch.bfloat16, 2, 3, 700, 700, None),
    Case(pattern(**BIGBIRD | {"block": 128}), torch.bfloat16, 2, 3, 1100, 1100, [0, 300]),
    Case(pattern("alibi", pattern="longformer", window=20, globals=3), torch.bfloat16, 2, 3, 333, 333, [0, 50]),
    Case(pattern("none", pattern="block", block=50), torch.float32, 2, 3, 333, 333, None),
], ids=str)
def test_flex_errs_at_most_twice_as_much_as_plain_code(case):
    torch.manual_seed(1)
    case.check("flex")


@pytest.mark.parametrize("case", [
    Case(pattern("alibi", pattern="strided", stride=16), torch.bfloat16, 2, 3, 333, 333, None),
    Case(pattern("rope", pattern="strided", stride=64), torch.bfloat16, 2, 3, 1100, 1100, None),
    Case(pattern(pattern="strided", stride=7), torch.float32, 1, 2, 200, 200, None),
    Case(pattern(pattern="strided", stride=64), torch.bfloat16, 1, 2, 33, 33, None),
    Case(pattern(pattern="strided", stride=1), torch.float16, 1, 2, 65, 65, None),
], ids=str)
def test_regrouped_strides_err_at_most_twice_as_much_as_plain_code(case):
    torch.manual_seed(1)
    case.check("regrouped")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [2, 31, 65, 256, 333, 1100, 9000])
def test_cudnn_errs_at_most_twice_as_much_as_plain_code(length, dtype):
    torch.manual_seed(length)
    for batch, heads, dim in ((1, 12, 64), (3, 5, 48)):
        Case(pattern("alibi"), dtype, batch, heads, length, length, None, dim).check("cudnn")
    Case(pattern(), dtype, 1, 2, length, length, None).check("cudnn")


@variants
def test_one_token_attends_to_itself(name):
    q, k, v = torch.randn(3, 2, 3, 1, 64, device="cuda", dtype=torch.bfloat16)
    close = 0.02 if VARIANTS[name].kernel == "performer" else 0  # a quotient
    torch.testing.assert_close(attend(q, k, v, VARIANTS[name]), v, atol=close, rtol=close)


def test_float32_stays_float32_where_matrix_products_need_not():
    tensors = [torch.randn(1, 2, 100, 64, device="cuda") for _ in range(3)]
    torch.set_float32_matmul_precision("high")
    try:
        out = attend(*tensors, pattern(window=3), "flex")
    finally:
        torch.set_float32_matmul_precision("highest")
    torch.testing.assert_close(out, attend(*tensors, pattern(window=3), "reference"), atol=1e-5, rtol=1e-5)


def test_flex_is_never_replaced_by_dense_work(monkeypatch):
    def run(length):
        return attend(*(torch.randn(1, 2, length, 64, device="cuda") for _ in range(3)), pattern(window=3), "flex")

    run(50)
    monkeypatch.setattr(alone, "SHAPES", 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run(50)
    kernels = [event.key for event in profile.key_averages()]
    assert any("triton" in kernel for kernel in kernels)
    assert not any("softmax" in kernel.lower() or "gemm" in kernel.lower() for kernel in kernels)
    with pytest.raises(BackendError, match="take fewer lengths"):
        run(51)


@variants
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dispatch_finds_a_backend_for_every_variant(name, dtype):
    spec = VARIANTS[name].layer(0)
    choice = choose(Job(spec, torch.device("cuda"), dtype, 12, 64, 512, 512, padded=True, backward=True))
    print(f"{name} in {dtype}: {choice.backend.name}, {choice.why}")
    form = spec.visibility.form
    known = form is not None and form.parts <= {"window", "block"}
    flash = known and dtype is torch.bfloat16 and find_spec("flash_attn")
    best = "flash-attn" if flash else "sdpa"
    assert choice.backend.name == (best if spec.kernel == "flash" else spec.kernel)


@variants
def test_the_gpu_gives_the_cpus_logits(name):
    model, ids = tiny(VARIANTS[name]), random_ids(2, 40, seed=1)
    expected = model(ids).logits
    torch.testing.assert_close(model.cuda()(ids.cuda()).logits.cpu(), expected, atol=2e-3, rtol=2e-3)


@variants
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_learns_and_compiling_changes_nothing(name, precision, tmp_path, monkeypatch):
    settings = Train(steps=20, batch_size=8, accumulation=1, learning_rate=0.003, warmup_steps=2, weight_decay=0.0,
                     article_weight=0.1, precision=precision, evaluations=4)
    curves = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr("headtohead.training.step.compile_for_training", lambda model: None)
        model = tiny(VARIANTS[name], heads=2, head_dim=64)
        curves.append(train(model, examples(43, 100), examples(8, 900), settings, filler=0, seed=7,
                            checkpoints=tmp_path / str(compiled)))
    assert curves[0]["validation_loss"].iloc[-1] < curves[0]["validation_loss"].iloc[0]
    steps, close = (4, 0.01) if precision == "float32" else (2, 0.2)  # rounding grows with every step
    for column in ("training_loss", "validation_loss"):
        assert curves[0][column].tolist()[:steps] == pytest.approx(curves[1][column].tolist()[:steps], rel=close)


FEW = Train(steps=20, batch_size=8, accumulation=2, learning_rate=0.003, warmup_steps=2, weight_decay=0.0,
            article_weight=0.5, precision="float32", evaluations=4)


def small():
    return tiny(VARIANTS["flash_alibi"], heads=2, head_dim=64)


def take_few_steps(path, more):
    take_steps(small(), examples(43, 100), examples(9, 900), FEW.model_copy(update=more), filler=0, seed=7,
               checkpoints=path, title="training x")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_gpus_train_as_one_does(tmp_path, sharding):
    take_few_steps(tmp_path / "one", {})
    launch(take_few_steps, tmp_path / "two", {"devices": 2, "sharding": sharding}, devices=2)
    one, two = (best(small(), FEW, tmp_path / name) for name in ("one", "two"))
    for column in ("training_loss", "validation_loss"):
        assert two[column].tolist() == pytest.approx(one[column].tolist(), rel=0.01)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_sharded_model_computes_in_the_precision_of_its_training(tmp_path, precision):
    launch(write_precision, tmp_path, precision, devices=2)
    assert (tmp_path / "computed").read_text() == f"torch.{precision}"


def write_precision(path, precision):
    def write(module, inputs, output):
        (path / "computed").write_text(str(output.dtype))

    model = small()
    model.transformer.h[0].mlp.c_fc.register_forward_hook(write)
    settings = FEW.model_copy(update={"precision": precision, "devices": 2, "sharding": "full"})
    rows = examples(43, 100)
    prepare(model, rows, rows, settings, filler=0, seed=7, checkpoints=path / "checkpoints",
            device=torch.device("cuda"), length=None, callbacks=[StopAfter()]).train()


class StopAfter(TrainerCallback):
    """Ends a training after two steps, before anything is saved."""

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop = state.global_step == 2


@pytest.mark.parametrize("name", ["flash", "flash_alibi", "flash_local_global"])
def test_gpt2_xl_computes_generates_and_trains_on_one_card(name, tmp_path):
    size = Model(pretrained=None, layers=48, width=1600, heads=25, init_std=0.02, position_init_std=0.02, dropout=0.1)
    with torch.device("cuda"):
        model = from_scratch(read_params().variants[name], size, vocab_size=50_257, max_length=512, end_of_text=0,
                             seed=1)
    rows = examples(8, 100)
    prepare(model, rows, rows, FEW.model_copy(update={"precision": "bfloat16", "accumulation": 1}), filler=0, seed=1,
            checkpoints=tmp_path, device=torch.device("cuda"), length=512, callbacks=[StopAfter()]).train()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    model.zero_grad()
    model = model.eval().to(torch.bfloat16)
    prompts = random_ids(2, 400, seed=1).cuda()
    with torch.no_grad():
        likeliest = model(prompts).logits[:, -1].float()
    first = generate(Engine(model), prompts, max_new_tokens=8)[:, 0]
    chosen = likeliest.gather(1, first[:, None])[:, 0]  # or one as likely, but for rounding
    assert (likeliest.amax(1) - chosen < 0.05).all()


@pytest.mark.parametrize("backend", ["flash-attn", "flex", "sdpa"])
@pytest.mark.parametrize("name", ["flash", "flash_alibi", "alibi_window", "alibi_local_global", "rope_mixed"])
def test_compiled_gradients_err_at_most_twice_as_much_as_plain_code_by_any_backend(name, backend):
    spec, ids = VARIANTS[name], random_ids(3, 200, seed=2).cuda()
    plain = tiny(AttentionSpec(**eager(spec.model_dump())), heads=2, head_dim=64, max_length=200).train().cuda()
    exact, same_precision = gradients(plain, ids, torch.float32), gradients(plain, ids, torch.bfloat16)
    model = tiny(spec, heads=2, head_dim=64, max_length=200).train().cuda()
    model.config.attention_backend = backend
    with torch.autocast("cuda", torch.bfloat16):
        try:
            model.backend_for(200, training=True)
        except BackendError as error:
            pytest.skip(str(error))
    compile_for_training(model)
    for ours, theirs, right in zip(gradients(model, ids, torch.bfloat16), same_precision, exact, strict=True):
        assert (ours - right).norm() <= 2 * (theirs - right).norm() + 1e-3 * right.norm()


def eager(settings):
    return settings | {"kernel": "eager"}


def gradients(model, ids, dtype):
    model.zero_grad()
    with torch.autocast("cuda", dtype, enabled=dtype is not torch.float32):
        loss = model(input_ids=ids, labels=ids, weights=torch.ones(ids.shape, device="cuda")).loss
    loss.backward()
    return [loss.detach().float(), *(parameter.grad.clone() for parameter in model.parameters())]


def test_compiling_puts_no_fused_kernel_in_place_of_standards_scores():
    model = tiny(VARIANTS["standard"], heads=2, head_dim=64).train().cuda()
    compile_for_training(model)
    with torch.profiler.profile() as profile:
        gradients(model, random_ids(3, 40, seed=2).cuda(), torch.bfloat16)
    assert not any("scaled_dot_product" in event.key for event in profile.key_averages())


@pytest.mark.parametrize("preset", ["laptop", "news"])  # float32 and bfloat16
def test_the_doctor_finds_every_backend_right(preset):
    found = diagnose(read_params().model_copy(update={"preset": preset}))
    chosen = {backend for choice in found.choices for backend in choice.backends}
    assert chosen <= {check.backend for check in found.checks}
    assert [check.wrong for check in found.checks if check.wrong] == []


def test_every_alternative_is_measured_in_the_engine_and_the_table_decides():
    params = read_params().with_preset("news")
    model, every = shape(params), measuring.tasks(params, shape(params), torch.device("cuda"))
    todo = [task for task in every if task.job.batch * task.job.keys <= 520]
    assert {task.variant for task in todo} == {"flash", "flash_alibi", "flash_sparse"}
    found = measuring.run(todo, model, Table(), lambda table: None, seconds=None)
    gains = {(entry.spec["pattern"], entry.spec["positions"], gain.size.length, gain.work): gain.name
             for entry in found.entries for gain in entry.gains()}
    for task in todo:
        job = task.job
        [size] = [size for entry in found.entries if entry.spec == same_work(job.spec)
                  for size in entry.sizes if size.length == job.keys]
        assert size.left_out == {}
        assert size.times.keys() == set(alternatives(job))
        work = "prompt" if job.varied else "forward"
        wanted = gains.get((job.spec.pattern, job.spec.positions, job.keys, work), getattr(size, work))
        assert choose(job, None, found).backend.name == wanted


@pytest.mark.parametrize("name", ["flash", "flash_alibi", "flash_sparse", "strided"])
def test_whatever_a_table_chooses_the_engine_computes_the_same(name):
    model, ids = tiny(VARIANTS[name], heads=2, head_dim=64, max_length=200), random_ids(2, 200, seed=1).cuda()
    model = model.cuda().bfloat16()
    spec = VARIANTS[name].layer(0)
    job = Job(spec, ids.device, torch.bfloat16, 2, 64, 200, 200, batch=2)
    built_in, expected = choose(job).backend.name, Engine(model).forward(ids).float()
    for other in set(alternatives(job)) - {built_in}:
        times = {one: Time(median=ms, low=ms, high=ms) for one, ms in ((other, 1.0), (built_in, 2.0))}
        size = Size(batch=2, length=200, forward=built_in, prompt=built_in, times=times)
        model.config.attention_table = Table(entries=(
            Entry(spec=same_work(spec), dtype="bfloat16", heads=2, head_dim=64, sizes=(size,)),))
        engine = Engine(model)
        assert engine.backend_for(200, batch=2) == other
        assert (engine.forward(ids).float() - expected).norm() <= 0.05 * expected.norm()
