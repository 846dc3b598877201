"""GumbelVectorQuantizer against float64 formulas, against transformers' quantizer, and its own promises."""

import copy
import io
import math
import pickle
import warnings

import pytest
import torch
from vectors import KINDS, expected, leaves, normal

import fqvae_kernels
from fqvae_kernels import GumbelVectorQuantizer, QuantizerOutput

NAN, INF = math.nan, math.inf
WEIGHTS = {"diversity_weight": 0.7, "kl_weight": 0.2}


def quantizer(dim=6, codes=5, values=4, **options):
    torch.manual_seed(1)
    return GumbelVectorQuantizer(dim, codes, values, **{"num_codebooks": 2, **options})


def right_losses(logits, diversity_weight=0.0, kl_weight=0.0):
    """Of logits (N, G, K), by the definitions, one codebook after the other."""
    rows, codebooks, codes = logits.shape
    perplexities = []
    for g in range(codebooks):
        mean = sum(logits[n, g].softmax(0) for n in range(rows)) / rows
        perplexities.append(torch.exp(-(mean * mean.log()).sum()))
    posterior = logits.softmax(-1)
    kl = (posterior * (posterior * codes).log()).sum(-1)
    return {
        "diversity": diversity_weight * (codebooks * codes - sum(perplexities)) / (codebooks * codes),
        "kl": kl_weight * kl.mean(),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_training_against_the_formulas(kind, num_codebooks):
    options = {"hard": False, **KINDS[kind]}
    q = quantizer(num_codebooks=num_codebooks, temperature=0.8, **options, **WEIGHTS)
    (x,) = leaves(normal((3, 7, 6)))
    out = q(x, seed=4, row_offset=10, return_weights=True)
    theirs = leaves(
        x.double(), q.projection.weight.double(), q.projection.bias.double(), q.embedding.double()
    )
    logits = (theirs[0] @ theirs[1].T + theirs[2]).reshape(3, 7, num_codebooks, 5)
    tau, same = torch.tensor(0.8).double(), {"seed": 4, "row_offset": 10, **KINDS[kind]}
    vectors, indices, kl, weights = expected(logits, theirs[3], tau, **same)
    losses = right_losses(logits.flatten(0, 1), **WEIGHTS)
    close = {"rtol": 1e-4, "atol": 1e-4}
    assert torch.equal(out.indices, indices) and out.indices.shape == (3, 7, num_codebooks)
    torch.testing.assert_close(out.quantized.double(), vectors.flatten(-2), **close)
    torch.testing.assert_close(out.kl.double(), kl, **close)
    torch.testing.assert_close(out.weights.double(), weights, **close)
    assert out.losses.keys() == losses.keys()
    for name, value in losses.items():
        torch.testing.assert_close(out.losses[name].double(), value, **close)
    torch.testing.assert_close(out.loss, sum(out.losses.values()))
    incoming = normal((3, 7, 4), seed=2)
    got = torch.autograd.grad(
        (out.quantized * incoming).sum() + out.loss,
        (x, q.projection.weight, q.projection.bias, q.embedding),
    )
    total = (vectors.flatten(-2) * incoming.double()).sum() + sum(losses.values())
    for one, other in zip(got, torch.autograd.grad(total, theirs), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3)


def test_eval_takes_the_best_code_and_draws_nothing():
    q = quantizer(**WEIGHTS).eval()
    (x,) = leaves(normal((3, 7, 6)))
    state = torch.get_rng_state()
    out = q(x, return_weights=True)
    assert torch.equal(torch.get_rng_state(), state)
    logits = q.projection(x).reshape(3, 7, 2, 5)
    best = logits.argmax(-1)
    rows = torch.stack([q.embedding[g][best[..., g]] for g in range(2)], -2)
    assert torch.equal(out.indices, best) and torch.equal(out.quantized, rows.flatten(-2))
    assert torch.equal(out.weights, torch.nn.functional.one_hot(best, 5).float())
    losses = right_losses(logits.detach().double().flatten(0, 1), **WEIGHTS)
    for name, value in losses.items():
        torch.testing.assert_close(out.losses[name].double(), value, rtol=1e-4, atol=1e-5)
    # The vectors pass no gradient to x, the losses do.
    of_embedding, of_x = torch.autograd.grad(
        out.quantized.sum(), (q.embedding, x), retain_graph=True, allow_unused=True
    )
    counts = torch.stack([best[..., g].flatten().bincount(minlength=5) for g in range(2)])
    assert torch.equal(of_embedding, counts.float().unsqueeze(-1).expand(2, 5, 2))
    assert of_x is None or not of_x.any()
    assert torch.autograd.grad(out.loss, x)[0].any()
    ties = GumbelVectorQuantizer(None, 3, 2).eval()
    assert ties(torch.tensor([[1.0, 2.0, 2.0]])).indices.tolist() == [[1]]


def theirs_of(q, temperature):
    """transformers' quantizer with the parameters of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("transformers")
        from transformers import Wav2Vec2Config
        from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

        config = Wav2Vec2Config(
            conv_dim=(q.dim,),
            conv_stride=(1,),
            conv_kernel=(1,),
            num_codevector_groups=q.num_codebooks,
            num_codevectors_per_group=q.codebook_size,
            codevector_dim=q.code_dim,
        )
    theirs = Wav2Vec2GumbelVectorQuantizer(config)
    theirs.temperature = temperature
    theirs.weight_proj.load_state_dict(q.projection.state_dict())
    with torch.no_grad():
        theirs.codevectors.copy_(q.embedding.reshape(theirs.codevectors.shape))
    return theirs


def test_against_transformers_in_eval():
    q = quantizer(16, 20, 12).eval()
    x = normal((3, 9, 16))
    theirs = theirs_of(q, 1.0).eval()
    expected_vectors, perplexity = theirs(x)
    found = q(x)
    assert torch.equal(found.quantized, expected_vectors)
    torch.testing.assert_close(q.perplexity().sum(), perplexity)


@pytest.mark.parametrize("masked", [False, True])
def test_against_transformers_in_training(masked):
    """With gumbel_softmax in the place of PyTorch's, both draw the same noise."""
    q = quantizer(16, 20, 12, diversity_weight=1.0, temperature=1.5)
    theirs = theirs_of(q, 1.5)
    ours_x, theirs_x = leaves(normal((3, 9, 16)), normal((3, 9, 16)))
    mask = torch.rand(3, 9, generator=torch.Generator().manual_seed(1)) < 0.6 if masked else None
    torch.manual_seed(5)
    out = q(ours_x, mask=mask)
    torch.manual_seed(5)
    with fqvae_kernels.patched():
        vectors, perplexity = theirs(theirs_x, mask)
    counts = torch.ones(3, 9, dtype=torch.bool) if mask is None else mask
    torch.testing.assert_close(out.quantized[counts], vectors[counts], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(out.loss, (40 - perplexity) / 40)
    incoming = normal((3, 9, 12), seed=3) * counts.unsqueeze(-1)
    got = torch.autograd.grad(
        (out.quantized * incoming).sum() + out.loss, (ours_x, q.projection.weight, q.embedding)
    )
    wanted = torch.autograd.grad(
        (vectors * incoming).sum() + (40 - perplexity) / 40,
        (theirs_x, theirs.weight_proj.weight, theirs.codevectors),
    )
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other.reshape(one.shape), rtol=1e-3, atol=1e-4)


def gradients(q, x, out, incoming):
    return torch.autograd.grad(
        (out.quantized * incoming).sum() + out.loss, (x, *q.parameters()), allow_unused=True
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_a_mask_leaves_out_its_positions(kind, training):
    q = quantizer(**{"hard": False, **KINDS[kind]}, **WEIGHTS).train(training)
    values = normal((9, 6))
    values[6:] = torch.tensor([NAN, INF, 1e30]).unsqueeze(-1)
    mask = torch.arange(9) < 6
    (x,), (kept,) = leaves(values), leaves(values[:6])
    out = q(x, mask=mask, seed=3, return_weights=True, return_kl=True)
    counts = q.usage
    q.reset_usage()
    alone = q(kept, seed=3, return_weights=True, return_kl=True)
    assert torch.equal(counts, q.usage) and counts.sum() == 12
    for name in ("quantized", "indices", "kl", "weights"):
        one, other = getattr(out, name), getattr(alone, name)
        torch.testing.assert_close(one[:6], other)
        assert one[6:].eq(-1 if name == "indices" else 0).all()
    torch.testing.assert_close(out.losses, alone.losses)
    incoming = normal((9, 4), seed=2)
    got, wanted = gradients(q, x, out, incoming), gradients(q, kept, alone, incoming[:6])
    torch.testing.assert_close(got[0][:6], wanted[0])
    assert got[0][6:].eq(0).all()
    torch.testing.assert_close(got[1:], wanted[1:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_position_that_is_not_finite_harms_no_other(kind, training, value):
    q = quantizer(**{"hard": False, **KINDS[kind]}, **WEIGHTS).train(training)
    values = normal((7, 6))
    values[6, 2] = value
    (x,), (kept,) = leaves(values), leaves(values[:6])
    out, alone = (q(each, seed=3, return_weights=True, return_kl=True) for each in (x, kept))
    for name in ("quantized", "kl", "weights"):
        torch.testing.assert_close(getattr(out, name)[:6], getattr(alone, name))
        assert getattr(out, name)[6].isnan().all()
    assert ((out.indices >= 0) & (out.indices < 5)).all()
    torch.testing.assert_close(out.losses, alone.losses)
    incoming = normal((7, 4), seed=2)
    incoming[6] = NAN
    total = torch.autograd.grad(
        (out.quantized, out.loss), (x, *q.parameters()), (incoming, torch.ones(())), allow_unused=True
    )
    wanted = gradients(q, kept, alone, incoming[:6])
    torch.testing.assert_close(total[0][:6], wanted[0])
    assert total[0][6].eq(0).all()
    torch.testing.assert_close(total[1:], wanted[1:])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_vector_that_is_not_finite_spoils_its_codebook(training, value):
    q, right = (quantizer(**WEIGHTS).train(training) for _ in range(2))
    with torch.no_grad():
        q.embedding[1, 2, 0] = value
    (x,) = leaves(normal((7, 6)))
    found, whole = (each(x, seed=3, return_weights=True, return_kl=True) for each in (q, right))
    assert found.quantized[:, 2:].isnan().all() and torch.equal(
        found.quantized[:, :2], whole.quantized[:, :2]
    )
    assert found.kl[:, 1].isnan().all() and torch.equal(found.kl[:, 0], whole.kl[:, 0])
    assert found.weights[:, 1].isnan().all() and torch.equal(found.weights[:, 0], whole.weights[:, 0])
    torch.testing.assert_close(found.losses["kl"], 0.2 * whole.kl[:, 0].mean())
    for gradient in gradients(q, x, found, normal((7, 4), seed=2)):
        assert gradient is None or gradient.isfinite().all()


@pytest.mark.parametrize("training", [False, True])
def test_nothing_that_counts(training):
    q = quantizer(**WEIGHTS).train(training)
    (x,) = leaves(normal((4, 6)))
    outputs = q(x, mask=torch.zeros(4, dtype=torch.bool)), q(x[:0])
    for out in outputs:
        assert out.loss == 0 and not out.quantized.any()
        with torch.autograd.set_detect_anomaly(True):
            found = gradients(q, x, out, torch.ones_like(out.quantized))
        for gradient in found:
            assert gradient is None or not gradient.any()
    assert q.usage.sum() == 0 and q.perplexity().tolist() == [0, 0]


@pytest.mark.parametrize("training", [False, True])
def test_logits_instead_of_a_projection(training):
    q = quantizer(None, **WEIGHTS).train(training)
    assert q.projection is None and {name for name, _ in q.named_parameters()} == {"embedding"}
    values = normal((6, 10))
    values[:, 1] = -INF
    values[4, :5], values[5, 7] = -INF, NAN
    (x,) = leaves(values)
    out = q(x, seed=1, return_kl=True)
    assert (out.indices[:4, 0] != 1).all()
    usable = torch.ones(6, 4, dtype=torch.bool)
    usable[4, :2] = usable[5, 2:] = False
    assert torch.equal(~out.quantized.isnan(), usable)
    assert torch.equal(out.kl.isnan(), ~usable[:, ::2])
    assert out.loss.isfinite()
    gradient = torch.autograd.grad(out.loss, x)[0]
    assert gradient.isfinite().all() and gradient[:, 1].eq(0).all() and gradient.any()
    # The losses are those of the rows that are usable.
    first, second = values[[0, 1, 2, 3, 5], :5].double().softmax(-1), values[:5, 5:].double().softmax(-1)
    perplexity = sum(torch.special.entr(each.mean(0)).sum().exp() for each in (first, second))
    torch.testing.assert_close(out.losses["diversity"].double(), 0.7 * (10 - perplexity) / 10)


def test_the_diversity_loss_at_its_ends():
    q = quantizer(None, 8, 2, num_codebooks=2, diversity_weight=3.0)
    alike = torch.eye(8).repeat(1, 2) * 1e4
    assert abs(q(alike).loss.item()) < 1e-5
    one = torch.zeros(4, 16)
    one[:, 0] = one[:, 15] = 1e4
    (one,) = leaves(one)
    loss = q(one).loss
    torch.testing.assert_close(loss, torch.tensor(3.0 * (16 - 2) / 16))
    assert torch.autograd.grad(loss, one)[0].isfinite().all()


def test_a_schedule_falls_and_is_kept():
    q = quantizer(temperature=(2.0, 0.5, 0.9))
    assert q.temperature.item() == 2.0
    for step in range(1, 20):
        q.advance()
        assert q.temperature.item() == pytest.approx(max(2.0 * 0.9**step, 0.5), rel=1e-6)
    other = quantizer(temperature=(2.0, 0.5, 0.9))
    other.advance(3)
    q = copy.deepcopy(other)
    assert {"temperature", "temperature_step"} < set(q.state_dict())
    again = quantizer(temperature=(2.0, 0.5, 0.9))
    again.load_state_dict(pickle.loads(pickle.dumps(q.state_dict())))
    for each in (q, again):
        each.advance(2)
        assert each.temperature.item() == pytest.approx(2.0 * 0.9**5, rel=1e-6)
    x = normal((5, 6))
    soft = quantizer(temperature=(2.0, 0.5, 0.9), hard=False)
    soft.advance(4)
    now = quantizer(temperature=2.0 * 0.9**4, hard=False)
    torch.testing.assert_close(soft(x, seed=1).quantized, now(x, seed=1).quantized)
    with pytest.raises(RuntimeError, match="follows no schedule"):
        now.advance()
    with pytest.raises(ValueError, match="steps must be"):
        soft.advance(-1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compile_and_a_temperature_that_is_never_stale():
    q = quantizer(temperature=(2.0, 0.1, 0.5), hard=False, **WEIGHTS)
    torch.compiler.reset()
    compiled = torch.compile(q, fullgraph=True, backend="aot_eager")
    (x,) = leaves(normal((5, 6)))
    mask = torch.arange(5) < 4
    compiled(x, seed=3, mask=mask)
    q.reset_usage()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            q.advance()
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
    with pytest.raises(TypeError, match=r"indices must be a torch\.int32 or torch\.int64"):
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


def test_its_representation():
    q = quantizer(temperature=(2.0, 0.5, 0.99), backend="reference", hard=False, **WEIGHTS)
    for part in ("6, 5, 4", "num_codebooks=2", "temperature=(2.0, 0.5, 0.99)", "hard=False", "kl_weight=0.2"):
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
        ({"temperature": (2.0, 0.5)}, ValueError, r"must be \(start, end, decay\)"),
        ({"temperature": "cold"}, ValueError, r"must be \(start, end, decay\)"),
        ({"temperature": (0.5, 2.0, 0.9)}, ValueError, r"start must be at least its end \(2.0\)"),
        ({"temperature": (2.0, 0.5, 1.1)}, ValueError, "decay must be greater than 0 and at most 1"),
        ({"temperature": (2.0, 0.0, 0.9)}, ValueError, "temperature's end must be finite and greater"),
        ({"temperature": torch.nn.Parameter(torch.ones(()))}, ValueError, "must not require a gradient"),
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
