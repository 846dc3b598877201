"""ScalarQuantizer: estimators, losses, arguments, and what PyTorch does to modules."""

import copy
import pickle

import pytest
import torch
from gradcases import leaf

from fqvae_kernels import QuantizerOutput, ScalarQuantizer, gumbel_quantize, nearest_quantize

SAMPLING = ("gumbel", "straight_through", "reinmax")
ESTIMATORS = (*SAMPLING, "nearest")
BAD = (TypeError, ValueError)


def z_of(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_defaults():
    q = ScalarQuantizer()
    assert isinstance(q.codebook, torch.nn.Parameter) and q.codebook.shape == (64,)
    assert [name for name, _ in q.named_parameters()] == ["codebook"]
    out = q(z_of(5, 3))
    assert type(out) is QuantizerOutput and out.weights is None
    assert out.loss.shape == () and out.loss.item() == 0.0


def test_output_unpacks():
    out = ScalarQuantizer(8)(z_of(4, 2), return_weights=True)
    quantized, indices, loss = out
    assert quantized is out.quantized and indices is out.indices and loss is out.loss
    assert out.kl.shape == (4, 2) and out.weights.shape == (4, 2, 8)


@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_in_training_is_gumbel_quantize(backend, hard):
    for num_codebooks in (1, 3):
        q = ScalarQuantizer(9, num_codebooks=num_codebooks, hard=hard, temperature=0.4, backend=backend)
        z = z_of(10, 3)
        torch.manual_seed(1)
        out = q(z, return_weights=True)
        torch.manual_seed(1)
        expected = gumbel_quantize(
            z, q.codebook, temperature=0.4, hard=hard, return_weights=True, backend=backend
        )
        for name in ("quantized", "indices", "kl", "weights"):
            assert torch.equal(getattr(out, name), getattr(expected, name)), name


@pytest.mark.parametrize("estimator", ["straight_through", "reinmax"])
def test_estimators_that_draw_a_code_are_those_of_the_function(backend, estimator):
    q = ScalarQuantizer(9, num_codebooks=3, estimator=estimator, temperature=0.4, backend=backend)
    z, other = leaf(z_of(10, 3)), leaf(z_of(10, 3))
    codebook = leaf(q.codebook.detach())
    out = q(z, seed=5, row_offset=7, return_weights=True)
    expected = gumbel_quantize(
        other,
        codebook,
        temperature=0.4,
        seed=5,
        row_offset=7,
        return_weights=True,
        estimator=estimator,
        backend=backend,
    )
    for name in ("quantized", "indices", "kl", "weights"):
        assert torch.equal(getattr(out, name), getattr(expected, name)), name
    assert torch.equal(out.quantized, q.codes(out.indices))
    out.quantized.square().sum().backward()
    expected.quantized.square().sum().backward()
    assert torch.equal(z.grad, other.grad) and torch.equal(q.codebook.grad, codebook.grad)


@pytest.mark.parametrize("estimator", SAMPLING)
def test_seed_and_row_offset(backend, estimator):
    """A shard draws what the whole batch draws for it, and takes nothing from the generator."""
    q = ScalarQuantizer(9, estimator=estimator, hard=True, backend=backend)
    z = z_of(10, 4)
    state = torch.get_rng_state()
    whole = q(z, seed=3).indices
    assert torch.equal(q(z[6:], seed=3, row_offset=24).indices, whole[6:])
    assert not torch.equal(q(z, seed=4).indices, whole)
    assert torch.equal(torch.get_rng_state(), state)


def test_temperature_of_the_call_overrides(backend):
    q = ScalarQuantizer(9, temperature=3.0, backend=backend)
    z = z_of(10)
    torch.manual_seed(1)
    cold = q(z, temperature=0.1)
    torch.manual_seed(1)
    warm = q(z)
    torch.manual_seed(1)
    tensor = q(z, temperature=torch.tensor(0.1))
    assert torch.equal(cold.quantized, tensor.quantized) and not torch.equal(cold.quantized, warm.quantized)
    assert torch.equal(cold.indices, warm.indices)


def test_nearest_estimator(backend):
    q = ScalarQuantizer(9, estimator="nearest", backend=backend)
    z = leaf(z_of(10, 2))
    out = q(z, return_weights=True)
    expected = nearest_quantize(z, q.codebook, backend=backend)
    assert torch.equal(out.quantized, expected.quantized) and torch.equal(out.indices, expected.indices)
    assert torch.equal(out.weights, torch.nn.functional.one_hot(out.indices, 9).float())
    out.quantized.sum().backward()
    assert torch.equal(z.grad, torch.ones(10, 2))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_eval_takes_the_nearest_code(backend, estimator, num_codebooks):
    q = ScalarQuantizer(9, num_codebooks=num_codebooks, estimator=estimator, backend=backend).eval()
    z = z_of(10, 3)
    state = torch.get_rng_state()
    first, second = q(z, return_weights=True), q(z, return_weights=True)
    assert torch.equal(torch.get_rng_state(), state), "eval draws nothing"
    expected = nearest_quantize(z, q.codebook, backend=backend)
    for out in (first, second):
        assert torch.equal(out.quantized, expected.quantized) and torch.equal(out.indices, expected.indices)
        assert torch.equal(out.weights, torch.nn.functional.one_hot(out.indices, 9).float())


def test_training_samples_anew_and_eval_returns():
    q = ScalarQuantizer(9)
    z = z_of(50)
    assert not torch.equal(q(z).indices, q(z).indices)
    q.eval()
    assert torch.equal(q(z).indices, q(z).indices)
    q.train()
    assert not torch.equal(q(z).indices, q(z).indices)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_loss_is_the_weighted_sum(backend, estimator, training):
    """kl and the two squared distances, each with its weight, and the gradients of each."""
    q = ScalarQuantizer(
        7, estimator=estimator, kl_weight=0.3, commitment_weight=0.25, codebook_weight=2.0, backend=backend
    ).train(training)
    z = leaf(z_of(11, 2))
    out = q(z)
    book, x = leaf(q.codebook.detach().double()), leaf(z.detach().double())
    posterior = torch.softmax(-((x[..., None] - book) ** 2), -1)
    kl = (posterior * (posterior * 7).log()).sum(-1)
    commitment = ((out.quantized.detach().double() - x) ** 2).mean()
    codes = ((book[out.indices] - x.detach()) ** 2).mean()
    expected = 0.3 * kl.mean() + 0.25 * commitment + 2.0 * codes
    torch.testing.assert_close(out.loss.double(), expected, atol=1e-5, rtol=1e-5)
    assert out.loss.dtype == torch.float32
    expected.backward()
    out.loss.backward()
    torch.testing.assert_close(z.grad.double(), x.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(q.codebook.grad.double(), book.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["kl_weight", "commitment_weight", "codebook_weight"])
def test_each_loss_alone_reaches_what_it_should(backend, name):
    q = ScalarQuantizer(7, estimator="nearest", backend=backend, **{name: 1.0})
    z = leaf(z_of(11))
    q(z).loss.backward()
    reaches_z = z.grad is not None and bool(z.grad.any())
    reaches_codebook = q.codebook.grad is not None and bool(q.codebook.grad.any())
    assert (reaches_z, reaches_codebook) == {
        "kl_weight": (True, True),
        "commitment_weight": (True, False),
        "codebook_weight": (False, True),
    }[name]


@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_codes_invert_the_indices(num_codebooks):
    q = ScalarQuantizer(9, num_codebooks=num_codebooks, hard=True)
    out = q(z_of(2, 5, 3))
    assert torch.equal(q.codes(out.indices), out.quantized)
    q.codes(out.indices).sum().backward()
    assert q.codebook.grad.sum().item() == pytest.approx(30.0)


def test_codes_of_bad_indices_are_named():
    q = ScalarQuantizer(9, num_codebooks=3)
    for indices in (torch.tensor([0.5]), torch.zeros(4, 2, dtype=torch.int64), torch.tensor(1), [0, 1, 2]):
        with pytest.raises(BAD, match="indices"):
            q.codes(indices)
    for outside in (9, -2, 2**40):
        for other, indices in ((q, torch.full((1, 3), outside)), (ScalarQuantizer(9), torch.tensor(outside))):
            for call in (other.codes, other.count_usage):
                with pytest.raises(ValueError, match=rf"indices must be in \[0, 9\).* held {outside}$"):
                    call(indices)


@pytest.mark.parametrize("num_codebooks", [1, 3])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_codes_of_masked_rows_are_zero(num_codebooks, dtype):
    q = ScalarQuantizer(9, num_codebooks=num_codebooks, hard=True)
    mask = z_of(2, 5, 3) > 0
    out = q(z_of(2, 5, 3), mask=mask)
    codes = q.codes(out.indices.to(dtype))
    assert torch.equal(codes, out.quantized) and not codes[~mask].any()
    codes.sum().backward()
    assert q.codebook.grad.sum().item() == pytest.approx(float(mask.sum()))
    whole = ScalarQuantizer(9).codes(torch.full((0, 2), -1, dtype=dtype))
    assert whole.shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("codebook_size", 0),
        ("codebook_size", 2.5),
        ("num_codebooks", 0),
        ("num_codebooks", "2"),
        ("estimator", "guess"),
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("temperature", "warm"),
        ("kl_weight", -1.0),
        ("kl_weight", float("nan")),
        ("commitment_weight", "a lot"),
        ("codebook_weight", float("inf")),
        ("init", "zeros"),
        ("init", torch.zeros(3)),
        ("backend", "nonsense"),
        ("hard", "yes"),
        ("kl_weight", 10**400),
        ("init_scale", 10**400),
        ("precision", 10**400),
        ("precision", [10**400]),
        ("init_scale", 0.0),
        ("init_scale", "big"),
        ("init_scale", float("inf")),
        ("sorted", 1),
        ("precision", 0.0),
        ("precision", -1.0),
        ("precision", float("nan")),
        ("precision", "sharp"),
        ("precision", True),
        ("precision", [1.0, 2.0]),
        ("precision", torch.ones(1, 1)),
        ("precision", None),
        ("learn_precision", "yes"),
    ],
)
def test_bad_arguments_are_named(name, value):
    with pytest.raises(BAD, match=name):
        ScalarQuantizer(**{name: value})


