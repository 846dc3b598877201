"""GumbelVectorQuantizer against float64 formulas, against transformers' quantizer, and what is left out."""

import math
import warnings

import pytest
import torch
from vectors import KINDS, WEIGHTS, expected, gradients, leaves, normal, quantizer

import fqvae_kernels
from fqvae_kernels import GumbelVectorQuantizer

NAN, INF = math.nan, math.inf


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
