"""Calls in a forked process: OpenMP's threads stay behind in the parent, and no call may wait for them."""

import os

import pytest
from cases import run_python

# 4096 rows are several chunks for the kernels and few enough for PyTorch's own operators to take one thread:
# those would wait for the same threads. An alarm ends a child that hangs.
COMMON = """
import hashlib, os, signal, sys, torch

def outcome():
    import fqvae_kernels
    out = fqvae_kernels.gumbel_quantize(z, codebook, seed=7, temperature=0.6, backend="cpu")
    gradients = torch.autograd.grad((out.quantized, out.kl), (z, codebook), (grad, grad))
    nearest = fqvae_kernels.nearest_quantize(z.detach(), codebook.detach(), backend="cpu")
    tensors = (*out[:3], *gradients, *nearest, fqvae_kernels.gumbel_noise(5, 700, 64))
    return hashlib.sha256(b"".join(x.detach().numpy().tobytes() for x in tensors)).digest()

def in_a_child(body):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            os.write(writing, body())
        finally:
            os._exit(0)
    os.close(writing)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code != -signal.SIGALRM, "a call in the forked process does not come back"
    return os.read(reading, 100)

torch.set_num_threads(2)
generator = torch.Generator().manual_seed(3)
z, grad, codebook = (torch.randn(n, generator=generator) for n in (4096, 4096, 64))
z.requires_grad_(), codebook.requires_grad_()
"""

# What the parent does before it forks: calls the kernels on two threads; starts the threads by an operator of
# PyTorch's, so that the kernels' first call is the child's; the same, and the child loads the kernels, too.
BEFORE = {
    "kernels": "assert fqvae_kernels.gumbel_noise(1, 1000, 64).numel() and outcome()",
    "torch": "torch.ones(1_000_000).mul_(2)",
    "import": "torch.ones(1_000_000).mul_(2)\nassert 'fqvae_kernels' not in sys.modules",
}
AFTER = """
child, grandchild = in_a_child(outcome), in_a_child(lambda: in_a_child(outcome))
assert child and child == grandchild
assert child == outcome(), "the parent on two threads"
torch.set_num_threads(1)
assert child == outcome(), "the parent on one thread"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("before", BEFORE)
def test_a_forked_process_computes_the_same_bits(cpu_backend, before):
    imports = "" if before == "import" else "import fqvae_kernels\n"
    done = run_python("-W", "ignore", "-c", COMMON + imports + BEFORE[before] + AFTER)
    assert done.returncode == 0, done.stderr