@pytest.mark.parametrize("training", [True, False])
def test_bad_arguments_of_a_call_are_named(training):
    """Also where nothing is drawn, so that a mistake shows before the first epoch ends."""
    q = ScalarQuantizer(9).train(training)
    for name, value in (
        ("temperature", 0.0),
        ("temperature", "warm"),
        ("seed", -1),
        ("seed", "one"),
        ("row_offset", -1),
        ("row_offset", 0.5),
        ("return_weights", 1),
        ("return_kl", "no"),
    ):
        with pytest.raises(BAD, match=name):
            q(z_of(5), **{name: value})
    with pytest.raises(BAD, match="sync"):
        q.perplexity(sync=1)


def test_bad_input_is_named():
    q = ScalarQuantizer(9, num_codebooks=3)
    with pytest.raises(BAD, match=r"\bz\b"):
        q(torch.arange(3))
    with pytest.raises(BAD, match="codebook"):
        q(z_of(5, 4))
    with pytest.raises(BAD, match="temperature"):
        q(z_of(5, 3), temperature=-1.0)


def test_scalar_and_empty_z():
    q = ScalarQuantizer(9)
    assert q(torch.tensor(0.3)).quantized.shape == ()
    assert q(torch.empty(0, 4)).quantized.shape == (0, 4)
    assert ScalarQuantizer(9, num_codebooks=3)(torch.empty(0, 3)).indices.shape == (0, 3)


