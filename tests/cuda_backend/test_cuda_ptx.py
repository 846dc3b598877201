"""The CUDA backend on machines without a GPU: its kernels, as nvcc compiled them, run on the CPU.

What is called is the public API with backend="cuda"; only the launcher is another one. Every launch looks for
races, stray accesses and deadlocks besides.
"""

import itertools
import random

import numpy as np
import pytest
import torch
import truth
from cases import DTYPES, Case, assert_close, beside_close_codes, check_forward, make, output_gradients
from cudaptx import running_ptx
from gradcases import assert_gradients, check_temperatures_near_zero, library_gradients, library_pass
from nvcc import needs_nvcc

import fqvae_kernels
from fqvae_kernels._call import Call
from fqvae_kernels.backends import cuda
from fqvae_kernels.backends._cuda import geometry

pytestmark = needs_nvcc

# Around a tile of four codes, the lanes that share a row, and what a block keeps in shared memory at a time.
CODES = (1, 2, 3, 4, 5, 8, 9, 63, 64, 65, 130, 257)
ROWS = (0, 1, 2, 3, 31, 33, 127, 129, 300)
TEMPERATURES = (0.01, 0.05, 0.14, 0.2, 0.7, 1.0, 3.0, 100.0)
ARCHITECTURES = ("sm_80", "sm_90")
DRAWN = ("straight_through", "reinmax")
ESTIMATORS = ("gumbel", *DRAWN)
# Options of the launches: the order of the threads, and where approximate results lie within their bounds.
CHECKS = (
    {"race": True},
    {"race": True, "order": 1, "jitter": 1},
    {"race": True, "order": 2, "seed": 5, "jitter": 1},
)


def drawn(seed):
    """Endless draws from everything that a call may be; every combination comes before any comes again."""
    every = list(itertools.product(DTYPES, (False, True), (False, True), (False, True), (False, True)))
    draw = random.Random(seed)
    draw.shuffle(every)
    for dtype, hard, per_latent, is_logits, weights in itertools.cycle(every):
        rows = draw.choice(ROWS)
        yield (
            {
                "rows": rows,
                "dtype": dtype,
                "hard": hard,
                "estimator": draw.choice(ESTIMATORS),
                "is_logits": is_logits,
                "latents": next(d for d in (3, 1) if rows % d == 0) if per_latent else 0,
                "temperature": draw.choice(TEMPERATURES),
            },
            weights,
            {"multiprocessors": draw.choice((1, 2, 132)), **draw.choice(CHECKS)},
        )


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("codes", CODES)
def test_forward(codes, arch):
    for options, weights, launch in itertools.islice(drawn(codes), 15):
        case = make(codes=codes, seed=2**33 + codes, row_offset=options["rows"], **options)
        with running_ptx(arch, **launch):
            result = case.call("cuda", return_weights=weights)
        check_forward(case, result, weights=weights)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("codes", CODES)
def test_backward(codes, arch):
    for options, weights, launch in itertools.islice(drawn(codes + 1), 15):
        if options["rows"] == 0:
            continue
        case = make(codes=codes, seed=codes, **options)
        a, h, v = output_gradients(case, weights=weights)
        with running_ptx(arch, **launch):
            result, got = library_pass(case, "cuda", a, h, v)
        # With approximate results at the ends of their bounds, what the contract grants; else the usual.
        bound = case.tolerance if "jitter" in launch else None
        indices = None if case.estimator == "gumbel" else result.indices
        assert_gradients(case, got, case.true_gradients(a, h, v, indices), bound)


