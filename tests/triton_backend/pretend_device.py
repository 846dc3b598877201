"""Calls the Triton backend through Triton's own JIT with no GPU, and prints what each call loaded.

A process of its own, since one that interprets kernels cannot compile them. The driver is a stand-in for
sm_90: kernels are compiled as for a GPU, "loaded" by counting them, and never run. Prints one line of JSON:
for each call of `CALLS`, in order, the kernels loaded during it.
"""

import json

import torch
import triton
from triton.backends.compiler import GPUTarget

from fqvae_kernels import functional
from fqvae_kernels._call import Call, Incoming, Kept, Needs, Wants
from fqvae_kernels.backends import triton as backend

loaded: list[str] = []


class Launcher:
    """Stands in for the launcher that Triton makes of a compiled kernel; it launches nothing."""

    launch_cooperative_grid = launch_pdl = False

    def __init__(self, source, metadata):
        pass

    def __call__(self, *arguments):
        pass


class Utilities:
    """Stands in for what loads compiled code."""

    def get_device_properties(self, device):
        return {"max_shared_mem": 227 * 1024, "multiprocessor_count": 132, "warpSize": 32}

    def load_binary(self, name, code, shared, device):
        loaded.append(name)
        return (1, 1, 64, 0, 1024)[:FIELDS]


class Driver:
    """Stands in for the CUDA driver."""

    utils = Utilities()
    launcher_cls = Launcher

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


# Before 3.4, Triton asks for no more than the registers and the spills.
FIELDS = 4 if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 4) else 5


def step(capturing: bool, temperature, weights=True, dtype=torch.float32, latents=0, **options):
    """A training step with seed=None, as it is called in a CUDA graph's capture or before."""
    # 1 and 16 are numbers, and an odd address a pointer, that Triton would compile anew for, left to itself.
    z = torch.zeros(17, latents or 1, dtype=dtype).requires_grad_()
    codebook = (
        torch.zeros(latents, 17, requires_grad=True) if latents else torch.zeros(17, requires_grad=True)
    )
    drawn = torch.empty((), dtype=torch.int64).random_() if capturing else next(seeds)
    functional.draw_seed = lambda device: drawn
    out = functional.gumbel_quantize(
        z, codebook, temperature=temperature, return_weights=weights, backend="triton", **options
    )
    outputs = [out.quantized, out.kl, *([out.weights] if weights else [])]
    torch.autograd.grad(outputs, (z, codebook), [torch.ones_like(output) for output in outputs])


def noise(seed):
    backend.gumbel_noise(seed, 16, 17, 0, torch.device("cpu"), torch.float32)


seeds = iter((1, 16, 2**63 + 1, 3, 5, 7, 9))
kept = torch.tensor(0.5)
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def temperatures():
    """Tensors of every dtype, on the device of the data, in calls as those of the warm-up."""
    for dtype in DTYPES:
        place = torch.tensor(0.5, dtype=dtype)
        needs = Needs(True, True, False)
        call = Call(temperature=place, seed=1, wants=Wants(weights=True), needs=needs)
        z, codebook = torch.zeros(17, 1), torch.zeros(17)
        stats = torch.zeros(backend.stats_rows(call), 17)
        _, indices, kl, weights = backend.forward(z, codebook, call, stats)
        incoming = Incoming(torch.ones_like(z), torch.ones_like(kl), torch.ones_like(weights))
        backend.backward(z, codebook, call, Kept(indices, stats, weights), incoming, needs)


CALLS = [
    ("warm-up", lambda: step(False, 0.5)),
    ("a second warm-up", lambda: step(False, 0.5)),
    ("capture", lambda: step(True, 0.5)),
    ("warm-up, codebook per latent", lambda: step(False, kept, False, torch.bfloat16, 3)),
    ("capture, codebook per latent", lambda: step(True, kept, False, torch.bfloat16, 3)),
    ("warm-up, reinmax", lambda: step(False, kept, estimator="reinmax")),
    ("capture, reinmax", lambda: step(True, kept, estimator="reinmax")),
    ("temperatures", temperatures),
    ("noise", lambda: noise(1)),
    ("noise of a tensor's seed", lambda: noise(torch.tensor(1))),
]


def main() -> None:
    triton.runtime.driver.set_active(Driver())
    backend.unavailable_reason = lambda device: None
    result = {}
    for name, call in CALLS:
        loaded.clear()
        call()
        result[name] = sorted(loaded)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
