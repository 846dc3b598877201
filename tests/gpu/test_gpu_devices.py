"""What only a device shows: where results live, streams, other devices, repeated runs, many elements."""

import contextlib

import numpy as np
import pytest
import torch
import truth
from cases import assert_close, check_forward, double, make, output_gradients
from gradcases import assert_gradients, leaf, weighted_sum

import fqvae_kernels
from fqvae_kernels import ScalarQuantizer, backends, gumbel_quantize, nearest_quantize

pytestmark = pytest.mark.gpu


def placed(case, device):
    return case.but(input=case.input.to(device), codebook=case.codebook.to(device))


def back(result):
    return type(result)(*(None if output is None else output.cpu() for output in result))


def training_step(case, backend, device, **options):
    """Outputs, and gradients of input and codebook, all on the device."""
    here = placed(case, device)
    z, book = leaf(here.input), leaf(here.codebook)
    result = here.call(backend, input=z, codebook=book, return_weights=True, **options)
    gradients = [g.to(device) for g in output_gradients(case)]
    weighted_sum((result.quantized, result.kl, result.weights), gradients).backward()
    return [*(output.detach() for output in result), z.grad, book.grad]


def test_a_gpu_has_both_backends(device):
    if device.type != "cuda":
        pytest.skip("not on a GPU")
    for name in ("cuda", "triton"):
        assert backends.unavailable_reason(name, device) is None
    assert fqvae_kernels.available_backends()[:2] == ("cuda", "triton")


@pytest.mark.parametrize("is_logits", [False, True])
def test_results_live_on_the_device(backend, device, is_logits):
    case = placed(make(12, 5, is_logits=is_logits), device)
    result = case.call(backend, return_weights=True)
    assert {output.device for output in result} == {case.input.device}
    if not is_logits:
        nearest = nearest_quantize(case.input, case.codebook, backend=backend)
        assert {output.device for output in nearest} == {case.input.device}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise(backend, device, dtype):
    """Within 2e-6 of the truth; for a flat score the words decide the winner."""
    bound = 2e-6 if dtype == torch.float32 else 1e-14
    for rows, codes, row_offset in ((0, 5, 0), (1, 1, 0), (100, 67, 2**32 - 50), (3, 1000, 2**62)):
        got = backends.get(backend).gumbel_noise(2**35 + 1, rows, codes, row_offset, device, dtype)
        assert got.device.type == device.type and got.dtype == dtype and got.shape == (rows, codes)
        expected = truth.gumbel(2**35 + 1, rows, codes, row_offset)
        assert (np.abs(double(got) - expected) <= bound * np.maximum(1.0, np.abs(expected))).all()


def test_noise_of_many_words(backend, device):
    """2^23 draws, which meet nearly two thirds of all values of u, the ends of the range among them."""
    got = backends.get(backend).gumbel_noise(5, 2**17, 64, 0, device, torch.float32)
    expected = truth.gumbel(5, 2**17, 64)
    error = np.abs(double(got) - expected) / np.maximum(1.0, np.abs(expected))
    assert error.max() <= 2e-6


@pytest.mark.parametrize("is_logits", [False, True])
def test_the_same_samples_as_the_cpu(backend, device, is_logits):
    """No seed: manual_seed decides, on every device alike."""
    case = make(2_000, 64, is_logits=is_logits, temperature=0.7)
    torch.manual_seed(3)
    expected = case.call(None, seed=None)
    torch.manual_seed(3)
    got = back(placed(case, device).call(backend, seed=None))
    differ = int((got.indices != expected.indices).sum())
    assert differ <= 2, f"{differ} of 2,000 indices differ; ties within rounding are rarer"
    same = got.indices == expected.indices
    assert_close(got.quantized[same], double(expected.quantized[same]), case.tolerance, "quantized", case)


@pytest.mark.parametrize("latents", [0, 3])
@pytest.mark.parametrize("is_logits", [False, True])
def test_the_same_bits_on_every_run(backend, device, is_logits, latents):
    """The codebook's gradient too, which is a sum over all rows."""
    for rows, codes in ((30_003, 64), (300, 1000)):
        case = make(rows, codes, is_logits=is_logits, latents=latents, temperature=0.5)
        first = training_step(case, backend, device)
        for _ in range(4):
            again = training_step(case, backend, device)
            assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))