def check_pass(case, **launch):
    """Forward and every gradient against the truth. Returns what the library gave."""
    a, h, v = output_gradients(case)
    with running_ptx(**launch):
        result, got = library_pass(case, "cuda", a, h, v)
    check_forward(case, result, weights=True)
    indices = None if case.estimator == "gumbel" else result.indices
    assert_gradients(case, got, case.true_gradients(a, h, v, indices))
    return result, got


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_masked_codes_and_padding_at_the_highest_temperatures(estimator):
    """They weigh exactly 0, and the others share the rest."""
    for dtype, temperature in itertools.product((torch.float32, torch.float64), (1e10, 1e25, 1e37)):
        case = make(20, 13, dtype=dtype, is_logits=True, temperature=temperature, estimator=estimator)
        logits = case.input.clone()
        logits[:, [0, 6, 12]] = -float("inf")
        case = case.but(input=logits)
        for each in (case, make(20, 13, dtype=dtype, temperature=temperature, estimator=estimator)):
            result, got = check_pass(each)
            if each is case:
                assert not result.weights[:, [0, 6, 12]].any() and not got[0][:, [0, 6, 12]].any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_far_z_beside_close_codes(estimator):
    """Forward, and every gradient: differences of the codes as given, which no scaling has rounded."""
    for case in beside_close_codes(20, estimator=estimator):
        check_pass(case)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_threads_without_a_row_at_low_temperatures(estimator):
    """They must not weigh given logits by the stats of another row."""
    for rows, hard in itertools.product((1, 3, 33), (False, True)):
        check_pass(
            make(rows, 2, is_logits=True, temperature=0.01, hard=hard, seed=2, estimator=estimator), race=True
        )


def test_temperatures_near_zero():
    with running_ptx():
        check_temperatures_near_zero("cuda")


@pytest.mark.parametrize("estimator", DRAWN)
@pytest.mark.parametrize("lanes", [1, 2, 8, 32])
def test_drawn_codes_and_the_threads_that_share_a_row(lanes, estimator, monkeypatch):
    """Without sums under q, with them, and with everything; tiles for all threads, and for some of them."""
    monkeypatch.setattr(geometry, "choose_lanes", lambda *given: max(lanes, given[-1]))
    for codes, is_logits, given in (
        (129, False, "a"),
        (61, False, "ah"),
        (150, True, "ahv"),
        (130, True, "a"),
    ):
        case = make(70, codes, is_logits=is_logits, temperature=0.4, seed=codes, estimator=estimator)
        a, h, v = (
            g if name in given else None for name, g in zip("ahv", output_gradients(case), strict=True)
        )
        with running_ptx(race=True, order=2, seed=lanes):
            result, got = library_pass(case, "cuda", a, h, v)
        check_forward(case, result, weights=v is not None)
        assert_gradients(case, got, case.true_gradients(a, h, v, result.indices))


# (seed, row) of u = 1 - 2^-24 and of u = 2^-24: no other u lies further out.
ENDS_OF_U = ((1, 4937074), (3, 1043471))


@pytest.mark.parametrize("lanes", [1, 4, 32])
def test_codes_without_weight_are_never_drawn(lanes, monkeypatch):
    """Masked codes, before, between and behind the others, where u leaves nothing to rounding."""
    monkeypatch.setattr(geometry, "choose_lanes", lambda *given: lanes)
    random = torch.Generator().manual_seed(lanes)
    for (seed, row), _ in itertools.product(ENDS_OF_U, range(40)):
        assert abs(truth.row_uniform(seed, 1, row)[0] - (seed == 1)) == 2.0**-24
        logits = torch.randn(1, 131, generator=random)
        masked = torch.rand(1, 131, generator=random) < 0.3
        masked[:, :9] = masked[:, 119:] = True
        logits[masked] = -float("inf")
        case = Case(logits, torch.linspace(-1, 1, 131), True, seed=seed, row_offset=row, estimator="reinmax")
        with running_ptx():
            index = case.call("cuda").indices
        there = (~masked).nonzero()[:, 1]
        assert index == there[-1 if seed == 1 else 0]


@pytest.mark.parametrize("requires", list(itertools.product((False, True), repeat=3))[1:], ids=str)
def test_every_subset_of_requires_grad(requires):
    case = make(40, 9, latents=2)
    a, h, _ = output_gradients(case, weights=False)
    with running_ptx():
        got = library_gradients(case, "cuda", a, h, requires=requires)
    assert [g is not None for g in got] == list(requires)
    true = case.true_gradients(a, h, None)
    everything = library_gradients(case, "reference", a, h)
    assert_gradients(case, [g if g is not None else e for g, e in zip(got, everything, strict=True)], true)


