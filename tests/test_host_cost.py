"""What a call of the CUDA backend asks of the CPU: counts, which do not depend on how busy the machine is.

benchmarks/host_bench.py has the times.
"""

import threading

import host_bench
import pytest
import torch

from fqvae_kernels import gumbel_quantize
from fqvae_kernels.backends import cuda
from fqvae_kernels.backends._cuda import geometry, plans


class Recorder(host_bench.NoLaunch):
    """A launcher that remembers what it was asked for."""

    def __init__(self):
        self.launched = []

    def launch(self, launch, arguments, tensors, device):
        self.launched.append((launch, arguments, tensors))


@pytest.fixture
def recorder(monkeypatch):
    """CPU tensors stand for device memory, and nothing is launched."""
    monkeypatch.setattr(cuda, "launcher", Recorder())
    return cuda.launcher


def both(rows=100, codes=9, temperature=0.5, **options):
    z, codebook = torch.zeros(rows, requires_grad=True), torch.zeros(codes, requires_grad=True)
    result = gumbel_quantize(z, codebook, temperature=temperature, seed=1, backend="cuda", **options)
    return torch.autograd.grad((result.quantized, result.kl), (z, codebook), (z.detach(), z.detach()))


def test_launches_of_a_call(recorder):
    both()
    assert [launch.kernel for launch, *_ in recorder.launched] == [
        "forward_z_float",
        "backward_z_float",
        "reduce",
    ]


def test_a_second_call_of_the_same_shapes_plans_nothing(recorder, monkeypatch):
    both()
    for name in ("forward", "backward", "launches"):
        monkeypatch.setattr(geometry, name, None)
    misses = plans.over_rows.cache_info().misses
    both(temperature=0.7)
    both(row_offset=12, hard=True)
    assert plans.over_rows.cache_info().misses == misses
    assert len(recorder.launched) == 9


def test_allocations_of_a_call(recorder):
    """Three outputs and the stats; two gradients and the blocks' parts of the codebook's."""
    both()
    with torch.autograd.profiler.profile() as profile:
        z, codebook = torch.zeros(100, requires_grad=True), torch.zeros(9, requires_grad=True)
        before = torch.ones(100)
        with torch.profiler.record_function("call"):
            result = gumbel_quantize(z, codebook, temperature=0.5, seed=1, backend="cuda")
            torch.autograd.grad((result.quantized, result.kl), (z, codebook), (before, before))
    (call,) = (event for event in profile.function_events if event.name == "call")
    inside = [
        event.name
        for event in profile.function_events
        if call.time_range.start < event.time_range.start < call.time_range.end
        and event.name in ("aten::empty", "aten::empty_strided")
    ]
    assert len(inside) == 7, inside


def test_the_tensors_that_a_kernel_may_write_to(recorder):
    """`Launch.reads` and the order of the tensors: the inputs come first."""
    z, codebook = torch.zeros(8, requires_grad=True), torch.zeros(4, requires_grad=True)
    result = gumbel_quantize(z, codebook, seed=1, return_weights=True, backend="cuda")
    (result.quantized.sum() + result.weights.sum()).backward()
    forward, backward, reduce = recorder.launched
    for launch, arguments, tensors in recorder.launched:
        assert len(arguments) % 8 == 0 and launch.reads <= len(tensors)
    assert [x is not None and x.data_ptr() == z.data_ptr() for x in forward[2][:2]] == [True, False]
    written = forward[2][forward[0].reads :]
    outputs = (result.quantized, result.indices, result.kl, result.weights, None)
    for tensor, output in zip(written, outputs, strict=True):
        assert output is None or tensor.data_ptr() == output.data_ptr()
    grad_input, codebook_parts, temperature_parts = backward[2][backward[0].reads :]
    assert grad_input.shape == z.shape and temperature_parts is None
    assert reduce[2][0] is codebook_parts and reduce[0].reads == 1


def test_the_benchmark_runs(capsys):
    before, threads = cuda.launcher, torch.get_num_threads()
    times = host_bench.main(["--rounds", "2", "--rows", "5"])
    assert cuda.launcher is before and torch.get_num_threads() == threads
    assert all(len(each) == 2 for each in times.values())
    said = capsys.readouterr().out
    assert "N = 5, K = 64" in said and "autograd alone" in said


def test_tensors_that_have_outlived_a_transform(backend):
    """What was kept from within grad(f): Function.apply, which is left out, looks for it."""
    kept = []

    def f(z, codebook, temperature):
        kept.extend((z, codebook, temperature))
        return z.sum() + codebook.sum() + temperature

    given = torch.randn(20), torch.randn(4), torch.tensor(0.7)
    torch.func.grad(f, argnums=(0, 1, 2))(*given)
    assert all(torch._C._functorch.is_gradtrackingtensor(x) for x in kept)
    leaf = torch.zeros(20, requires_grad=True)  # another leaf, so that the call is differentiated
    z, codebook, temperature = kept
    got = gumbel_quantize(z, codebook, temperature=temperature, seed=1, backend=backend)
    expected = gumbel_quantize(given[0] + leaf, given[1], temperature=given[2], seed=1, backend=backend)
    assert torch.equal(got.quantized, expected.quantized)


def test_seeds_of_a_thread_that_begins_in_inference_mode():
    """Each thread keeps a tensor that its draws are written to."""
    drawn = []

    def run():
        with torch.inference_mode():
            drawn.append(gumbel_quantize(torch.zeros(50), torch.zeros(9)).indices.clone())
        drawn.append(gumbel_quantize(torch.zeros(50), torch.zeros(9)).indices)

    torch.manual_seed(5)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    torch.manual_seed(5)
    for indices in drawn:
        assert torch.equal(indices, gumbel_quantize(torch.zeros(50), torch.zeros(9)).indices)
    assert len(drawn) == 2
