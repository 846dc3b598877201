"""The public face: bad input and its messages, seeds, shards, backends, import."""

import itertools

import pytest
import torch
from cases import DTYPES, make, run_python
from gradcases import leaf

import fqvae_kernels
from fqvae_kernels import gumbel_noise, gumbel_quantize, gumbel_quantize_logits, nearest_quantize

Z, BOOK, LOGITS = torch.randn(6), torch.randn(5), torch.randn(6, 5)
BAD = (TypeError, ValueError, RuntimeError)


def bad_z():
    return [
        ("integer", torch.arange(6)),
        ("bool", torch.zeros(6, dtype=torch.bool)),
        ("complex", torch.zeros(6, dtype=torch.complex64)),
        ("a list", [0.0, 1.0]),
        ("None", None),
        ("a float", 0.5),
    ]


def bad_codebooks():
    return [
        ("integer", torch.arange(5)),
        ("complex", torch.zeros(5, dtype=torch.complex64)),
        ("0-d", torch.tensor(1.0)),
        ("3-d", torch.randn(1, 2, 5)),
        ("no codes", torch.randn(0)),
        ("no codebooks", torch.randn(0, 5)),
        ("a list", [0.0, 1.0]),
        ("None", None),
        ("wrong length", torch.randn(4, 5)),
    ]


@pytest.mark.parametrize(("why", "z"), bad_z(), ids=lambda v: v if isinstance(v, str) else "")
def test_bad_z_is_named(backend, why, z):
    for call in (gumbel_quantize, nearest_quantize):
        with pytest.raises(BAD, match=r"\bz\b"):
            call(z, BOOK, backend=backend)
    with pytest.raises(BAD, match=r"\blogits\b"):
        gumbel_quantize_logits(z, BOOK, backend=backend)


@pytest.mark.parametrize(("why", "codebook"), bad_codebooks(), ids=lambda v: v if isinstance(v, str) else "")
def test_bad_codebook_is_named(backend, why, codebook):
    for call in (gumbel_quantize, nearest_quantize):
        with pytest.raises(BAD, match=r"\bcodebook\b"):
            call(Z, codebook, backend=backend)
    with pytest.raises(BAD, match=r"\bcodebook\b"):
        gumbel_quantize_logits(LOGITS, codebook, backend=backend)


def test_shapes_that_do_not_fit_are_named_with_both_sizes(backend):
    with pytest.raises(ValueError, match=r"(?s)codebook.*4.*6|codebook.*6.*4"):
        gumbel_quantize(Z, torch.randn(4, 5), backend=backend)
    with pytest.raises(ValueError, match=r"(?s)\b5\b.*\b7\b|\b7\b.*\b5\b"):
        gumbel_quantize_logits(torch.randn(6, 7), torch.randn(5), backend=backend)
    with pytest.raises(ValueError, match="codebook"):
        gumbel_quantize_logits(torch.randn(6, 5), torch.randn(4, 5), backend=backend)
    with pytest.raises(ValueError, match="codebook"):
        gumbel_quantize_logits(torch.randn(5), torch.randn(4, 5), backend=backend)
    with pytest.raises(ValueError, match="logits"):
        gumbel_quantize_logits(torch.tensor(1.0), torch.randn(1), backend=backend)
    with pytest.raises(ValueError, match="codebook"):
        gumbel_quantize(torch.tensor(1.0), torch.randn(1, 5), backend=backend)
    with pytest.raises(ValueError, match="codebook"):
        nearest_quantize(torch.tensor(1.0), torch.randn(1, 5), backend=backend)


@pytest.mark.parametrize(
    "temperature",
    [
        0,
        0.0,
        -1.0,
        float("nan"),
        float("inf"),
        torch.tensor(0.0),
        torch.tensor(-0.5),
        torch.tensor(float("nan")),
        torch.tensor(float("inf")),
        torch.tensor([1.0, 2.0]),
        "warm",
        None,
    ],
    ids=str,
)
def test_bad_temperature_is_named(backend, temperature):
    for call, input in ((gumbel_quantize, Z), (gumbel_quantize_logits, LOGITS)):
        with pytest.raises(BAD, match="temperature"):
            call(input, BOOK, temperature=temperature, backend=backend)


@pytest.mark.parametrize("seed", [-1, 2**64, -(2**70)])
def test_seed_out_of_range_is_named(backend, seed):
    with pytest.raises(ValueError, match="seed"):
        gumbel_quantize(Z, BOOK, seed=seed, backend=backend)
    with pytest.raises(ValueError, match="seed"):
        gumbel_noise(seed, 2, 2)


@pytest.mark.parametrize("seed", [1.5, "7", torch.tensor(1.0), torch.tensor([1, 2])])
def test_seed_of_the_wrong_kind_is_named(backend, seed):
    with pytest.raises(BAD, match="seed"):
        gumbel_quantize(Z, BOOK, seed=seed, backend=backend)


@pytest.mark.parametrize("row_offset", [-1, 1.5, "3", None])
def test_bad_row_offset_is_named(backend, row_offset):
    with pytest.raises(BAD, match="row_offset"):
        gumbel_quantize(Z, BOOK, row_offset=row_offset, backend=backend)
    with pytest.raises(BAD, match="row_offset"):
        gumbel_noise(1, 2, 2, row_offset=row_offset)


