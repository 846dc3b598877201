"""Inputs for the tests, the calls on them, and the comparison with the truth."""

import functools
import io
import itertools
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import truth

import fqvae_kernels

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
HALF = (torch.float16, torch.bfloat16)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What the arithmetic is done in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def tolerance(dtype: torch.dtype, temperature: float) -> float:
    """1e-5 max(1, 0.2/tau) in float32 (the rounding of a score is divided by tau), 1e-11 in float64."""
    return (1e-11 if dtype == torch.float64 else 1e-5) * max(1.0, 0.2 / temperature)


def rounding(dtype: torch.dtype, value) -> np.ndarray:
    """The most that one rounding to a half precision moves a value; nothing for float32 and float64."""
    value = np.abs(np.asarray(value, dtype=np.float64))
    if dtype not in HALF:
        return np.zeros_like(value)
    info = torch.finfo(dtype)
    return np.maximum(value * info.eps / 2, info.smallest_normal * info.eps / 2)


def double(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


@functools.lru_cache(maxsize=256)
def cached_gumbel(seed: int, rows: int, codes: int, row_offset: int) -> np.ndarray:
    return truth.gumbel(seed, rows, codes, row_offset)


@dataclass(frozen=True)
class Case:
    """One call: z ``(N,)`` or ``(N/L, L)``, or logits with K last; a codebook ``(K,)`` or ``(L, K)``."""

    input: torch.Tensor
    codebook: torch.Tensor
    is_logits: bool = False
    temperature: float = 1.0
    hard: bool = False
    seed: int = 1234
    row_offset: int = 0
    estimator: str = "gumbel"
    note: str = field(default="", compare=False)

    @property
    def codes(self) -> int:
        return self.codebook.shape[-1]

    @property
    def rows(self) -> int:
        return self.input.numel() // (self.codes if self.is_logits else 1)

    @property
    def dtype(self) -> torch.dtype:
        return self.input.dtype

    @property
    def is_code(self) -> bool:
        """quantized is exactly a code and the weights are one-hot."""
        return self.hard or self.estimator != "gumbel"

    @property
    def tolerance(self) -> float:
        return tolerance(self.dtype, self.temperature)

    def but(self, **changes) -> "Case":
        return replace(self, **changes)

    def __str__(self):
        kind = "logits" if self.is_logits else "z"
        return (
            f"{self.note} {kind} {tuple(self.input.shape)} {self.dtype} "
            f"codebook {tuple(self.codebook.shape)} "
            f"tau {self.temperature} hard {self.hard} seed {self.seed} row_offset {self.row_offset} "
            f"{self.estimator}"
        )

    def call(self, backend: str, **changes):
        """The library's answer."""
        quantize = fqvae_kernels.gumbel_quantize_logits if self.is_logits else fqvae_kernels.gumbel_quantize
        given = {
            "temperature": self.temperature,
            "hard": self.hard,
            "seed": self.seed,
            "row_offset": self.row_offset,
            "backend": backend,
        }
        if self.estimator != "gumbel":
            given["estimator"] = self.estimator
        given.update(changes)
        return quantize(given.pop("input", self.input), given.pop("codebook", self.codebook), **given)

    def _truth_arguments(self):
        shape = (self.rows, self.codes) if self.is_logits else (self.rows,)
        codebook = double(self.codebook.to(compute_dtype(self.dtype)))
        options = {
            "temperature": self.temperature,
            "hard": self.hard,
            "is_logits": self.is_logits,
            "estimator": self.estimator,
            "seed": self.seed,
            "row_offset": self.row_offset,
        }
        if self.estimator == "gumbel":
            options["noise"] = cached_gumbel(self.seed, self.rows, self.codes, self.row_offset)
        return double(self.input).reshape(shape), codebook, options

    def true_forward(self) -> truth.Forward:
        input, codebook, options = self._truth_arguments()
        return truth.forward(input, codebook, **options)

    def true_gradients(
        self, grad_quantized=None, grad_kl=None, grad_weights=None, indices=None
    ) -> truth.Gradients:
        """The gradients for gradients of the outputs given as tensors shaped like the outputs, or None.

        indices: in place of those of the truth, from which a backend's may differ where two codes tie.
        """
        input, codebook, options = self._truth_arguments()
        return truth.gradients(
            input,
            codebook,
            grad_quantized=None if grad_quantized is None else double(grad_quantized).reshape(-1),
            grad_kl=None if grad_kl is None else double(grad_kl).reshape(-1),
            grad_weights=None if grad_weights is None else double(grad_weights).reshape(-1, self.codes),
            indices=None if indices is None else indices.reshape(-1).numpy(),
            **options,
        )


def generator(*seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(hash(seed) % 2**31)


def make(
    rows: int,
    codes: int,
    *,
    dtype=torch.float32,
    latents: int = 0,
    is_logits: bool = False,
    scale: float = 1.0,
    offset: float = 0.0,
    **options,
) -> Case:
    """Normal z (or logits) and a normal codebook, times scale plus offset; latents > 0: one codebook each."""
    random = generator(rows, codes, latents, is_logits)
    lead = (rows // latents, latents) if latents else (rows,)
    shape = (*lead, codes) if is_logits else lead
    input = torch.randn(shape, generator=random, dtype=torch.float64) * (2.0 if is_logits else scale)
    book_shape = (latents, codes) if latents else (codes,)
    book = torch.randn(book_shape, generator=random, dtype=torch.float64) * scale + offset
    if not is_logits:
        input = input + offset
    return Case(input.to(dtype), book.to(compute_dtype(dtype)), is_logits, **options)


def output_gradients(case: Case, *, weights: bool = True, seed: int = 0):
    """Random gradients of quantized, kl and weights, in the dtypes of those outputs."""
    random = generator(seed, case.rows, case.codes)
    lead = case.input.shape[:-1] if case.is_logits else case.input.shape
    a = torch.randn(lead, generator=random, dtype=torch.float64).to(case.dtype)
    h = torch.randn(lead, generator=random, dtype=torch.float64).to(compute_dtype(case.dtype))
    v = torch.randn((*lead, case.codes), generator=random, dtype=torch.float64).to(case.dtype)
    return a, h, v if weights else None


def assert_close(got: torch.Tensor, expected, bound: float, name: str, case, scale=None):
    """|got - expected| <= bound max(1, |expected|) plus one rounding to a half dtype; NaN where expected.

    scale: taken in place of max(1, |expected|).
    """
    expected = np.asarray(expected, dtype=np.float64).reshape(got.shape)
    value = double(got)
    assert np.array_equal(np.isnan(value), np.isnan(expected)), f"{name}: NaN in other places\n{case}"
    with np.errstate(invalid="ignore"):
        allowed = bound * (np.maximum(1.0, np.abs(expected)) if scale is None else scale)
        allowed = allowed + rounding(got.dtype, np.abs(expected) + allowed)
        wrong = np.abs(value - expected) > allowed
    wrong &= ~((value == expected) | np.isnan(expected))
    if wrong.any():
        first = tuple(int(i[0]) for i in np.nonzero(wrong)) if wrong.ndim else ()
        raise AssertionError(
            f"{name}{list(first)}: got {value[first]!r}, expected {expected[first]!r}, "
            f"{int(wrong.sum())} of {wrong.size} wrong, bound {bound}\n{case}"
        )


def check_indices(case: Case, indices: torch.Tensor, true: truth.Forward) -> np.ndarray:
    """Indices are the truth's, but where the scores of the two codes are equal to within their rounding.

    The rounding of a score is taken as 1e-5 max(1, |score|), 1e-12 in float64. A drawn index is the truth's,
    but where u lies within 2e-6 of a boundary, 1e-11 in float64. Returns the indices.
    """
    assert indices.dtype == torch.int64
    got = indices.reshape(-1).numpy()
    assert ((got >= 0) & (got < case.codes)).all(), f"an index outside [0, {case.codes})\n{case}"
    row = np.arange(case.rows)
    masked = np.isneginf(true.relative_logits[row, got]) & ~true.bad
    assert not masked.any(), f"a masked code\n{case}"
    if true.u is not None:
        slack = 1e-11 if case.dtype == torch.float64 else 2e-6
        above = true.cumulative[row, got]
        below = np.where(got > 0, true.cumulative[row, got - 1], 0.0)
        drawn = (above + slack > true.u) & (below - slack <= true.u)
        assert (drawn | true.bad).all(), f"a code that u does not draw\n{case}"
        return got
    best, chosen = true.scores[row, true.indices], true.scores[row, got]
    unit = 1e-12 if case.dtype == torch.float64 else 1e-5
    gap = np.where(true.bad, 0.0, best - chosen)
    assert (gap <= unit * np.maximum(1.0, np.abs(best))).all(), f"a code that did not win\n{case}"
    return got


def check_forward(case: Case, result, *, weights: bool, quantized_scale=None, kl: bool = True):
    """Everything that a forward pass promises, against the truth. weights, kl: were they asked for."""
    true = case.true_forward()
    lead = case.input.shape[:-1] if case.is_logits else case.input.shape
    index = check_indices(case, result.indices, true)
    assert result.quantized.shape == result.indices.shape == lead
    assert result.quantized.dtype == case.dtype
    if kl:
        assert result.kl.shape == lead and result.kl.dtype == compute_dtype(case.dtype)
        # kl has no temperature in it.
        assert_close(result.kl, true.kl, tolerance(case.dtype, 1.0), "kl", case)
        assert not (result.kl < -tolerance(case.dtype, 1.0)).any(), f"a negative kl\n{case}"
    else:
        assert result.kl is None

    row = np.arange(case.rows)
    if case.is_code:
        book = case.codebook.to(compute_dtype(case.dtype)).reshape(-1, case.codes)
        picked = book[torch.from_numpy(row % book.shape[0]), torch.from_numpy(index)].to(case.dtype)
        picked[torch.from_numpy(true.bad)] = float("nan")
        assert torch.equal(
            torch.nan_to_num(result.quantized.reshape(-1), nan=-12345.0),
            torch.nan_to_num(picked, nan=-12345.0),
        ), f"quantized is not exactly codebook[index]\n{case}"
    else:
        assert_close(
            result.quantized, true.quantized, case.tolerance, "quantized", case, scale=quantized_scale
        )
    if not weights:
        assert result.weights is None
        return
    assert result.weights.shape == (*lead, case.codes) and result.weights.dtype == case.dtype
    expected = true.weights
    if case.is_code:
        expected = np.where(true.bad[:, None], np.nan, index[:, None] == np.arange(case.codes))
        assert_close(result.weights, expected, 0.0, "weights", case)
    else:
        assert_close(result.weights, expected, case.tolerance, "weights", case)
        assert not (result.weights < 0).any(), f"a negative weight\n{case}"


def beside_close_codes(rows: int, **options) -> Iterator[Case]:
    """Far z, and two codes next to it that are so close that it still doubts between them."""
    for gap, far in itertools.product((1e-2, 1e-3, 1e-4, 1e-5), (30.0, 300.0, 3e3, 6e4)):
        case = make(rows, 32, note=f"gap {gap}", **options)
        book = case.codebook.clone()
        book[3] = book.max() - gap
        yield case.but(input=far * (1.0 + case.input.sigmoid()), codebook=book)


def assert_same(got: torch.Tensor, expected: torch.Tensor, backend: str, name):
    """Bit for bit; but close is enough for the reference, whose last digits may follow the shape."""
    if backend != "reference":
        assert torch.equal(got, expected), name
    else:
        close = 1e-12 if got.dtype == torch.float64 else 1e-5 if got.dtype == torch.float32 else 1e-2
        torch.testing.assert_close(got, expected, atol=close, rtol=close)


def run_python(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess:
    """Python in a process of its own that finds the same package as this one."""
    package = str(pathlib.Path(fqvae_kernels.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": path},
    )


class _SaysNan(torch.nn.Module):
    def forward(self, value):
        return torch.where(value > 0, value, math.nan)


@functools.cache
def _saves_nan() -> bool:
    """Whether torch.export.save can write a program with NaN in it; PyTorch 2.8's cannot."""
    try:
        torch.export.save(torch.export.export(_SaysNan(), (torch.ones(2),)), io.BytesIO())
    except ValueError as error:
        if "Out of range float values" in str(error):
            return False
        raise
    return True


def reloaded(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program, saved and loaded; as it is where a program with NaN in it cannot be saved."""
    if not _saves_nan():
        return program
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)