@pytest.mark.parametrize("method", ["deepcopy", "pickle", "state_dict"])
def test_copies_behave_alike(method, tmp_path):
    q = ScalarQuantizer(9, num_codebooks=3, temperature=0.5, kl_weight=0.1, hard=True)
    q(z_of(10, 3))
    if method == "deepcopy":
        other = copy.deepcopy(q)
    elif method == "pickle":
        other = pickle.loads(pickle.dumps(q))
    else:
        other = ScalarQuantizer(9, num_codebooks=3, temperature=0.5, kl_weight=0.1, hard=True)
        torch.save(q.state_dict(), tmp_path / "state.pt")
        other.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert torch.equal(other.codebook, q.codebook) and other.codebook is not q.codebook
    for module in (q, other):
        module.reset_usage()
    results = []
    for module in (q, other):
        torch.manual_seed(4)
        results.append(module(z_of(10, 3, seed=1)))
    for name in ("quantized", "indices", "loss", "kl"):
        assert torch.equal(getattr(results[0], name), getattr(results[1], name))
    assert torch.equal(q.usage, other.usage)


def test_state_dict_holds_the_codebook():
    assert list(ScalarQuantizer(9).state_dict()) == ["codebook"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_autocast(backend, estimator):
    """Under autocast the encoder gives bfloat16; the arithmetic inside is float32, and training works."""
    torch.manual_seed(0)
    encoder, decoder = torch.nn.Linear(6, 4), torch.nn.Linear(4, 6)
    q = ScalarQuantizer(
        9, estimator=estimator, kl_weight=0.1, commitment_weight=0.1, codebook_weight=0.1, backend=backend
    )
    x = z_of(20, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = encoder(x)
        out = q(z)
        reconstruction = decoder(out.quantized)
        loss = (reconstruction.float() - x).square().mean() + out.loss
    assert z.dtype == out.quantized.dtype == torch.bfloat16
    assert out.loss.dtype == torch.float32
    loss.backward()
    for parameter in (*encoder.parameters(), q.codebook):
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any()
    assert q.codebook.grad.dtype == torch.float32


def test_functional_call(backend):
    q = ScalarQuantizer(9, backend=backend)
    other = leaf(torch.randn(9))
    torch.manual_seed(2)
    out = torch.func.functional_call(q, {"codebook": other}, (z_of(10),))
    torch.manual_seed(2)
    expected = gumbel_quantize(z_of(10), other, backend=backend)
    assert torch.equal(out.quantized, expected.quantized)
    out.quantized.sum().backward()
    assert other.grad is not None and q.codebook.grad is None


@pytest.mark.parametrize("is_sorted", [False, True])
def test_a_tensor_may_stand_for_a_parameter(is_sorted):
    """As in the replicas of DataParallel."""
    q = ScalarQuantizer(9, sorted=is_sorted)
    replica = q._replicate_for_data_parallel()
    for name, parameter in q.named_parameters():
        setattr(replica, name, parameter * 1)
    assert not list(replica.parameters()) and torch.equal(replica.codebook, q.codebook)
    out = replica(z_of(10), seed=1)
    out.quantized.sum().backward()
    assert torch.equal(out.quantized, q(z_of(10), seed=1).quantized)
    assert all(parameter.grad.any() for parameter in q.parameters())


def test_moves_to_other_dtypes():
    q = ScalarQuantizer(9).double()
    out = q(z_of(10, dtype=torch.float64))
    assert out.quantized.dtype == out.loss.dtype == out.kl.dtype == torch.float64
    half = ScalarQuantizer(9).half()
    out = half(z_of(10, dtype=torch.float16))
    assert out.quantized.dtype == torch.float16
    out.quantized.sum().backward()
    assert half.codebook.grad.dtype == torch.float16


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_training_lowers_the_error(estimator):
    """A codebook of four learns data that lies at four places, on the best backend that there is."""
    torch.manual_seed(0)
    places = torch.tensor([-2.0, -0.7, 0.8, 2.5])
    x = places[torch.randint(4, (256,))]
    q = ScalarQuantizer(4, estimator=estimator, codebook_weight=1.0, init="linspace")
    optimizer = torch.optim.Adam(q.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        out = q(x, temperature=0.3)
        loss = out.loss + (out.quantized - x).square().mean()
        loss.backward()
        optimizer.step()
    q.eval()
    error = (q(x).quantized - x).square().mean().item()
    start = ScalarQuantizer(4, estimator="nearest", init="linspace").eval()
    assert error < 0.5 * (start(x).quantized - x).square().mean().item()


def test_repr_shows_the_settings():
    text = repr(ScalarQuantizer(16, num_codebooks=3, estimator="nearest", kl_weight=0.5))
    for part in ("ScalarQuantizer", "16", "3", "nearest", "0.5"):
        assert part in text