def test_row_offset_beyond_64_bits_is_named(backend):
    with pytest.raises(BAD, match="row_offset"):
        gumbel_quantize(Z, BOOK, row_offset=2**64, backend=backend)


@pytest.mark.parametrize(
    ("name", "arguments"), [("rows", (-1, 2)), ("codes", (2, -1)), ("rows", (1.5, 2)), ("codes", (2, None))]
)
def test_bad_sizes_of_noise_are_named(name, arguments):
    with pytest.raises(BAD, match=name):
        gumbel_noise(1, *arguments)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, "float32"])
def test_bad_dtype_of_noise_is_named(dtype):
    with pytest.raises(BAD, match="dtype"):
        gumbel_noise(1, 2, 2, dtype=dtype)


@pytest.mark.parametrize("name", ["nonsense", "CPU", "", 3])
def test_unknown_backend_says_which_there_are(name):
    for call, input in ((gumbel_quantize, Z), (nearest_quantize, Z), (gumbel_quantize_logits, LOGITS)):
        with pytest.raises(BAD, match=r"(?s)backend.*reference"):
            call(input, BOOK, backend=name)


@pytest.mark.parametrize("name", ["cuda", "triton", "cpu"])
def test_unavailable_backend_says_why_and_what_would_serve(name):
    if name in fqvae_kernels.available_backends():
        pytest.skip(f"{name} is available here")
    with pytest.raises(BAD, match=rf"(?s){name}.*reference"):
        gumbel_quantize(Z, BOOK, backend=name)


def test_different_devices_are_named(backend):
    """The meta device stands in for a second one."""
    with pytest.raises(BAD, match=r"(?s)codebook.*(meta|device)"):
        gumbel_quantize(Z, BOOK.to("meta"), backend=backend)
    with pytest.raises(BAD, match=r"(?s)codebook.*(meta|device)"):
        nearest_quantize(Z, BOOK.to("meta"), backend=backend)


def test_seed_tensor_is_read_as_its_64_bits(backend):
    for value in (0, 5, 2**40, 2**63 - 1, -1, -(2**63)):
        tensor = gumbel_quantize(Z, BOOK, seed=torch.tensor(value), backend=backend)
        number = gumbel_quantize(Z, BOOK, seed=value % 2**64, backend=backend)
        assert torch.equal(tensor.quantized, number.quantized) and torch.equal(tensor.indices, number.indices)


def test_manual_seed_decides_the_samples(backend):
    z, book = torch.randn(100), torch.randn(16)
    torch.manual_seed(11)
    first, second = (gumbel_quantize(z, book, backend=backend) for _ in range(2))
    torch.manual_seed(11)
    third, fourth = (gumbel_quantize(z, book, backend=backend) for _ in range(2))
    assert torch.equal(first.quantized, third.quantized) and torch.equal(second.indices, fourth.indices)
    assert not torch.equal(first.quantized, second.quantized)


def test_no_seed_samples_the_same_on_every_backend(backend):
    """The seed comes from PyTorch's default CPU generator, the same way everywhere."""
    z, book = torch.randn(100), torch.randn(16)
    torch.manual_seed(3)
    expected = gumbel_quantize(z, book, backend="reference")
    after = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(gumbel_quantize(z, book, backend=backend).indices, expected.indices)
    assert torch.equal(torch.rand(3), after)


def test_a_given_seed_draws_nothing(backend):
    torch.manual_seed(3)
    after = torch.rand(3)
    torch.manual_seed(3)
    gumbel_quantize(Z, BOOK, seed=1, backend=backend)
    assert torch.equal(torch.rand(3), after)


@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize("latents", [0, 3])
def test_shards_equal_the_whole_bit_for_bit(cpu_backend, is_logits, latents):
    case = make(60, 17, is_logits=is_logits, latents=latents, temperature=0.5, row_offset=2**32 - 20)
    whole = case.call(cpu_backend, return_weights=True)
    step = 1 if latents else 3
    cuts = [0, 1 * step, 6 * step, 20]
    parts = []
    for begin, end in itertools.pairwise(cuts):
        rows = begin * max(latents, 1)
        shard = case.but(input=case.input[begin:end], row_offset=case.row_offset + rows)
        parts.append(shard.call(cpu_backend, return_weights=True))
    for name in ("quantized", "indices", "kl", "weights"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name)[: len(joined)]), name


def test_shards_draw_the_same_samples_on_every_backend(backend):
    case = make(60, 17, temperature=0.5)
    whole = case.call(backend)
    shard = case.but(input=case.input[23:], row_offset=23).call(backend)
    assert torch.equal(shard.indices, whole.indices[23:])
    torch.testing.assert_close(shard.quantized, whole.quantized[23:], atol=1e-5, rtol=1e-5)


