"""`gumbel_quantize_logits` with codes that are vectors, against the float64 formulas with equal noise."""

import itertools
import math

import pytest
import torch
from vectors import KINDS, expected, leaves, normal

import fqvae_kernels
from fqvae_kernels import _vectors, gumbel_quantize_logits

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
NAN, INF = math.nan, math.inf
BOUNDS = {torch.float64: 1e-11, torch.float32: 3e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
# Of logits, of the embedding.
SHAPES = [
    ((5,), (5, 3)),
    ((7, 33), (33, 2)),
    ((2, 3, 6), (3, 6, 4)),
    ((0, 4), (4, 2)),
    ((3, 2, 1), (2, 1, 1)),
]


@pytest.fixture(params=["reference", "cpu"])
def backend(request):
    """Without the cpu one's instruction sets: here is nothing that depends on them."""
    if request.param not in fqvae_kernels.available_backends():
        pytest.skip("the package was installed without the cpu backend")
    return request.param


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shapes", SHAPES)
def test_values_and_gradients(backend, dtype, kind, shapes):
    logits, embedding = normal(shapes[0], dtype, spread=2.0), normal(shapes[1], dtype, 1)
    ours = leaves(logits, embedding, torch.tensor(0.7, dtype=torch.float64))
    theirs = leaves(logits.double(), embedding.double(), ours[2])
    same = {"seed": 2**40 + 3, "row_offset": 11, **KINDS[kind]}
    found = gumbel_quantize_logits(
        ours[0], embedding=ours[1], temperature=ours[2], return_weights=True, backend=backend, **same
    )
    right = expected(*theirs, **same)
    assert found.quantized.shape == (*shapes[0][:-1], shapes[1][-1])
    assert found.quantized.dtype == found.weights.dtype == dtype
    assert torch.equal(found.indices, right[1])
    bound = BOUNDS[dtype]
    incoming = []
    for seed, (one, other) in enumerate(zip(found, right, strict=True)):
        if seed != 1:
            torch.testing.assert_close(one.double(), other, rtol=bound, atol=bound)
            incoming.append(normal(other.shape, dtype, seed + 5))
    if kind != "soft":
        assert set(found.weights.detach().unique().tolist()) <= {0.0, 1.0}
    # Together, and without kl and weights, which takes another road.
    bare = gumbel_quantize_logits(
        ours[0], embedding=ours[1], temperature=ours[2], return_kl=False, backend=backend, **same
    )
    assert bare.kl is None and bare.weights is None and torch.equal(bare.indices, found.indices)
    torch.testing.assert_close(bare.quantized, found.quantized, rtol=bound, atol=bound)
    outputs = found.quantized, found.kl, found.weights
    sums = [
        (
            sum((each.double() * g.double()).sum() for each, g in zip(outputs, incoming, strict=True)),
            sum((right[i] * g.double()).sum() for i, g in zip((0, 2, 3), incoming, strict=True)),
        ),
        ((bare.quantized.double() * incoming[0].double()).sum(), (right[0] * incoming[0].double()).sum()),
    ]
    size = math.sqrt(max(1, math.prod(shapes[0])))
    for mine, true in sums:
        got = torch.autograd.grad(mine, ours, allow_unused=True, materialize_grads=True)
        wanted = torch.autograd.grad(
            true, theirs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for i in range(2):
            assert got[i].dtype == dtype
            torch.testing.assert_close(got[i].double(), wanted[i], rtol=4 * bound, atol=8 * bound)
        if kind != "reinmax":  # whose temperature gets no gradient
            torch.testing.assert_close(got[2], wanted[2], rtol=4 * bound, atol=8 * bound * size)


@pytest.mark.parametrize("kind", ["hard", "straight_through", "reinmax"])
@pytest.mark.parametrize("shapes", SHAPES[:3])
def test_a_code_is_its_row_to_the_last_bit(backend, kind, shapes):
    logits, embedding = normal(shapes[0]), normal(shapes[1], seed=1)
    rows = torch.stack([embedding[..., k, :].expand(*shapes[0][:-1], -1) for k in range(shapes[0][-1])], -2)
    for requires in (False, True):
        given = logits.clone().requires_grad_(requires)
        found = gumbel_quantize_logits(given, embedding=embedding, seed=3, backend=backend, **KINDS[kind])
        place = found.indices[..., None, None].expand(*found.indices.shape, 1, embedding.shape[-1])
        assert torch.equal(found.quantized, rows.gather(-2, place).squeeze(-2))


def test_a_code_is_its_row_where_products_are_rounded(monkeypatch):
    """As on GPUs that multiply matrices in TF32; vmap takes the road that multiplies."""
    product = _vectors._product
    monkeypatch.setattr(_vectors, "_product", lambda left, right: product(left, right.bfloat16().float()))
    logits, embedding = normal((5, 7)), normal((7, 3), seed=1)
    found = torch.func.vmap(
        lambda x: gumbel_quantize_logits(x, embedding=embedding, hard=True, seed=1)[:2], in_dims=0
    )(logits)
    assert torch.equal(found[0], embedding[found[1]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("return_kl", [False, True])
def test_vectors_of_one_value_are_scalars(backend, kind, return_kl):
    """Which kernels take from a codebook, by code that knows no embedding."""
    logits, embedding = normal((4, 3, 6), spread=2.0), normal((3, 6, 1), seed=1)
    ours, theirs = leaves(logits, embedding), leaves(logits, embedding[..., 0])
    same = {"seed": 4, "temperature": 0.6, "return_kl": return_kl, "backend": backend, **KINDS[kind]}
    found = gumbel_quantize_logits(ours[0], embedding=ours[1], **same)
    right = gumbel_quantize_logits(*theirs, **same)
    assert torch.equal(found.indices, right.indices)
    torch.testing.assert_close(found.quantized[..., 0], right.quantized, rtol=1e-5, atol=1e-5)
    weight = normal((4, 3), seed=2)
    got = torch.autograd.grad((found.quantized[..., 0] * weight).sum(), ours)
    wanted = torch.autograd.grad((right.quantized * weight).sum(), theirs)
    torch.testing.assert_close(got[0], wanted[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1][..., 0], wanted[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("return_kl", [False, True])
def test_gradcheck(cpu_backend, return_kl):
    logits, embedding, tau = leaves(
        normal((3, 2, 4), torch.float64), normal((2, 4, 3), torch.float64, 1), torch.tensor(0.8).double()
    )

    def call(logits, embedding, tau):
        found = gumbel_quantize_logits(
            logits, embedding=embedding, temperature=tau, seed=5, return_kl=return_kl, backend=cpu_backend
        )
        return (found.quantized, found.kl) if return_kl else found.quantized

    assert torch.autograd.gradcheck(call, (logits, embedding, tau), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, (logits, embedding, tau))


@pytest.mark.parametrize("kind", ["soft", "hard", "straight_through"])
@pytest.mark.parametrize("return_kl", [False, True])
@pytest.mark.parametrize("shapes", SHAPES[1:3])
def test_derivatives_of_derivatives(cpu_backend, kind, return_kl, shapes):
    logits, embedding = normal(shapes[0], torch.float64), normal(shapes[1], torch.float64, 1)
    incoming = normal((*shapes[0][:-1], shapes[1][-1]), torch.float64, 2)
    tau = torch.tensor(0.8, dtype=torch.float64)
    ours, theirs = leaves(logits, embedding, tau, incoming), leaves(logits, embedding, tau, incoming)
    found = gumbel_quantize_logits(
        ours[0],
        embedding=ours[1],
        temperature=ours[2],
        seed=5,
        return_kl=return_kl,
        backend=cpu_backend,
        **KINDS[kind],
    )
    right = expected(*theirs[:3], seed=5, **KINDS[kind])
    second = []
    for result, given in ((found.quantized, ours), (right[0], theirs)):
        first = torch.autograd.grad(result, given[:3], given[3], create_graph=True)
        total = sum((each**2).sum() for each in first)
        second.append(torch.autograd.grad(total, given))
    torch.testing.assert_close(*second, rtol=1e-8, atol=1e-8)
    assert all(each.abs().max() > 0 for each in second[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("return_kl", [False, True])
def test_other_roads(backend, kind, return_kl):
    """vmap, per-sample gradients, torch.compile and autocast give the same; forward mode the same slope."""
    logits, embedding = normal((3, 4, 2, 6)), normal((2, 6, 5), seed=1)
    weight = normal((3, 4, 2, 5), seed=2)

    def call(logits, embedding):
        return gumbel_quantize_logits(
            logits,
            embedding=embedding,
            temperature=0.5,
            seed=7,
            return_kl=return_kl,
            backend=backend,
            **KINDS[kind],
        ).quantized

    ours = leaves(logits, embedding)
    eager = call(*ours)
    gradients = torch.autograd.grad((eager * weight).sum(), ours)
    close = {"rtol": 1e-4, "atol": 1e-4} if kind == "soft" else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(torch.func.vmap(call, (0, None))(logits, embedding), eager, **close)
    per_sample = torch.func.vmap(
        torch.func.grad(lambda x, e, w: (call(x, e) * w).sum(), argnums=(0, 1)), (0, None, 0)
    )(logits, embedding, weight)
    torch.testing.assert_close(per_sample[0], gradients[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(per_sample[1].sum(0), gradients[1], rtol=1e-4, atol=1e-4)
    torch.compiler.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    again = compiled(*ours)
    torch.testing.assert_close(again, eager, **close)
    torch.testing.assert_close(
        torch.autograd.grad((again * weight).sum(), ours), gradients, rtol=1e-4, atol=1e-4
    )
    with torch.autocast("cpu", torch.bfloat16):
        cast = call(*ours)
        torch.testing.assert_close(cast, eager, rtol=0, atol=0)
        found = torch.autograd.grad((cast * weight).sum(), ours)
    torch.testing.assert_close(found, gradients, rtol=1e-5, atol=1e-5)
    tangents = normal((3, 4, 2, 6), seed=3), normal((2, 6, 5), seed=4)
    value, slope = torch.func.jvp(call, (logits, embedding), tangents)
    torch.testing.assert_close(value, eager, **close)
    dot = sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True))
    torch.testing.assert_close((slope * weight).sum(), dot, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("return_kl", [False, True])
def test_rows_that_are_not_usable(backend, kind, return_kl):
    logits = normal((6, 5))
    logits[0, 2] = logits[1, :4] = logits[2, :] = -INF
    logits[3, 1], logits[4, 0] = NAN, INF
    ours = leaves(logits, normal((5, 3), seed=1))
    same = {"seed": 4, "temperature": 0.5, "return_kl": return_kl, "backend": backend, **KINDS[kind]}
    found = gumbel_quantize_logits(ours[0], embedding=ours[1], return_weights=True, **same)
    assert found.quantized[[2, 3, 4]].isnan().all() and found.quantized[[0, 1, 5]].isfinite().all()
    assert found.weights[[2, 3, 4]].isnan().all() and found.weights[0, 2] == 0
    assert torch.equal(found.quantized[1], ours[1][4])
    assert ((found.indices >= 0) & (found.indices < 5)).all()
    weight = normal((6, 3), seed=2)
    # A gradient that is NaN where quantized is, as a loss on it would send.
    weight[[2, 3, 4]] = NAN
    got = torch.autograd.grad(found.quantized, ours, weight)
    assert got[0][[2, 3, 4]].eq(0).all() and all(each.isfinite().all() for each in got)
    usable = leaves(logits[[0, 1, 5]], ours[1])
    # Rows 0 and 1 draw what they drew, row 5 by its own number.
    parts = [
        gumbel_quantize_logits(usable[0][i : i + n], embedding=usable[1], row_offset=row, **same).quantized
        for i, n, row in ((0, 2, 0), (2, 1, 5))
    ]
    wanted = torch.autograd.grad(torch.cat(parts), usable, weight[[0, 1, 5]])
    torch.testing.assert_close(got[0][[0, 1, 5]], wanted[0])
    torch.testing.assert_close(got[1], wanted[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("return_kl", [False, True])
@pytest.mark.parametrize("value", [NAN, INF])
def test_codes_that_are_not_finite(cpu_backend, kind, return_kl, value):
    """They make every row of their codebook unusable, and those of no other."""
    logits, embedding = normal((4, 2, 5)), normal((2, 5, 3), seed=1)
    broken = embedding.clone()
    broken[1, 2, 0] = value

    def call(logits, embedding):
        return gumbel_quantize_logits(
            logits,
            embedding=embedding,
            seed=4,
            temperature=0.5,
            return_kl=return_kl,
            backend=cpu_backend,
            **KINDS[kind],
        )

    run = call
    if math.isnan(value) and not return_kl:
        torch.compiler.reset()
        run = torch.compile(call, fullgraph=True, backend="aot_eager")
    ours, theirs = leaves(logits, broken), leaves(logits, embedding)
    found, right = run(*ours), call(*theirs)
    assert found.quantized[:, 1].isnan().all() and torch.equal(found.indices[:, 0], right.indices[:, 0])
    torch.testing.assert_close(found.quantized[:, 0], right.quantized[:, 0])
    if return_kl:
        assert found.kl[:, 1].isnan().all() and found.kl[:, 0].isfinite().all()
    weight = normal((4, 2, 3), seed=2)
    got = torch.autograd.grad((found.quantized * weight).sum(), ours)
    wanted = torch.autograd.grad((right.quantized * weight).sum(), theirs)
    torch.testing.assert_close(got[0][:, 0], wanted[0][:, 0])
    torch.testing.assert_close(got[1][0], wanted[1][0])
    assert got[0][:, 1].eq(0).all() and got[1][1].eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_combination_of_needs(cpu_backend, kind):
    weight = normal((5, 2), seed=2)
    found = {}
    for requires in itertools.product((False, True), repeat=3):
        tensors = normal((5, 9)), normal((9, 2), seed=1), torch.tensor(0.6)
        logits, embedding, tau = (each.requires_grad_(r) for each, r in zip(tensors, requires, strict=True))
        result = gumbel_quantize_logits(
            logits,
            embedding=embedding,
            temperature=tau,
            seed=2,
            return_kl=False,
            backend=cpu_backend,
            **KINDS[kind],
        ).quantized
        if result.requires_grad:
            result.backward(weight)
            found[requires] = logits.grad, embedding.grad, tau.grad
    for requires, gradients in found.items():
        for required, one, whole in zip(requires, gradients, found[True, True, True], strict=True):
            if required and whole is not None:
                torch.testing.assert_close(one, whole)
            if not required:
                assert one is None
    assert len(found) >= 6


def test_layouts(backend):
    logits, embedding = normal((6, 4, 10)), normal((8, 10), seed=1).mT
    for view in (logits[:, ::2], logits.transpose(0, 1), logits.expand(2, 6, 4, 10), logits.flip(-1)):
        dense = view.clone(memory_format=torch.contiguous_format)
        for kind in KINDS.values():
            one, other = (
                gumbel_quantize_logits(each, embedding=book, seed=1, backend=backend, **kind).quantized
                for each, book in ((view, embedding), (dense, embedding.contiguous()))
            )
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


LOGITS = torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, TypeError, "needs codebook, .* or embedding, .* but was given neither"),
        ({"codebook": torch.zeros(4), "embedding": torch.zeros(4, 2)}, TypeError, "but was given both"),
        ({"embedding": [1.0]}, TypeError, "embedding must be a torch.Tensor"),
        ({"embedding": torch.zeros(4, 2, dtype=torch.int64)}, TypeError, "embedding must be floating point"),
        ({"embedding": torch.zeros(4)}, ValueError, "codes that are scalars are passed as codebook"),
        ({"embedding": torch.zeros(4, 0)}, ValueError, "embedding must have shape .* none of them 0"),
        (
            {"embedding": torch.zeros(5, 2)},
            ValueError,
            r"needs logits of shape \(..., 5\), but logits had shape",
        ),
        ({"embedding": torch.zeros(2, 4, 2)}, ValueError, r"needs logits of shape \(..., 2, 4\)"),
        ({"embedding": torch.zeros(3, 4)}, ValueError, "3 codebooks of 4 scalars are passed as codebook"),
        ({"embedding": torch.zeros(1, 1).expand(2**24 + 1, 1)}, ValueError, "at most 16777216 codes"),
        (
            {"embedding": torch.zeros(4, 2, device="meta")},
            ValueError,
            "embedding must be on the device of logits",
        ),
        ({"codebook": torch.zeros(4, 2)}, ValueError, "4 codes that are vectors of 2 values .* embedding="),
        ({"codebook": torch.zeros(3, 4, 2)}, ValueError, "codes that are vectors are passed as embedding="),
        ({"embedding": torch.zeros(4, 2), "temperature": 0}, ValueError, "temperature must be finite"),
        ({"embedding": torch.zeros(4, 2), "return_weights": 1}, TypeError, "return_weights must be"),
        ({"embedding": torch.zeros(4, 2), "estimator": "nearest"}, ValueError, "estimator must be one of"),
        ({"embedding": torch.zeros(4, 2), "backend": "gpu"}, ValueError, "backend"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        gumbel_quantize_logits(LOGITS, **arguments)