@pytest.mark.parametrize("is_logits", [False, True])
@pytest.mark.parametrize(
    ("codes", "estimator"),
    [(2051, "gumbel"), (4100, "gumbel"), (2051, "reinmax"), (4100, "straight_through")],
)
def test_more_codes_than_a_block_keeps(codes, estimator, is_logits):
    """In several parts, forward and backward, with weights and their gradient."""
    case = make(5, codes, is_logits=is_logits, hard=codes == 4100, estimator=estimator)
    a, h, v = output_gradients(case)
    with running_ptx(race=True, order=2, jitter=1):
        result, got = library_pass(case, "cuda", a, h, v)
    check_forward(case, result, weights=True)
    indices = None if estimator == "gumbel" else result.indices
    assert_gradients(case, got, case.true_gradients(a, h, v, indices), bound=1e-5)


@pytest.mark.parametrize(("multiprocessors", "blocks"), [(1, 1), (1, 5), (2, 5), (132, 5)])
def test_many_rows(multiprocessors, blocks, monkeypatch):
    """One thread a row to sixteen; blocks that come back for more rows; sums that move on more than once."""
    monkeypatch.setattr(geometry, "BLOCKS_AT_ONCE", {4: blocks, 8: blocks})
    case = make(6000, 64)
    a, h, _ = output_gradients(case, weights=False)
    with running_ptx(multiprocessors=multiprocessors):
        check_forward(case, case.call("cuda"), weights=False)
        assert_gradients(case, library_gradients(case, "cuda", a, h), case.true_gradients(a, h, None))


def test_same_words_and_indices_as_the_cpu_backend():
    for codes in (5, 64, 129):
        case = make(200, codes, seed=77 + codes)
        with running_ptx():
            indices = case.call("cuda").indices
        assert torch.equal(indices, case.call("reference").indices)


@pytest.mark.parametrize(("estimator", "kernel"), [("gumbel", "z"), ("reinmax", "drawn_z")])
def test_rows_that_cross_two_to_the_32(estimator, kernel):
    """Two launches, whose parts of the shared gradients are added up."""
    whole = make(300, 17, latents=3, row_offset=2**32 - 100, estimator=estimator)
    a, h, _ = output_gradients(whole, weights=False)
    with running_ptx(race=True) as launcher:
        check_forward(whole, whole.call("cuda"), weights=False)
        assert launcher.launched == [f"forward_{kernel}_float"] * 2
        result, got = library_pass(whole, "cuda", a, h)
        indices = None if estimator == "gumbel" else result.indices
        assert_gradients(whole, got, whole.true_gradients(a, h, None, indices))