def test_shapes_are_kept(backend):
    for shape in [(), (0,), (3, 0), (0, 3), (1,), (2, 3, 4), (1, 1, 1)]:
        z = torch.randn(shape)
        result = gumbel_quantize(z, BOOK, seed=1, return_weights=True, backend=backend)
        assert result.quantized.shape == result.indices.shape == result.kl.shape == shape
        assert result.weights.shape == (*shape, 5)
        flat = gumbel_quantize(z.reshape(-1), BOOK, seed=1, backend=backend)
        assert torch.equal(flat.quantized, result.quantized.reshape(-1))
        logits = gumbel_quantize_logits(
            torch.randn(*shape, 5), BOOK, seed=1, return_weights=True, backend=backend
        )
        assert logits.quantized.shape == logits.kl.shape == shape and logits.weights.shape == (*shape, 5)


def test_scalar_z(backend):
    z = leaf(torch.tensor(0.3))
    result = gumbel_quantize(z, leaf(BOOK), seed=1, return_weights=True, backend=backend)
    (result.quantized + result.kl + result.weights.sum()).backward()
    assert z.grad.shape == () and torch.isfinite(z.grad)


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_z_has_a_gradient(backend, dtype):
    z, book = leaf(torch.empty(0, 3, dtype=dtype)), leaf(torch.randn(3, 4))
    temperature = leaf(torch.tensor(0.5))
    result = gumbel_quantize(z, book, seed=1, temperature=temperature, return_weights=True, backend=backend)
    (result.quantized.sum() + result.kl.sum() + result.weights.sum()).backward()
    assert z.grad.shape == (0, 3)
    assert book.grad is None or not book.grad.any()
    assert temperature.grad is None or temperature.grad == 0


@pytest.mark.parametrize("temperature", [1, 1.0, torch.tensor(1.0), torch.tensor(1.0, dtype=torch.float64)])
def test_temperatures_of_all_kinds_are_equal(backend, temperature):
    plain = gumbel_quantize(Z, BOOK, seed=1, backend=backend)
    result = gumbel_quantize(Z, BOOK, seed=1, temperature=temperature, backend=backend)
    assert torch.equal(plain.quantized, result.quantized)


def test_results_unpack_and_are_named(backend):
    result = gumbel_quantize(Z, BOOK, seed=1, backend=backend)
    quantized, indices, kl, weights = result
    assert quantized is result.quantized and indices is result.indices and kl is result.kl and weights is None
    assert type(result) is fqvae_kernels.GumbelQuantized
    assert type(nearest_quantize(Z, BOOK, backend=backend)) is fqvae_kernels.NearestQuantized


def test_inputs_are_left_alone(backend):
    z, book, logits = Z.clone(), BOOK.clone(), LOGITS.clone()
    gumbel_quantize(z, book, seed=1, backend=backend)
    gumbel_quantize_logits(logits, book, seed=1, backend=backend)
    assert torch.equal(z, Z) and torch.equal(book, BOOK) and torch.equal(logits, LOGITS)


def test_keywords_only():
    with pytest.raises(TypeError):
        gumbel_quantize(Z, BOOK, 1.0)


def test_available_backends():
    names = fqvae_kernels.available_backends()
    assert isinstance(names, tuple) and names[-1] == "reference"
    order = ("cuda", "triton", "cpu", "reference")
    assert list(names) == sorted(names, key=order.index) and len(set(names)) == len(names)


def test_backend_none_takes_the_best(cpu_backend):
    z, book = torch.randn(50), torch.randn(9)
    best = gumbel_quantize(z, book, seed=1)
    assert torch.equal(best.quantized, gumbel_quantize(z, book, seed=1, backend=cpu_backend).quantized)


def test_backends_agree(cpu_backend):
    case = make(200, 40, temperature=0.2)
    ours, reference = case.call(cpu_backend, return_weights=True), case.call("reference", return_weights=True)
    assert torch.equal(ours.indices, reference.indices)
    for name in ("quantized", "kl", "weights"):
        torch.testing.assert_close(getattr(ours, name), getattr(reference, name), atol=2e-5, rtol=2e-5)


def test_import_prints_nothing_and_is_quick():
    code = (
        "import torch, time\n"
        "begin = time.process_time()\n"
        "import fqvae_kernels\n"
        "took = time.process_time() - begin\n"
        "assert took < 0.9, took\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""


def test_module_prints_what_serves():
    done = run_python("-m", "fqvae_kernels")
    assert done.returncode == 0, done.stderr
    for word in (*fqvae_kernels.available_backends(), torch.__version__, fqvae_kernels.__version__):
        assert word in done.stdout


def test_public_names():
    for name in (
        "gumbel_quantize",
        "gumbel_quantize_logits",
        "nearest_quantize",
        "gumbel_noise",
        "available_backends",
        "ScalarQuantizer",
        "GumbelQuantized",
        "NearestQuantized",
        "QuantizerOutput",
    ):
        assert name in fqvae_kernels.__all__ and hasattr(fqvae_kernels, name)


def test_an_estimator_that_is_set_later_is_checked():
    q = fqvae_kernels.ScalarQuantizer(4)
    q.estimator = "straight-through"
    with pytest.raises(ValueError, match=r"estimator must be .* but was 'straight-through'"):
        q(torch.zeros(3))
