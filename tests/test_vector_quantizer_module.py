"""GumbelVectorQuantizer as a module: schedule, usage, copies, compile, export, and its errors."""

import copy
import io
import math
import pickle

import pytest
import torch
from ranks import needs_ranks, on_ranks
from torch.utils.checkpoint import checkpoint
from vectors import WEIGHTS, gradients, leaves, normal, quantizer

from fqvae_kernels import QuantizerOutput, TemperatureSchedule

INF = math.inf


def decaying(end=0.5, decay=0.9):
    return TemperatureSchedule(2.0, end, decay=decay)


def test_a_schedule_is_followed_and_kept():
    q = quantizer(temperature=decaying(), hard=False)
    q.temperature_schedule.step(3)
    assert q.temperature.item() == pytest.approx(2.0 * 0.9**3, rel=1e-6)
    assert "temperature_schedule.count" in q.state_dict() and "temperature" not in q.state_dict()
    again = quantizer(temperature=decaying(), hard=False)
    again.load_state_dict(pickle.loads(pickle.dumps(q.state_dict())))
    x, now = normal((5, 6)), quantizer(temperature=2.0 * 0.9**5, hard=False)
    for each in (copy.deepcopy(q), again):
        each.temperature_schedule.step(2)
        torch.testing.assert_close(each(x, seed=1).quantized, now(x, seed=1).quantized)