@pytest.mark.parametrize("estimator", ["gumbel", "reinmax"])
def test_same_bits_in_every_order_of_the_threads(estimator):
    case = make(500, 40, latents=4, estimator=estimator)
    a, h, _ = output_gradients(case, weights=False)
    runs = []
    for options in ({"order": 0}, {"order": 1}, {"order": 2, "seed": 1}):
        with running_ptx(**options):
            runs.append([*case.call("cuda")[:3], *library_gradients(case, "cuda", a, h)])
    for run in runs[1:]:
        assert all(torch.equal(x, y) for x, y in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("estimator", ["gumbel", "reinmax"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_z_that_is_not_finite_and_z_that_is_far(dtype, estimator):
    z = torch.tensor([float("nan"), 1.0, float("inf"), -float("inf"), 1e30, -1e19, 2e4], dtype=dtype)
    for codes in (7, 130):
        case = make(7, codes, dtype=dtype, estimator=estimator)
        with running_ptx(race=True):
            whole = case.but(input=z).call("cuda", return_weights=True)
            alone = case.but(input=torch.where(z.isfinite(), z, 0)).call("cuda", return_weights=True)
        assert ((whole.indices >= 0) & (whole.indices < codes)).all()
        for got, expected in zip((whole.quantized, whole.kl), (alone.quantized, alone.kl), strict=True):
            assert torch.equal(got.isnan(), ~z.isfinite())
            assert torch.equal(got[z.isfinite()], expected[z.isfinite()])
        assert whole.weights[~z.isfinite()].isnan().all()
        assert alone.weights.isfinite().all()


def test_nearest():
    for dtype, latents in itertools.product(DTYPES, (0, 3)):
        for codes in (1, 5, 64, 2051):
            case = make(33, codes, dtype=dtype, latents=latents)
            with running_ptx(race=True, order=2):
                got = fqvae_kernels.nearest_quantize(case.input, case.codebook, backend="cuda")
            expected = fqvae_kernels.nearest_quantize(case.input, case.codebook, backend="reference")
            assert torch.equal(got.indices, expected.indices)
            assert torch.equal(got.quantized, expected.quantized)


def test_noise():
    device = torch.device("cpu")
    for dtype, seed in ((torch.float32, 5), (torch.float64, torch.tensor(-3))):
        with running_ptx(race=True, order=2, jitter=1):
            got = cuda.gumbel_noise(seed, 50, 13, 2**32 - 20, device, dtype)
        expected = fqvae_kernels.gumbel_noise(seed, 50, 13, row_offset=2**32 - 20, dtype=torch.float64)
        scale = expected.abs().clip(1).numpy()
        assert_close(got, expected.numpy(), 2e-6, "noise", f"seed {seed}", scale=scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_seed_and_temperature_in_device_memory(dtype):
    """What a replayed CUDA graph reads anew. CPU tensors stand for device memory here."""
    case = make(20, 9, dtype=torch.float32, temperature=0.5)
    seed, temperature = torch.tensor(-5), torch.tensor(0.5, dtype=dtype)
    with running_ptx():
        call = Call(temperature=temperature, seed=seed, row_offset=3)
        got = cuda.forward(case.input, case.codebook, call, None)
        expected = case.but(seed=2**64 - 5, row_offset=3).call("cuda")
    assert all(torch.equal(x, y) for x, y in zip(got[:3], expected[:3], strict=True))


def test_memory_that_is_not_aligned():
    """(rows, codes) tensors that begin anywhere."""
    case = make(9, 64, is_logits=True)
    shifted = torch.empty(9 * 64 + 1)[1:].view(9, 64).copy_(case.input)
    assert shifted.data_ptr() % 16 != 0
    with running_ptx(race=True):
        check_forward(case, case.call("cuda", input=shifted, return_weights=True), weights=True)


def test_more_codebooks_than_a_grid_has_rows():
    codebook = torch.zeros(65536, 1)
    with running_ptx(), pytest.raises(ValueError, match="at most 65535 codebooks on backend 'cuda'"):
        fqvae_kernels.nearest_quantize(torch.zeros(65536), codebook, backend="cuda")


def test_all_values_of_the_noise():
    """Each of the 2^23 numbers, with log2 and exp2 moved within their documented bounds, both ways."""
    from cudaptx import kernel

    count = 2**23
    u = (np.arange(count) + 0.5) * 2.0**-23
    expected = -np.log(-np.log(u))
    # All near 1, where the winners are and the program changes; every 61st elsewhere.
    first = count - 2**19
    chunks = [(first, 2**19)] + [(i, 1024) for i in range(0, first - 1024, 61 * 1024)]
    for seed in (1, 2):
        for begin, length in chunks:
            out = np.full(length, np.nan, dtype=np.float32)
            kernel("noise_values", "sm_90")(-(-length // 128), 128, [out, begin, length], jitter=1, seed=seed)
            true = expected[begin : begin + length]
            error = np.abs(out - true) / np.maximum(1, np.abs(true))
            assert error.max() <= 2e-6, (begin, error.max())
