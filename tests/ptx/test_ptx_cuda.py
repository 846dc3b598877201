"""CUDA C++ as nvcc compiles it, run on the CPU: results against NumPy, and barriers taken out on purpose."""

import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import scipy.special

from . import PtxError, load
from .edit import barriers, without_barrier

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the PATH")


@pytest.fixture(scope="module", params=["sm_80", "sm_90"])
def ptx(request, tmp_path_factory):
    """kernels.cu for an architecture."""
    output = tmp_path_factory.mktemp("ptx") / "kernels.ptx"
    source = pathlib.Path(__file__).parent / "kernels.cu"
    subprocess.run(["nvcc", f"-arch={request.param}", "-O3", "-ptx", source, "-o", output], check=True)
    return output.read_text()


@pytest.fixture
def generator():
    return np.random.default_rng(1)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("block", [32, 96, 256])
def test_block_sum(ptx, generator, block, order):
    x, sums = generator.normal(size=1000).astype(np.float32), np.zeros(3)
    stats = load(ptx, "block_sum")(3, block, [x, sums, len(x)], race=True, order=order)
    np.testing.assert_allclose(sums.sum(), x.sum(dtype=np.float64), rtol=1e-13)
    assert stats.barriers == 3 and stats.races == 0


def test_block_sum_without_its_barrier(ptx, generator):
    x, sums = generator.normal(size=1000).astype(np.float32), np.zeros(3)
    assert len(barriers(ptx, "block_sum")) == 1
    broken = load(without_barrier(ptx, 0, "block_sum"), "block_sum")
    assert broken(3, 256, [x, sums, len(x)], race=True).races > 0
    assert not np.isclose(sums.sum(), x.sum(dtype=np.float64))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_prefix_sum(ptx, generator, order):
    x = generator.integers(-9, 9, 200, np.int32)
    want = np.cumsum(x)
    stats = load(ptx, "prefix_sum")(1, 256, [x, len(x)], 1024, race=True, order=order)
    np.testing.assert_array_equal(x, want)
    assert stats.races == 0 and stats.barriers == 17


def test_prefix_sum_without_any_one_of_its_barriers(ptx, generator):
    count = len(barriers(ptx, "prefix_sum"))
    assert count >= 3
    for n in range(count):
        x = generator.integers(-9, 9, 200, np.int32)
        stats = load(without_barrier(ptx, n, "prefix_sum"), "prefix_sum")(
            1, 256, [x, len(x)], 1024, race=True
        )
        assert stats.races > 0, n


def test_dynamic_shared_memory_that_is_too_small(ptx, generator):
    x = generator.integers(-9, 9, 200, np.int32)
    with pytest.raises(PtxError, match="out of bounds: shared address"):
        load(ptx, "prefix_sum")(1, 256, [x, len(x)], 1020)


def test_a_struct_with_pointers(ptx, generator):
    x, out = generator.normal(size=100).astype(np.float32), np.zeros(100, np.float32)
    layout = np.dtype(
        [("in", "u8"), ("out", "u8"), ("scale", "f4"), ("offset", "f4"), ("n", "i4")], align=True
    )
    struct = np.array((x.ctypes.data, out.ctypes.data, 3.0, 0.5, 100), layout).tobytes()
    load(ptx, "affine")(4, 32, [struct], buffers=[(x, False), out])
    np.testing.assert_allclose(out, 3 * x.astype(np.float64) + 0.5, rtol=1e-6, atol=1e-7)


FUNCTIONS = [
    *(np.exp, np.log, np.exp2, np.log2, np.log1p, np.expm1, np.sqrt, np.reciprocal, np.tanh, np.sin),
    *(lambda x: x**1.75, scipy.special.erf, lambda x: 1 / np.sqrt(x)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cuda_mathematics(ptx, generator, dtype):
    """Within 4 ulp, as CUDA's own bounds are 0 to 4 for these, and half an ulp for NumPy's own error."""
    x = np.exp(generator.normal(size=500)).astype(dtype)
    out = np.zeros((len(FUNCTIONS), len(x)), dtype)
    load(ptx, f"functions_f{8 * x.itemsize}")(4, 128, [x, out, len(x)])
    exact = np.stack([function(x.astype(np.float64)) for function in FUNCTIONS])
    error = np.abs(out - exact) / np.spacing(np.abs(exact).astype(dtype)).astype(np.float64)
    assert error.max() <= 4.5, error.max(1)


def test_local_memory_calls_and_constants(ptx, generator):
    which, x = generator.integers(0, 8, 70, np.int32), generator.normal(size=70).astype(np.float32)
    out = np.zeros(70, np.float32)
    load(ptx, "local_array")(3, 32, [which, x, out, 70], order=2)
    weights, v = np.array([1, -2, 3, -4, 5]), x.astype(np.float64)
    values = np.stack([v + 1, v * v, -v, v / 3, v - 7, np.abs(v) * weights[1], 0 * v, 0 * v])
    # Element k is at (3 k + which) mod 8; so what is at `which` is element 0.
    np.testing.assert_allclose(out, values[0] + weights[which % 5], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("order", [0, 2])
def test_histogram(ptx, generator, order):
    x, counts = generator.integers(0, 50, 3000, np.uint8), np.zeros(256, np.int32)
    stats = load(ptx, "histogram")(4, 64, [x, counts, len(x)], race=True, order=order)
    np.testing.assert_array_equal(counts, np.bincount(x, minlength=256))
    assert stats.races == 0


def test_sixteen_bits(ptx, generator):
    x = generator.normal(size=300)
    h = x.astype(np.float16)
    b = (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    h_out, b_out = np.zeros_like(h), np.zeros_like(b)
    load(ptx, "sixteen_bits")(3, 128, [h, b, h_out, b_out, len(h)])
    exact = h.astype(np.float64)
    np.testing.assert_allclose(h_out, exact**2 + 0.5 - exact / 3, atol=2 * 2.0**-11 * 8)
    exact = (b.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    np.testing.assert_allclose(
        (b_out.astype(np.uint32) << 16).view(np.float32), 2.25 * exact, rtol=2 * 2.0**-8
    )


def test_long_products(ptx, generator):
    a, b = generator.integers(0, 2**64, (2, 200), np.uint64)
    high, quotients = np.zeros(200, np.uint64), np.zeros(200, np.int64)
    load(ptx, "long_products")(2, 128, [a, b, high, quotients, 200])
    for x, y, h, q in zip(*(v.tolist() for v in (a, b, high, quotients)), strict=True):
        bits = f"{x:064b}"
        assert h == ((x * y >> 64) + int(bits[::-1], 2) + bin(y).count("1") + bits.index("1")) % 2**64
        s, t = (v - 2**64 if v >> 63 else v for v in (x, y | 1))
        quotient, rest = (
            abs(s) // abs(t) * (1 if (s < 0) == (t < 0) else -1),
            abs(s) % 1000003 * (1 if s >= 0 else -1),
        )
        assert q == quotient + rest
