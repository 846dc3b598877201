"""The cases of the smoke: passes by the public functions, for all dtypes, and K from one code to 5,000."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

import fqvae_kernels
from fqvae_kernels import backends
from gpu_check.place import ON_CPU, device_name, expected_backend

CODES = (64, 5, 1, 1000, 5000)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
TEMPERATURE, SEED, LATENTS = 0.7, 1234, 3
# Indices that may differ between two backends: scores of two codes that are equal to within rounding.
MOST_TIES = 2


class Pass(NamedTuple):
    """weights: and a gradient of the temperature. codebooks: one for each latent. frozen: the codebook wants
    no gradient. many: so many rows that the CUDA backend reads the KL from a table.
    """

    logits: bool = False
    hard: bool = False
    weights: bool = False
    codebooks: bool = False
    frozen: bool = False
    many: bool = False
    estimator: str = "gumbel"


PASSES = {
    "z": Pass(),
    "z, weights": Pass(weights=True),
    "z, hard": Pass(hard=True),
    "z, hard, weights": Pass(hard=True, weights=True),
    "z, codebooks": Pass(weights=True, codebooks=True),
    "z, frozen": Pass(frozen=True),
    "logits": Pass(logits=True),
    "logits, weights": Pass(logits=True, weights=True),
    "logits, hard": Pass(logits=True, hard=True),
    "logits, codebooks": Pass(logits=True, hard=True, weights=True, codebooks=True),
    "z, straight_through": Pass(estimator="straight_through"),
    "z, reinmax, weights": Pass(weights=True, estimator="reinmax"),
    "logits, straight_through, codebooks": Pass(True, False, True, True, estimator="straight_through"),
    "logits, reinmax": Pass(logits=True, estimator="reinmax"),
}
MANY_ROWS = 2**19

Case = tuple[dict[str, Any], Callable[[], dict[str, Any]]]


def rows_of(codes: int, backend: str) -> int:
    """Few under compute-sanitizer, and where arrays of rows times codes are made."""
    if "reference" in (backend, expected_backend(backend)):
        return 96 if codes < 1000 else 12
    return 96 if os.environ.get("FQVAE_SHORT_SMOKE") else 1200


def cases(backend: str) -> list[Case]:
    """Fields of the line, and the function that gives its other fields."""
    short = bool(os.environ.get("FQVAE_SHORT_SMOKE"))
    found: list[Case] = []
    for dtype, codes in itertools.product(DTYPES[: 2 if short else None], (64, 5, 1000) if short else CODES):
        name = str(dtype).removeprefix("torch.")
        for what, options in PASSES.items():
            for backward in (False, True):
                about = {
                    "what": f"{'backward' if backward else 'forward'} {what}",
                    "dtype": name,
                    "codes": codes,
                }
                found.append((about, _pass(backend, dtype, codes, backward, options)))
        if codes == 64 and not (short or ON_CPU):
            about = {"what": "backward z, many rows", "dtype": name, "codes": codes}
            found.append((about, _pass(backend, dtype, codes, True, Pass(many=True))))
        for latents in (0, LATENTS):
            about = {"what": "nearest, codebooks" if latents else "nearest", "dtype": name, "codes": codes}
            found.append((about, _nearest(backend, dtype, codes, latents)))
        if dtype in (torch.float32, torch.float64):
            about = {"what": "noise", "dtype": name, "codes": codes}
            found.append((about, _noise(backend, dtype, codes)))
    return found


def _pass(
    backend: str, dtype: torch.dtype, codes: int, backward: bool, options: Pass
) -> Callable[[], dict[str, Any]]:
    logits, hard, weights, codebooks, frozen, many, estimator = options

    def results(name: str, device: str, left_out: torch.Tensor | None = None) -> list[torch.Tensor | None]:
        rows = MANY_ROWS if many else rows_of(codes, backend)
        random = torch.Generator().manual_seed(1000 * codes + rows)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=random, dtype=torch.float64)

        lead = (rows // LATENTS, LATENTS) if codebooks else (rows,)
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        book = normal(*((LATENTS, codes) if codebooks else (codes,))).to(device, compute)
        input = normal(*lead, *((codes,) if logits else ())).to(device, dtype)
        temperature = torch.tensor(TEMPERATURE, device=device)
        leaves = [input] if frozen else [input, book, temperature] if weights else [input, book]
        for leaf in leaves if backward else ():
            leaf.requires_grad_()
        quantize = fqvae_kernels.gumbel_quantize_logits if logits else fqvae_kernels.gumbel_quantize
        out = quantize(
            input,
            book,
            temperature=temperature if weights else TEMPERATURE,
            hard=hard,
            seed=SEED,
            return_weights=weights,
            estimator=estimator,
            backend=name,
        )
        if not backward:
            return [out.indices, out.quantized, out.kl, out.weights]
        outputs = [o for o in (out.quantized, out.kl, out.weights) if o is not None]
        given = [normal(*o.shape) for o in outputs]
        if left_out is not None:
            given = [
                g.masked_fill(left_out.view(left_out.shape + (1,) * (g.dim() - left_out.dim())), 0)
                for g in given
            ]
        given = [g.to(device, o.dtype) for g, o in zip(given, outputs, strict=True)]
        gradients = torch.autograd.grad(outputs, leaves, given)
        return [out.indices, *gradients]

    return lambda: compare(results, backend, dtype, summed=backward)


def _nearest(backend: str, dtype: torch.dtype, codes: int, latents: int) -> Callable[[], dict[str, Any]]:
    def results(name: str, device: str) -> list[torch.Tensor | None]:
        rows = rows_of(codes, backend)
        random = torch.Generator().manual_seed(codes)
        shape = (rows // latents, latents) if latents else (rows,)
        z = torch.randn(shape, generator=random).to(device, dtype)
        book = torch.randn((latents, codes) if latents else (codes,), generator=random).to(device)
        out = fqvae_kernels.nearest_quantize(z, book, backend=name)
        return [out.indices, out.quantized]

    return lambda: compare(results, backend, dtype, summed=False)


def _noise(backend: str, dtype: torch.dtype, codes: int) -> Callable[[], dict[str, Any]]:
    def results(name: str, device: str) -> list[torch.Tensor | None]:
        rows = rows_of(codes, backend)
        module = backends.get(name)
        return [None, module.gumbel_noise(SEED, rows, codes, 2**32 - 50, torch.device(device), dtype)]

    return lambda: compare(results, backend, dtype, summed=False)


def compare(
    results: Callable[..., list[torch.Tensor | None]], backend: str, dtype: torch.dtype, summed: bool
) -> dict[str, Any]:
    """The largest error over max(1, |expected|), or, for sums over rows, over the largest of them.

    Rows whose indices differ are counted, not compared: sums over rows are taken anew without them.
    """
    got = results(backend, device_name())
    if device_name() == "cuda":
        torch.cuda.synchronize()
    expected = results(expected_backend(backend), "cpu")
    differ = None
    if got[0] is not None and expected[0] is not None:
        differ = got[0].cpu() != expected[0]
    if summed and differ is not None and differ.any():
        got = results(backend, device_name(), differ)
        expected = results(expected_backend(backend), "cpu", differ)
    worst = 0.0
    for g, e in zip(got[1:], expected[1:], strict=True):
        if g is not None and e is not None:
            worst = max(worst, error_of(g.detach().cpu().double(), e.detach().double(), differ, summed))
    ties = 0 if differ is None else int(differ.sum())
    # Looser than the tests', which know the sums of magnitudes behind a gradient: this looks for kernels that
    # do not run or are wrong.
    bound = 1e-10 if dtype == torch.float64 else 1e-4 if summed else 2e-5
    if dtype in (torch.float16, torch.bfloat16):
        bound += torch.finfo(dtype).eps
    return {"worst": worst, "bound": bound, "ties": ties, "ok": worst <= bound and ties <= MOST_TIES}


def error_of(got: torch.Tensor, expected: torch.Tensor, differ: torch.Tensor | None, summed: bool) -> float:
    """Infinite where NaN or shapes do not agree."""
    if got.shape != expected.shape or not torch.equal(got.isnan(), expected.isnan()):
        return float("inf")
    scale = expected.abs().clamp(min=1.0)
    if summed and expected.numel():
        scale = scale.nan_to_num().max()
    error = ((got - expected).abs() / scale).nan_to_num()
    if differ is not None and not summed and error.shape[: differ.dim()] == differ.shape:
        error = error[~differ]
    return float(error.max()) if error.numel() else 0.0