@pytest.mark.parametrize(("rows", "codes"), [(3_072, 64), (200_000, 16)])
@pytest.mark.parametrize("hard", [False, True])
def test_sizes_of_training(backend, device, rows, codes, hard):
    """Few rows are shared by several threads, many are not: both against the truth."""
    case = make(rows, codes, latents=4, temperature=0.5, hard=hard)
    *outputs, grad_input, grad_codebook = training_step(case, backend, device)
    check_forward(case, fqvae_kernels.GumbelQuantized(*(output.cpu() for output in outputs)), weights=True)
    true = case.true_gradients(*output_gradients(case))
    true.temperature = 0.0
    assert_gradients(case, (grad_input, grad_codebook, None), true)


def test_shards_draw_what_the_whole_draws(backend, device):
    case = make(50_000, 17, temperature=0.5)
    whole = back(placed(case, device).call(backend))
    for begin, end in ((0, 40), (777, 778), (1_000, 30_000)):
        shard = case.but(input=case.input[begin:end], row_offset=begin)
        part = back(placed(shard, device).call(backend))
        assert torch.equal(part.indices, whole.indices[begin:end])
        torch.testing.assert_close(part.quantized, whole.quantized[begin:end], atol=1e-5, rtol=1e-5)


def test_seed_and_temperature_on_the_device(backend, device):
    case = make(500, 16, temperature=0.5, seed=2**40 + 5)
    seed, temperature = torch.tensor(case.seed, device=device), torch.tensor(0.5, device=device)
    result = placed(case, device).call(backend, seed=seed, temperature=temperature)
    check_forward(case, back(result), weights=False)
    negative = placed(case, device).call(backend, seed=torch.tensor(-3, device=device))
    check_forward(case.but(seed=2**64 - 3), back(negative), weights=False)


def test_gradient_of_a_temperature_on_the_device(backend, device):
    case = make(500, 16, temperature=0.5)
    temperature = leaf(torch.tensor(0.5, device=device))
    placed(case, device).call(backend, temperature=temperature).quantized.sum().backward()
    true = case.true_gradients(torch.ones(500))
    assert temperature.grad.device == temperature.device and temperature.grad.dtype == torch.float32
    assert abs(temperature.grad.item() - true.temperature) <= 1e-5 * max(1.0, true.temperature_size)


@pytest.mark.parametrize("which", ["seed", "temperature", "input", "codebook"])
def test_backward_is_not_fooled_by_changes_in_place(backend, device, which):
    """A tensor changed before the backward pass: the forward's value counts, or PyTorch raises its error."""
    case = make(200, 6, temperature=0.5, seed=77)
    here = placed(case, device)
    z, book = leaf(here.input), leaf(here.codebook)
    given = {
        "seed": torch.tensor(77, device=device),
        "temperature": torch.tensor(0.5, device=device),
        "input": z * 1.0,
        "codebook": book * 1.0,
    }
    a, h, _ = output_gradients(case)
    result = here.call(backend, **given)
    with torch.no_grad():
        given[which].add_(1)
    try:
        torch.autograd.backward((result.quantized, result.kl), (a.to(device), h.to(device)))
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return
    true = case.true_gradients(a, h)
    true.temperature = 0.0
    assert_gradients(case, (z.grad, book.grad, None), true)


def side_stream(device):
    """A stream of its own and the context that makes it the current one; on the CPU neither does anything."""
    if device.type != "cuda":
        return None, contextlib.nullcontext()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream, torch.cuda.stream(stream)


def test_streams(backend, device):
    """On a side stream that is still busy making the input: forward, backward, and no wait for the device."""
    case = make(5_000, 64, temperature=0.5)
    here = placed(case, device)
    gradients = [g.to(device) for g in output_gradients(case, weights=False)[:2]]
    stream, on_stream = side_stream(device)

    def run():
        late = torch.full_like(here.input, float("nan"))
        if stream is not None:
            torch.cuda._sleep(200_000_000)
        late.copy_(here.input)
        z, book = leaf(late), leaf(here.codebook)
        result = here.call(backend, input=z, codebook=book)
        torch.autograd.backward((result.quantized, result.kl), gradients)
        return result, z.grad, book.grad

    with on_stream:
        run()  # compiles, and takes memory from the driver: that may wait
        if stream is not None:
            stream.synchronize()
        result, grad_z, grad_book = run()
        if stream is not None:
            assert not stream.query(), "a call waited for the device"
            stream.synchronize()
    check_forward(case, back(result), weights=False)
    true = case.true_gradients(*output_gradients(case, weights=False))
    true.temperature = 0.0
    assert_gradients(case, (grad_z, grad_book, None), true)