@pytest.mark.parametrize("options", [{"learn_temperature": True}, {}])
def test_a_temperature_that_is_learned(backend, options):
    """d/d ln t = t d/dt; a Parameter means learned too."""
    given = 0.5 if options else torch.nn.Parameter(torch.tensor(0.5))
    q = quantizer(temperature=given, hard=False, backend=backend, **options)
    assert "log_temperature" in dict(q.named_parameters()) and "learn_temperature=True" in repr(q)
    x, (temperature,) = normal((9, 6)), leaves(torch.tensor(0.5))
    out = q(x, seed=3)
    other = quantizer(hard=False, backend=backend)(x, seed=3, temperature=temperature)
    torch.testing.assert_close(out.quantized, other.quantized)
    out.quantized.square().sum().backward()
    other.quantized.square().sum().backward()
    assert temperature.grad.abs() > 1e-3
    torch.testing.assert_close(q.log_temperature.grad.sum(), 0.5 * temperature.grad, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        q.log_temperature += 3.0
    q.reset_parameters()
    assert q.temperature.item() == pytest.approx(0.5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compile_and_a_temperature_that_is_never_stale():
    q = quantizer(temperature=decaying(0.1, 0.5), hard=False, **WEIGHTS)
    torch.compiler.reset()
    compiled = torch.compile(q, fullgraph=True, backend="aot_eager")
    (x,) = leaves(normal((5, 6)))
    mask = torch.arange(5) < 4
    compiled(x, seed=3, mask=mask)
    q.reset_usage()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            q.temperature_schedule.step()
            found = compiled(x, seed=3, mask=mask)
            assert q.usage.sum() == 0
            right = q(x, seed=3, mask=mask)
            q.reset_usage()
            assert type(found) is QuantizerOutput and torch.equal(found.indices, right.indices)
            torch.testing.assert_close(found.quantized, right.quantized)
            torch.testing.assert_close(found.losses, right.losses)
            incoming = normal((5, 4), seed=2)
            torch.testing.assert_close(
                gradients(q, x, found, incoming), gradients(q, x, right, incoming), rtol=1e-4, atol=1e-5
            )
    q.count_usage(found.indices)
    assert q.usage.sum() == 8


@pytest.mark.parametrize("dim", [6, None])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_export(dim, training):
    """At another batch than it was exported with."""
    q = quantizer(dim, temperature=decaying(), **WEIGHTS).train(training)
    batch = torch.export.Dim("batch", min=2, max=100)

    def arguments(size):
        mask = torch.rand(size, 3, generator=torch.Generator().manual_seed(size)) < 0.7
        return (normal((size, 3, dim or 10)),), {"mask": mask, "seed": torch.tensor(4)}

    shapes = {"x": {0: batch}, "mask": {0: batch}, "seed": None}
    program = torch.export.export(q, *arguments(6), dynamic_shapes=shapes)
    (x,), options = arguments(9)
    found, right = program.module()(x, **options), q(x, **options)
    assert type(found) is QuantizerOutput and torch.equal(found.indices, right.indices)
    torch.testing.assert_close(found.quantized, right.quantized)
    torch.testing.assert_close(found.losses, right.losses)


def test_mapped_and_checkpointed():
    q = quantizer(**WEIGHTS)
    (x,) = leaves(normal((4, 7, 6)))
    whole = q(x, seed=3)
    mapped = torch.func.vmap(lambda part: q(part, seed=3).quantized)(x)
    torch.testing.assert_close(mapped, whole.quantized)
    wanted = gradients(q, x, whole, torch.ones_like(whole.quantized))
    assert q.usage.sum() == 56
    q.reset_usage()
    again = checkpoint(q, x, use_reentrant=False, seed=3)
    torch.testing.assert_close(gradients(q, x, again, torch.ones_like(whole.quantized)), wanted)
    # The pass that is repeated within the backward pass counts no second time.
    assert q.usage.sum() == 56


def test_usage_perplexity_and_codes():
    q = quantizer(num_codebooks=2)
    indices = torch.tensor([[[0, 4], [1, 4]], [[0, -1], [1, 4]]])
    q.count_usage(indices)
    assert q.usage.tolist() == [[2, 2, 0, 0, 0], [0, 0, 0, 0, 3]]
    torch.testing.assert_close(q.perplexity(), torch.tensor([2.0, 1.0]))
    assert torch.equal(q.perplexity(sync=False), q.perplexity())
    q.reset_usage()
    assert q.usage.sum() == 0
    for dtype in (torch.int32, torch.int64):
        vectors = q.codes(indices.to(dtype))
        assert vectors.shape == (2, 2, 4) and torch.equal(vectors[0, 1, 2:], q.embedding[1, 4])
        assert torch.equal(vectors[1, 0, :2], q.embedding[0, 0]) and not vectors[1, 0, 2:].any()
    out = q(normal((3, 5, 6)))
    assert torch.equal(q.codes(out.indices), out.quantized)
    assert q.usage.sum() == 30
    for bad in (torch.tensor([0, 5]), torch.tensor([-2, 0])):
        with pytest.raises(ValueError, match=r"indices must be in \[0, 5\), or -1, but one was"):
            q.codes(bad)
    with pytest.raises(ValueError, match=r"indices must have shape \(\.\.\., 2\)"):
        q.count_usage(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"indices must be a torch\.int64 or torch\.int32"):
        q.codes(torch.zeros(2))


def test_seeds_shards_and_copies():
    q = quantizer(temperature=torch.tensor(0.7))
    assert "temperature" in q.state_dict()
    x = normal((4, 3, 6))
    whole = q(x, seed=9).indices
    # A position has a row for each codebook.
    parts = [q(x[i : i + 2], seed=9, row_offset=i * 3 * 2).indices for i in (0, 2)]
    assert torch.equal(torch.cat(parts), whole)
    torch.manual_seed(2)
    first = q(x).indices
    torch.manual_seed(2)
    file = io.BytesIO()
    torch.save(q, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded(x).indices, first)
    parameters = {name: value * 1 for name, value in q.named_parameters()}
    again = torch.func.functional_call(q, parameters, (x,), {"seed": 9})
    assert torch.equal(again.indices, whole)
    with torch.autocast("cpu", torch.bfloat16):
        out = q(x, seed=9)
    assert out.quantized.dtype == torch.bfloat16
    torch.testing.assert_close(out.quantized, q.codes(out.indices).bfloat16())
    assert q.double()(x.double(), seed=9).quantized.dtype == torch.float64


def test_ranks_draw_rows_of_their_own(monkeypatch):
    q, x = quantizer(codes=50), normal((4, 6))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    own = q(x, seed=9).indices
    assert torch.equal(own, q(x, seed=9, row_offset=3 * 2**40).indices)
    assert not torch.equal(own, q(x, seed=9, row_offset=0).indices)


def _count(rank):
    """The usage and perplexity of all ranks after each counted its own."""
    q = quantizer()
    q.count_usage(torch.tensor([[rank, 0], [0, 4 * rank]]))
    return q.usage.tolist(), q.perplexity().tolist(), q.perplexity(sync=False).tolist()


@needs_ranks
def test_usage_sums_over_ranks(tmp_path):
    zero, one = on_ranks(tmp_path, _count)
    assert zero[:2] == one[:2] and zero[0] == [[3, 1, 0, 0, 0], [3, 0, 0, 0, 1]]
    perplexity = (4 / 3) ** 0.75 * 4**0.25
    assert zero[1] == pytest.approx([perplexity] * 2)
    assert zero[2] == pytest.approx([1.0, 1.0]) and one[2] == pytest.approx([2.0, 2.0])


def test_its_representation():
    q = quantizer(temperature=decaying(), backend="reference", hard=False, **WEIGHTS)
    for part in ("6, 5, 4", "num_codebooks=2", "(2, 0.5, decay=0.9)", "hard=False", "kl_weight=0.2"):
        assert part in repr(q)
    assert "temperature=0.3" in repr(quantizer(temperature=0.3))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"dim": 0}, ValueError, "dim must be"),
        ({"codes": 0}, ValueError, "codebook_size must be"),
        ({"values": 5}, ValueError, r"code_dim must be a multiple of num_codebooks \(2\).*but was 5"),
        ({"num_codebooks": 0}, ValueError, "num_codebooks must be"),
        ({"temperature": 0.0}, ValueError, "temperature must be finite and greater than 0"),
        ({"temperature": (2.0, 0.5, 0.9)}, TypeError, "temperature must be a float"),
        ({"temperature": "cold"}, TypeError, "temperature must be a float"),
        ({"temperature": decaying(), "learn_temperature": True}, ValueError, "learn_temperature must be"),
        ({"learn_temperature": 1}, TypeError, "learn_temperature must be"),
        ({"estimator": "nearest"}, ValueError, "estimator must be one of"),
        ({"hard": 1}, TypeError, "hard must be True or False"),
        ({"diversity_weight": -1.0}, ValueError, "diversity_weight must be"),
        ({"kl_weight": INF}, ValueError, "kl_weight must be"),
        ({"backend": "gpu"}, ValueError, "backend must be None or one of"),
    ],
)
def test_bad_options(options, error, words):
    with pytest.raises(error, match=words):
        quantizer(**options)


