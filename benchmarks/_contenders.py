"""What the quantizer benchmark compares: one small class each, with the same inputs and the same outputs.

Every contender quantizes `case.z`, shape (scalars,), against `case.codebook`, shape (codes,), and gives
`(quantized, indices, kl)`; its backward pass takes the gradients of `quantized` and `kl` to z and the
codebook. A contender that gives less says so in its `note`, which the table prints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
import torch.nn.functional as F
from _case import Case
from torch import Tensor

TEXTBOOK = "textbook"
COMPILED = "textbook, compiled"
VECTOR_QUANTIZE = "vector-quantize-pytorch"
FLOOR = "floor: Philox words"
SEED_GIVEN = "seed given"

# The textbook holds about this many float32 arrays of size scalars x codes at once.
_LIVE_ARRAYS = 12


def textbook(z: Tensor, codebook: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The formula as people write it: distances (N, K), softmax, F.gumbel_softmax, weights @ codebook, KL."""
    logits = -((z.unsqueeze(-1) - codebook) ** 2)
    log_posterior = F.log_softmax(logits, dim=-1)
    kl = (log_posterior.exp() * (log_posterior + math.log(codebook.shape[0]))).sum(-1)
    weights = F.gumbel_softmax(logits, tau=temperature, dim=-1)
    return weights @ codebook, weights.argmax(-1), kl


class Contender:
    """A way to quantize. `needs_arrays`: it writes arrays of size scalars x codes, which limits them."""

    name: str
    note: str = ""
    needs_arrays: bool = True
    has_backward: bool = True
    max_pairs: int | None = None

    def prepare(self, case: Case) -> None:
        """Untimed work for this shape (a module, compiling). May raise: the contender then sits out."""

    def forward(self, case: Case) -> Any:
        raise NotImplementedError

    def backward(self, case: Case, outputs: Any) -> Any:
        quantized, _, kl = outputs
        grads = [case.grad_quantized, case.grad_kl]
        return torch.autograd.grad([quantized, kl], [case.z, case.codebook], grads)

    def bytes_needed(self, case: Case) -> int:
        return _LIVE_ARRAYS * 4 * case.pairs if self.needs_arrays else 0

    def graph_forwards(self) -> dict[str, Callable[[Case], Any]]:
        """The forward passes to replay from CUDA graphs, by what is different about them ("": nothing)."""
        return {"": self.forward}


class Textbook(Contender):
    name = TEXTBOOK

    def forward(self, case: Case) -> Any:
        return textbook(case.z, case.codebook, case.temperature)


class CompiledTextbook(Contender):
    """The same under torch.compile with static shapes, which suit it best. `prepare` compiles."""

    name = COMPILED

    def prepare(self, case: Case) -> None:
        # All shapes share one code object; past the limit of recompiles it would quietly run eagerly.
        torch._dynamo.reset()
        self._compiled = torch.compile(textbook, dynamic=False, fullgraph=True)
        self.backward(case, self.forward(case))

    def forward(self, case: Case) -> Any:
        return self._compiled(case.z, case.codebook, case.temperature)


class VectorQuantizePytorch(Contender):
    """vector-quantize-pytorch's `VectorQuantize` on one-dimensional codes, set to what comes nearest to ours.

    It can sample codes with Gumbel noise (`stochastic_sample_codes`) and send the gradient through the
    softmax of the scores (`straight_through`; with `route_gradients_to_input` an identity gradient would
    replace it). LatentQuantize works on scalars but takes the nearest value: no noise, no softmax.
    VectorQuantize computes less than we do: samples are hard, the score is -|z - m|, there is no KL, and it
    refuses a codebook gradient beside `straight_through`. Its moving-average codebook update is off, which
    spares it time.
    """

    name = VECTOR_QUANTIZE
    note = "VectorQuantize(dim=1, stochastic_sample_codes, straight_through): no KL, no codebook gradient"

    def __init__(self) -> None:
        from vector_quantize_pytorch import VectorQuantize

        self._make = VectorQuantize

    def prepare(self, case: Case) -> None:
        self._module = self._make(
            dim=1,
            codebook_size=case.codes,
            stochastic_sample_codes=True,
            sample_codebook_temp=case.temperature,
            straight_through=True,
            rotation_trick=False,
            route_gradients_to_input=False,
            ema_update=False,
            freeze_codebook=True,
            commitment_weight=0.0,
        ).to(case.z.device)
        self._module.codebook = case.codebook.detach().unsqueeze(-1)

    def forward(self, case: Case) -> Any:
        return self._module(case.z.view(1, -1, 1))

    def backward(self, case: Case, outputs: Any) -> Any:
        return torch.autograd.grad(outputs[0], case.z, case.grad_quantized.view(1, -1, 1))


