"""Where the nodes of a compiled program for a GPU lie: torch.compile(mode="reduce-overhead") makes CUDA
graphs of programs that touch the CPU nowhere.

No GPU is needed: programs are traced with fake CUDA tensors, which PyTorch built for CPUs cannot
differentiate, and, for the backward pass, with meta tensors, which the package treats like those of CUDA.
"""

import pytest
import torch
from gradcases import leaf
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._subclasses.fake_tensor import FakeTensorMode

from fqvae_kernels import ScalarQuantizer, _seeds, backends, gumbel_noise, gumbel_quantize

NAMES = ("cuda", "triton", "reference")


pytestmark = [
    # PyTorch on a function of meta tensors, and on a cache of the choice of a backend.
    pytest.mark.filterwarnings(
        "ignore:aten..where. an autograd kernel was not registered:UserWarning",
        "ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning",
    ),
    pytest.mark.skipif(
        torch.torch_version.TorchVersion(torch.__version__) < (2, 11),
        reason="PyTorch before 2.11 compiles for no fake tensors that its caller has made",
    ),
]


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Not here: the deterministic mode that poisons memory changes what is compiled."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=NAMES)
def backend(request, monkeypatch):
    """A backend, as if it served every device: tracing runs no kernel."""
    monkeypatch.setattr(backends.get(request.param), "unavailable_reason", lambda device: None)
    return request.param


class Traced:
    """A compiler that keeps the programs of forward and backward as they are."""

    def __init__(self):
        self.programs: list[torch.fx.GraphModule] = []
        self.backend = aot_autograd(
            fw_compiler=self.keep,
            bw_compiler=self.keep,
            partition_fn=min_cut_rematerialization_partition,
        )

    def keep(self, program, inputs):
        self.programs.append(program)
        return make_boxed_func(program)

    def __call__(self, function):
        return torch.compile(function, fullgraph=True, backend=self.backend)


def nodes_by_device(program):
    """A node for every device on which the program has a tensor."""
    return {
        value.device: node
        for node in program.graph.nodes
        for value in torch.utils._pytree.tree_leaves(node.meta.get("val"))
        if isinstance(value, torch.Tensor)
    }


def why_no_cuda_graph(program):
    """What Inductor says against making a CUDA graph of the whole program, or None."""
    from torch._inductor.cudagraph_utils import check_multiple_devices_or_any_cpu_nodes

    # Where it may split a program, what lies on the CPU is left between two graphs.
    with torch._inductor.config.patch(graph_partition=False):
        return check_multiple_devices_or_any_cpu_nodes(nodes_by_device(program))


@pytest.mark.parametrize("seed", [None, 5, 2**63 + 5])
@pytest.mark.parametrize("temperature", [0.7, "tensor"])
def test_forward_for_cuda_tensors(backend, seed, temperature):
    traced = Traced()

    def step(z, codebook, given):
        out = gumbel_quantize(
            z * 1.0,
            codebook,
            temperature=given if temperature == "tensor" else temperature,
            seed=seed,
            return_weights=True,
            backend=backend,
        )
        return out.quantized, out.kl, out.weights

    with FakeTensorMode():
        tensors = torch.empty(30, 3, device="cuda"), torch.empty(3, 6, device="cuda")
        outputs = traced(step)(*tensors, torch.empty((), device="cuda"))
        assert {output.device.type for output in outputs} == {"cuda"}
    (program,) = traced.programs
    assert why_no_cuda_graph(program) is None


def test_noise_for_cuda_tensors(monkeypatch):
    monkeypatch.setattr(backends.triton, "unavailable_reason", lambda device: None)
    backends._find_best.cache_clear()
    traced = Traced()
    with FakeTensorMode():
        traced(lambda z: z + gumbel_noise(5, 4, 6, device="cuda"))(torch.empty(4, 6, device="cuda"))
    backends._find_best.cache_clear()
    (program,) = traced.programs
    assert why_no_cuda_graph(program) is None


def test_numbers_that_change_make_no_program_at_every_step(backend):
    """A second value makes one more program, for all: a tensor on the device makes none."""
    traced = Traced()

    def step(z, codebook, temperature):
        return gumbel_quantize(z, codebook, temperature=temperature, backend=backend).quantized

    fast = traced(step)
    with FakeTensorMode():
        z, codebook = torch.empty(30, device="cuda"), torch.empty(6, device="cuda")
        for i in range(10):
            fast(z, codebook, 1.0 / (1 + i))
    assert len(traced.programs) <= 2


@pytest.mark.parametrize("seed", [None, 5])
def test_forward_and_backward(backend, seed):
    traced = Traced()

    def step(z, codebook, temperature):
        out = gumbel_quantize(z * 1.0, codebook, temperature=temperature, seed=seed, backend=backend)
        again = gumbel_quantize(z * 1.0, codebook, seed=seed, backend=backend)
        return out.quantized.sum() + out.kl.sum() + again.quantized.sum()

    def place(*shape):
        return leaf(torch.empty(shape, device="meta"))

    traced(step)(place(30, 3), place(3, 6), place()).backward()
    assert len(traced.programs) == 2
    for program in traced.programs:
        assert {device.type for device in nodes_by_device(program)} == {"meta"}


@pytest.mark.parametrize("estimator", ["gumbel", "nearest"])
def test_a_step_of_the_module(backend, estimator):
    traced = Traced()
    q = ScalarQuantizer(
        6, num_codebooks=3, estimator=estimator, kl_weight=0.1, codebook_weight=0.2, backend=backend
    ).to("meta")
    fast = traced(q)
    out = fast(leaf(torch.empty(30, 3, device="meta")))
    (out.quantized.sum() + out.loss).backward()
    assert len(traced.programs) == 2
    for program in traced.programs:
        assert {device.type for device in nodes_by_device(program)} == {"meta"}


def test_a_seed_on_a_device_is_drawn_from_the_cpus_generator(monkeypatch):
    """The same draw as on the CPU: torch.manual_seed gives the same samples everywhere."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    torch.manual_seed(3)
    one = _seeds.draw_seed_tensor(torch.device("cpu"))
    after = torch.get_rng_state()
    torch.manual_seed(3)
    assert _seeds.draw_seed_tensor(torch.device("meta")).device.type == "meta"
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(3)
    assert _seeds.draw_seed(torch.zeros(2)) == one.item()