@pytest.mark.parametrize(
    ("x", "arguments", "error", "words"),
    [
        ([1.0], {}, TypeError, r"x must be a torch\.Tensor"),
        (
            torch.zeros(3, 5),
            {},
            ValueError,
            r"x must have shape \(\.\.\., 6\) by dim, but had shape \(3, 5\)",
        ),
        (torch.zeros(()), {}, ValueError, "x must have shape"),
        (torch.zeros(3, 6), {"mask": torch.ones(3)}, TypeError, r"mask must be a torch\.bool tensor"),
        (torch.zeros(3, 6), {"mask": [True]}, TypeError, r"mask must be a torch\.bool tensor"),
        (
            torch.zeros(3, 6),
            {"mask": torch.ones(3, 6, dtype=torch.bool)},
            ValueError,
            r"mask must have the shape of x's positions \(3,\)",
        ),
        (
            torch.zeros(3, 6),
            {"mask": torch.ones(3, dtype=torch.bool, device="meta")},
            ValueError,
            "mask must be on the device of x",
        ),
        (torch.zeros(3, 6), {"return_kl": 1}, TypeError, "return_kl must be"),
        (torch.zeros(3, 6), {"return_weights": 1}, TypeError, "return_weights must be"),
        (torch.zeros(3, 6), {"temperature": -1.0}, ValueError, "temperature must be"),
        (torch.zeros(3, 6), {"seed": -1}, ValueError, "seed must be"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_bad_calls(x, arguments, error, words, training):
    with pytest.raises(error, match=words):
        quantizer().train(training)(x, **arguments)
    with pytest.raises(ValueError, match=r"logits \(\.\.\., 2 \* 5\)"):
        quantizer(None)(torch.zeros(3, 5))