def test_strided_tensors_on_the_device(backend, device):
    """Transposed, stepped and expanded ones give what their copies give."""
    case = placed(make(24, 7, latents=4, temperature=0.4), device)
    gradients = [g.to(device) for g in output_gradients(case)]

    def run(input, codebook, gradients):
        z, book = leaf(case.input), leaf(case.codebook)
        result = case.call(backend, input=input(z), codebook=codebook(book), return_weights=True)
        torch.autograd.backward((result.quantized, result.kl, result.weights), gradients)
        return z.grad, book.grad

    def turned(tensor):
        return tensor.t().contiguous().t()

    def stepped(tensor):
        return torch.stack([tensor, tensor + 1], -1)[..., 0]

    plain = run(torch.clone, torch.clone, gradients)
    for view in (turned, stepped):
        assert not view(case.input).is_contiguous()
        for got, expected in zip(run(view, view, [stepped(g) for g in gradients]), plain, strict=True):
            assert torch.equal(got, expected)
    single = torch.tensor(0.3, device=device)
    expanded = gumbel_quantize(single.expand(12), case.codebook[0], seed=1, backend=backend)
    copied = gumbel_quantize(single.repeat(12), case.codebook[0], seed=1, backend=backend)
    assert torch.equal(expanded.quantized, copied.quantized)


def test_a_device_that_is_not_the_current_one(backend, device):
    if device.type != "cuda" or torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    case = make(5_000, 64, temperature=0.5)
    first = training_step(case, backend, torch.device("cuda", 0))
    assert torch.cuda.current_device() == 0
    second = training_step(case, backend, torch.device("cuda", 1))
    assert {tensor.device.index for tensor in second} == {1} and torch.cuda.current_device() == 0
    same_kind = torch.cuda.get_device_name(0) == torch.cuda.get_device_name(1)
    for x, y in zip(first, second, strict=True):
        if same_kind:
            assert torch.equal(x.cpu(), y.cpu())
    with pytest.raises(ValueError, match="codebook"):
        gumbel_quantize(case.input.to("cuda:1"), case.codebook.to("cuda:0"), backend=backend)


def test_wrong_devices_are_named(backend, device):
    """The meta device stands in for one that no backend of ours serves."""
    z, book = torch.randn(6, device=device), torch.randn(5, device=device)
    elsewhere = book.to("meta")
    for call in (gumbel_quantize, nearest_quantize):
        with pytest.raises(ValueError, match=r"codebook.*meta"):
            call(z, elsewhere, backend=backend)
        with pytest.raises(RuntimeError, match=rf"backend '{backend}' cannot serve tensors on device 'meta'"):
            call(z.to("meta"), elsewhere, backend=backend)
    with pytest.raises(ValueError, match=r"seed.*meta"):
        gumbel_quantize(z, book, seed=torch.zeros((), dtype=torch.int64, device="meta"), backend=backend)
    if device.type == "cuda":
        with pytest.raises(ValueError, match=r"codebook.*cpu"):
            gumbel_quantize(z, book.cpu(), backend=backend)
        with pytest.raises(RuntimeError, match="'cpu' cannot serve"):
            gumbel_quantize(z, book, backend="cpu")
        with pytest.raises(RuntimeError, match=f"'{backend}' cannot serve"):
            gumbel_quantize(z.cpu(), book.cpu(), backend=backend)


def test_autocast_changes_nothing(backend, device):
    case = placed(make(50, 9), device)
    plain = case.call(backend)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = case.call(backend)
    assert torch.equal(plain.quantized, inside.quantized) and inside.quantized.dtype == torch.float32


