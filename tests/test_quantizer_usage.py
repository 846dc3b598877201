"""The usage counter: once for each code taken, in no program that is captured, and the cause of no error."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from cases import reloaded
from gradcases import leaf
from quantizers import fresh_compiler  # noqa: F401
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from fqvae_kernels import ScalarQuantizer
from fqvae_kernels._quantizer import arrangement

ESTIMATORS = ("gumbel", "straight_through", "reinmax", "nearest")


def z_of(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantizer(**options):
    return ScalarQuantizer(5, **({"num_codebooks": 3, "backend": "reference"} | options))


def counts_of(indices):
    return torch.stack([torch.bincount(column, minlength=5) for column in indices.reshape(-1, 3).T])


def test_usage_counts_per_latent():
    q = ScalarQuantizer(4, num_codebooks=2, estimator="nearest", init=torch.tensor([0.0, 1.0, 2.0, 3.0]))
    q(torch.tensor([[0.1, 2.9], [0.2, 3.0], [1.1, 3.2]]))
    assert q.usage.tolist() == [[2, 1, 0, 0], [0, 0, 0, 3]]
    q(torch.tensor([[2.0, 0.0]]))
    assert q.usage.tolist() == [[2, 1, 1, 0], [1, 0, 0, 3]] and q.usage.dtype == torch.int64
    q.reset_usage()
    assert not q.usage.any()


def test_usage_of_one_codebook_counts_per_latent_too():
    q = ScalarQuantizer(3, estimator="nearest", init=torch.tensor([0.0, 1.0, 2.0])).eval()
    q(torch.tensor([[0.1, 1.9], [0.2, 1.8]]))
    assert q.usage.tolist() == [[2, 0, 0], [0, 0, 2]]


def test_usage_in_training_counts_the_samples():
    q = ScalarQuantizer(5, num_codebooks=2)
    out = q(z_of(100, 2))
    for latent in range(2):
        assert q.usage[latent].tolist() == torch.bincount(out.indices[:, latent], minlength=5).tolist()


def test_perplexity():
    """exp of the entropy of the counts: K when all are used alike, 1 when one is."""
    q = ScalarQuantizer(4, num_codebooks=3, estimator="nearest", init=torch.tensor([0.0, 1.0, 2.0, 3.0]))
    q(torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [2.0, 1.0, 0.0], [3.0, 1.0, 1.0]]))
    third = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    torch.testing.assert_close(q.perplexity(), torch.tensor([4.0, 1.0, third]))
    q.reset_usage()
    assert torch.isfinite(q.perplexity()).all()


@pytest.mark.parametrize("shape", [(), (7,), (0, 3), (5, 0), (50, 3), (4, 6, 3), (2, 3, 4, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("training", [True, False])
def test_the_nearest_pass_counts_its_own_indices(shape, dtype, training):
    """As another module counts them that is told the indices; several calls add up."""
    q = ScalarQuantizer(5, estimator="nearest").train(training)
    other = ScalarQuantizer(5)
    for seed in range(3):
        z = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
        if z.numel() > 4:
            z.view(-1)[3] = math.nan
        other.count_usage(q(z).indices)
        other.count_usage(q(leaf(z)).indices)
    assert torch.equal(q.usage, other.usage) and q.usage.sum() == 6 * math.prod(shape)


def test_masked_rows_of_a_nearest_pass_do_not_count():
    q = ScalarQuantizer(4, num_codebooks=2, init=torch.arange(4.0)).eval()
    q(torch.tensor([[0.0, 3.0], [1.0, 2.0]]), mask=torch.tensor([[True, False], [True, True]]))
    assert q.usage.tolist() == [[1, 1, 0, 0], [0, 0, 1, 0]]


def test_a_call_that_fails_counts_nothing():
    q = ScalarQuantizer(4, num_codebooks=2).eval()
    alone = ScalarQuantizer(4).eval()
    for module, wrong in (
        (q, torch.zeros(5, 3)),
        (alone, torch.zeros(2, 3, dtype=torch.int64)),
        (alone, 1.0),
    ):
        with pytest.raises((TypeError, ValueError)):
            module(wrong)
    assert q.usage.tolist() == [[0] * 4] * 2 and alone.usage.shape == (0, 4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_once_under_checkpointing(estimator, use_reentrant):
    q = quantizer(estimator=estimator)
    z = leaf(z_of(20, 3))

    def block(value):
        quantized, indices, _ = q(value)
        # The sine keeps its input, so that the repetition goes past the quantizer.
        return quantized.sin(), indices

    quantized, indices = checkpoint(block, z, use_reentrant=use_reentrant)
    assert torch.equal(q.usage, counts_of(indices))
    quantized.sum().backward()
    assert z.grad is not None and torch.equal(q.usage, counts_of(indices))


def test_once_under_nested_and_selective_checkpointing():
    q = quantizer()
    z = leaf(z_of(20, 3))

    def inner(value):
        return checkpoint(q, value, use_reentrant=True)[0]

    checkpoint(inner, z, use_reentrant=True).sum().backward()
    assert q.usage.sum() == 60
    q.reset_usage()

    def save_everything(context, operator, *arguments, **options):
        return torch.utils.checkpoint.CheckpointPolicy.MUST_SAVE

    out = checkpoint(
        lambda value: q(value).quantized.sin(),
        z,
        use_reentrant=False,
        context_fn=lambda: create_selective_checkpoint_contexts(save_everything),
    )
    out.sum().backward()
    assert q.usage.sum() == 60


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("training", [True, False])
def test_under_every_gradient_mode(context, training):
    q = quantizer(num_codebooks=1).train(training)
    for _ in range(2):
        with context():
            q.reset_usage()
            q(z_of(20, 3))
            q(z_of(20, 4))
        q(z_of(20, 3))
    assert q.usage.sum(-1).tolist() == [60, 60, 60, 20]
    with context():
        other = quantizer(num_codebooks=1)
    other.count_usage(q(z_of(20, 3)).indices)
    assert other.usage.sum() == 60


def test_a_mode_that_watches_sees_none_of_it():
    class Watch(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.seen = []

        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            self.seen.append(str(function))
            return function(*arguments, **(options or {}))

    q = quantizer(estimator="nearest")
    with Watch() as watch:
        q(z_of(20, 3))
    assert watch.seen and not any("scatter" in name for name in watch.seen)
    assert q.usage.sum() == 60


class Recorder:
    """A backend of torch.compile that keeps the programs."""

    def __init__(self):
        self.programs = []

    def __call__(self, program, inputs):
        self.programs.append(program)
        return program.forward


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("num_codebooks", [1, 3])
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_no_compiled_program_counts(estimator, num_codebooks):
    """Nor is it compiled anew once there are counts; what it returned can be counted."""
    torch._dynamo.reset()  # PyTorch 2.8 counts the other cases' compilations as this one's
    q = quantizer(estimator=estimator, num_codebooks=num_codebooks)
    recorder = Recorder()
    compiled = torch.compile(q, fullgraph=True, backend=recorder)
    indices = [compiled(z_of(20, 3)).indices for _ in range(2)]
    (program,) = recorder.programs
    targets = " ".join(str(node.target) for node in program.graph.nodes)
    assert "scatter" not in targets and "usage" not in targets
    methods = [str(node.target) for node in program.graph.nodes if node.op == "call_method"]
    assert not any(name.endswith("_") and not name.endswith("__") for name in methods)  # one is __eq__
    assert q.usage.sum() == 0
    for one in indices:
        q.count_usage(one)
    assert torch.equal(q.usage, counts_of(indices[0]) + counts_of(indices[1]))
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled(z_of(20, 3))
    # And an eager call counts as ever.
    q(z_of(20, 3))
    assert q.usage.sum() == 180


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_checkpointing_within_a_compiled_program():
    q = quantizer()
    z = leaf(z_of(20, 3))

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(value):
        return checkpoint(lambda part: q(part, seed=3).quantized.sin(), value, use_reentrant=False).sum()

    step(z).backward()
    other = leaf(z_of(20, 3))
    q(other, seed=3).quantized.sin().sum().backward()
    torch.testing.assert_close(z.grad, other.grad)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_no_exported_program_counts(strict, counted):
    q = quantizer(num_codebooks=1).eval()
    if counted:
        q(z_of(4, 3))
    before = q.usage
    program = torch.export.export(q, (z_of(20, 3),), strict=strict)
    signature = program.graph_signature
    assert not signature.buffers_to_mutate and not program.constants
    assert [str(spec.target) for spec in signature.input_specs if spec.target] == ["codebook"]
    z = z_of(20, 3, seed=1)
    assert torch.equal(reloaded(program).module()(z).indices, q(z).indices)
    assert q.usage.sum() == before.sum() + 60


def test_no_traced_program_counts():
    q = quantizer().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(q, (z_of(20, 3),), check_trace=False)
    assert "scatter" not in str(traced.inlined_graph) and q.usage.sum() == 0
    quantized, indices, _ = traced(z_of(20, 3, seed=1))
    assert torch.equal(q.codes(indices), quantized)
    for mode in ("real", "fake", "symbolic"):
        program = make_fx(lambda z: q(z).indices, tracing_mode=mode, _allow_non_fake_inputs=True)(z_of(20, 3))
        assert "scatter" not in program.code and q.usage.sum() == 0
        assert torch.equal(program(z_of(20, 3)), q(z_of(20, 3)).indices)
        q.reset_usage()


@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_a_first_call_under_fake_tensors_leaves_it_alone(num_codebooks):
    q = quantizer(num_codebooks=num_codebooks)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        z = mode.from_tensor(z_of(20, 3))
        q(z)
    with torch.no_grad():
        q(z)
    assert type(q.usage) is torch.Tensor and q.usage.sum() == 0
    out = q(z_of(20, 3))
    assert torch.equal(q.usage, counts_of(out.indices))
    assert q.perplexity().shape == (3,)


def test_meta_tensors_are_not_counted():
    q = quantizer()
    copy.deepcopy(q).to("meta")(torch.empty(20, 3, device="meta"))
    assert q.usage.device.type == "cpu" and q.usage.sum() == 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 0), (0, 4), (0, 0), (0,), (2, 0, 3), (2, 3, 0)])
def test_zero_sizes(training, shape):
    q = quantizer(num_codebooks=1).train(training)
    out = q(torch.empty(shape), return_weights=True)
    assert out.quantized.shape == out.indices.shape == shape and out.weights.shape == (*shape, 5)
    assert q.usage.sum() == 0 and not q.perplexity().any()
    q(z_of(20, 3))
    assert q.usage.sum() == 60


def test_transforms_are_not_counted():
    q = quantizer(estimator="nearest")
    torch.func.grad(lambda z: q(z).quantized.sum())(z_of(20, 3))
    torch.func.vmap(q)(z_of(4, 20, 3))
    assert q.usage.sum() == 0


def test_what_is_read_is_a_copy():
    q = quantizer()
    q(z_of(20, 3))
    read = q.usage
    kept = read.clone()
    q(z_of(20, 3))
    assert torch.equal(read, kept)
    read.zero_()
    assert q.usage.sum() == 120


@pytest.mark.parametrize("method", ["deepcopy", "pickle"])
def test_copies_count_apart(method):
    q = quantizer()
    q(z_of(20, 3))
    other = copy.deepcopy(q) if method == "deepcopy" else pickle.loads(pickle.dumps(q))
    assert torch.equal(other.usage, q.usage)
    other(z_of(20, 3))
    assert other.usage.sum() == 120 and q.usage.sum() == 60


def test_count_usage_names_bad_indices():
    q = quantizer()
    for indices in (torch.zeros(3), torch.zeros(4, 2, dtype=torch.int64), [0, 1, 2]):
        with pytest.raises((TypeError, ValueError), match="indices"):
            q.count_usage(indices)


def test_perplexity_without_ranks():
    q = quantizer()
    q(z_of(20, 3))
    assert torch.equal(q.perplexity(), q.perplexity(sync=False))


def test_counts_that_are_restored_go_on():
    from fqvae_kernels.quantizer import UsageCounter

    first, second = UsageCounter(2, 3), UsageCounter(2, 3)
    drawn = torch.tensor([[0, 2], [1, 2]])
    first.count(drawn, 2)
    saved = first.local()
    second.restore(saved)
    second.count(drawn, 2)
    assert second.local().tolist() == [[2, 2, 0], [0, 0, 4]] and saved.tolist() == [[1, 1, 0], [0, 0, 2]]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(1, 70_000), (1, 2, 70_000)])
def test_so_many_places_that_they_are_no_latents(shape, training):
    """Of a few of them the table would have gigabytes."""
    q = ScalarQuantizer(64, channel_first=False).train(training)
    q(torch.randn(shape))
    assert q.usage.shape == (1, 64) and int(q.usage.sum()) == torch.Size(shape).numel()
    q(torch.randn(7, 3))
    assert q.usage.shape == (3, 64)
    fixed = ScalarQuantizer(64, num_codebooks=70_000).train(training)
    fixed(torch.randn(1, 70_000))
    assert fixed.usage.shape == (70_000, 64)


def test_no_loss_depends_on_how_latents_are_counted(monkeypatch):
    """The entropy term has a mean for each latent, however many there are."""
    q, z = ScalarQuantizer(4, entropy_weight=1.0), torch.randn(9, 3) * torch.tensor([0.1, 1.0, 4.0])
    loss = q(z, seed=1).loss
    monkeypatch.setattr(arrangement, "_MOST_COUNTS", 11)
    fresh = ScalarQuantizer(4, entropy_weight=1.0, init=q.codebook.detach())
    assert torch.equal(fresh(z, seed=1).loss, loss) and fresh.usage.shape == (1, 4)


def test_usage_without_a_parameter():
    q = ScalarQuantizer(4)
    codes = q.codebook.detach()
    del q.codebook
    q.register_buffer("codebook", codes)
    q(torch.randn(5, 2))
    assert q.usage.shape == (2, 4) and q.perplexity().shape == (2,)