class Ours(Contender):
    """`gumbel_quantize` on one backend, through the public API."""

    def __init__(self, backend: str) -> None:
        import fqvae_kernels

        self.backend = backend
        self.name = f"fqvae_kernels, {backend}"
        self.needs_arrays = backend == "reference"
        if self.needs_arrays:
            # Plain PyTorch computes Philox in 64-bit integer arrays: there to check the others, and slow.
            self.max_pairs = 1 << 22
        self._quantize = fqvae_kernels.gumbel_quantize

    def forward(self, case: Case) -> Any:
        return self._call(case, None)

    def graph_forwards(self) -> dict[str, Callable[[Case], Any]]:
        # Without a seed a captured call draws one on the device, so that each replay has its own.
        return {"": self.forward, SEED_GIVEN: lambda case: self._call(case, 1)}

    def _call(self, case: Case, seed: int | None) -> Any:
        out = self._quantize(
            case.z, case.codebook, temperature=case.temperature, seed=seed, backend=self.backend
        )
        return out.quantized, out.indices, out.kl

    def bytes_needed(self, case: Case) -> int:
        return 3 * super().bytes_needed(case)


class Floor(Contender):
    """Drawing the Philox words and nothing else: no sampler with this noise is faster. Forward only."""

    name = FLOOR
    note = "draws the noise's random words, forward only"
    needs_arrays = False
    has_backward = False

    def __init__(self, native: Any) -> None:
        self._draw = native.philox_floor

    def forward(self, case: Case) -> Any:
        return self._draw(1, case.scalars, case.codes, torch.get_num_threads())


def native_module() -> Any | None:
    """The compiled CPU kernels, or None where they are not built."""
    try:
        from fqvae_kernels import _native
    except ImportError:
        return None
    return _native


def serving_backends(device: torch.device) -> tuple[str, ...]:
    """Our backends that take tensors of this device, best first."""
    import fqvae_kernels

    serving = []
    sample = torch.zeros(2, device=device)
    for backend in fqvae_kernels.available_backends():
        try:
            fqvae_kernels.gumbel_quantize(sample, sample, backend=backend)
        except Exception:  # whatever it raises, it does not serve this device
            continue
        serving.append(backend)
    return tuple(serving)


def vector_quantize_version() -> str:
    """The installed version of vector-quantize-pytorch, or an empty string."""
    try:
        return metadata.version("vector-quantize-pytorch")
    except metadata.PackageNotFoundError:
        return ""


def build_contenders(device: torch.device, backends: tuple[str, ...]) -> tuple[list[Contender], list[str]]:
    """The contenders for this device in the table's order, and a sentence for each that cannot take part."""
    contenders: list[Contender] = [Textbook(), CompiledTextbook()]
    absent: list[str] = []
    try:
        contenders.append(VectorQuantizePytorch())
    except ImportError as error:
        absent.append(f"{VECTOR_QUANTIZE} is not installed ({error}).")
    contenders += [Ours(backend) for backend in backends]
    native = native_module()
    if device.type != "cpu":
        absent.append(f"The floor is measured on the CPU only, so there is none on {device.type}.")
    elif native is None:
        absent.append("The native CPU kernels are not built, so there is no floor.")
    else:
        contenders.append(Floor(native))
    return contenders, absent