@pytest.mark.parametrize("estimator", ["gumbel", "nearest"])
def test_scalar_quantizer_moves_to_the_device(backend, device, estimator):
    options = {"num_codebooks": 3, "kl_weight": 0.1, "commitment_weight": 0.2, "codebook_weight": 0.3}
    on_cpu = ScalarQuantizer(16, estimator=estimator, **options)
    on_device = ScalarQuantizer(16, estimator=estimator, backend=backend, **options)
    on_device.load_state_dict(on_cpu.state_dict())
    on_device.to(device)
    z = make(300, 16, latents=3).input
    results = []
    for module, where in ((on_cpu, torch.device("cpu")), (on_device, device)):
        torch.manual_seed(8)
        out = module(z.to(where))
        (out.quantized.sum() + out.loss).backward()
        results.append((out.quantized, out.indices, out.loss, module.codebook.grad, module.usage))
    for expected, got in zip(*results, strict=True):
        assert got.device.type == device.type
        torch.testing.assert_close(got.cpu(), expected, atol=1e-4, rtol=1e-4)


def need_memory(device, needed: int):
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else needed
    if free < needed:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of free device memory, there are {free / 2**30:.0f}")


@pytest.mark.long
def test_more_than_2_to_the_31_scalars(backend, device):
    """The first and the last rows, of two codes. On the CPU a smaller number, which checks this test."""
    rows = 2**31 + 19 if device.type == "cuda" else 2**20 + 19
    need_memory(device, 28 * rows)
    z = torch.zeros(rows, dtype=torch.float16, device=device)
    last = rows - 1_000
    probe = make(1_000, 2, dtype=torch.float16, temperature=0.5)
    z[:1_000], z[last:] = probe.input.to(device), probe.input.to(device)
    result = probe.but(input=z, codebook=probe.codebook.to(device)).call(backend)
    for begin in (0, last):
        case = probe.but(row_offset=begin)
        part = fqvae_kernels.GumbelQuantized(
            *(output[begin : begin + 1_000].cpu() for output in result[:3]), None
        )
        check_forward(case, part, weights=False)
    nearest = nearest_quantize(z, probe.codebook.to(device), backend=backend)
    assert torch.equal(nearest.indices[:1_000], nearest.indices[last:])


@pytest.mark.long
def test_more_than_2_to_the_31_logits(backend, device):
    """Weights and gradients of the last rows, whose places do not fit in 32 bits."""
    codes = 64
    rows = 2**25 + 1_003 if device.type == "cuda" else 2**14 + 1_003
    need_memory(device, 10 * rows * codes)
    probe = make(1_000, codes, dtype=torch.float16, is_logits=True, temperature=0.5)
    logits = torch.zeros(rows, codes, dtype=torch.float16, device=device)
    last = rows - 1_000
    logits[last:] = probe.input.to(device)
    logits.requires_grad_()
    result = probe.but(input=logits, codebook=probe.codebook.to(device)).call(backend, return_weights=True)
    case = probe.but(row_offset=last)
    check_forward(
        case, fqvae_kernels.GumbelQuantized(*(o.detach()[last:].cpu() for o in result)), weights=True
    )
    a, h, _ = output_gradients(probe)
    incoming = torch.zeros_like(result.quantized), torch.zeros_like(result.kl)
    incoming[0][last:], incoming[1][last:] = a.to(device), h.to(device)
    (gradient,) = torch.autograd.grad((result.quantized, result.kl), logits, incoming)
    true = case.true_gradients(a, h)
    assert not gradient[:last].any()
    # Only that of the logits is looked at: it alone reaches so far.
    expected = torch.from_numpy(true.codebook).float(), torch.tensor(true.temperature, dtype=torch.float64)
    assert_gradients(case, (gradient[last:], *expected), true)


def test_a_million_scalars_add_at_most_64_mib(backend, device):
    if device.type != "cuda":
        pytest.skip("the allocator of a GPU counts; tests/test_memory.py measures the CPU")
    case = make(2**20, 64, temperature=0.7)
    here = placed(case, device)
    z, book = leaf(here.input), leaf(here.codebook)
    a, h, _ = (None if g is None else g.to(device) for g in output_gradients(case, weights=False))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = here.call(backend, input=z, codebook=book)
    torch.autograd.backward((result.quantized, result.kl), (a, h))
    assert torch.cuda.max_memory_allocated(device) - before <= 64 * 2**20
