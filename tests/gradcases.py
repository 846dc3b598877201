"""Gradients of the library, of a naive implementation, and their comparison with the truth."""

import numpy as np
import torch
from cases import HALF, Case, cached_gumbel, check_forward, double, make, output_gradients, rounding


def leaf(tensor: torch.Tensor, requires: bool = True) -> torch.Tensor:
    return tensor.detach().clone().requires_grad_(requires)


def weighted_sum(outputs, gradients):
    """sum(output * gradient) in float64, over the pairs whose gradient is given."""
    return sum(
        (o.double() * g.double()).sum() for o, g in zip(outputs, gradients, strict=True) if g is not None
    )


def library_pass(case: Case, backend: str, a=None, h=None, v=None, requires=(True, True, True), **changes):
    """The library's outputs and its gradients of input, codebook and temperature; None where not required."""
    input, codebook = leaf(case.input, requires[0]), leaf(case.codebook, requires[1])
    temperature = leaf(torch.tensor(case.temperature, dtype=torch.float64), requires[2])
    given = {"input": input, "codebook": codebook, "temperature": temperature}
    result = case.call(backend, **{"return_weights": v is not None, **given, **changes})
    loss = weighted_sum((result.quantized, result.kl, result.weights), (a, h, v))
    # Not so if nothing of what is required enters the outputs of this loss.
    if loss.requires_grad:
        loss.backward()
    return result, (input.grad, codebook.grad, temperature.grad)


def library_gradients(case: Case, backend: str, a=None, h=None, v=None, requires=(True, True, True)):
    """Gradients of input, codebook and temperature by the library; None where not required."""
    return library_pass(case, backend, a, h, v, requires)[1]


def check_pass(case: Case, backend: str, a=None, h=None, v=None, bound: float | None = None):
    """Forward and backward pass of one call against the truth, for the indices that the library chose."""
    result, got = library_pass(case, backend, a, h, v)
    check_forward(case, result, weights=v is not None)
    assert_gradients(case, got, case.true_gradients(a, h, v, indices=result.indices), bound)
    return result, got


def naive_gradients(case: Case, a=None, h=None, v=None, indices=None):
    """The textbook formula in the dtype of the input, by PyTorch's autograd. indices: of drawn codes."""
    dtype = case.dtype
    input, codebook = leaf(case.input), leaf(case.codebook.to(dtype))
    temperature = leaf(torch.tensor(case.temperature, dtype=dtype))
    lead = case.input.shape[:-1] if case.is_logits else case.input.shape
    logits = input if case.is_logits else -((input[..., None] - codebook) ** 2)
    log_q = torch.log_softmax(logits, -1)
    if case.estimator == "gumbel":
        noise = torch.from_numpy(cached_gumbel(case.seed, case.rows, case.codes, case.row_offset))
        logits = logits + noise.to(dtype).reshape(*lead, case.codes)
        indices = logits.argmax(-1) if case.hard else None
    w = torch.softmax(logits / temperature, dim=-1)
    if case.is_code:
        drawn = torch.nn.functional.one_hot(indices, case.codes).to(dtype)
        if case.estimator == "reinmax":
            half = (w.detach() + drawn) / 2
            w = 2 * torch.softmax((half.log() - logits).detach() + logits, -1) - log_q.exp() / 2
        w = drawn - w.detach() + w
    kl = (log_q.exp() * log_q).sum(-1) + float(np.log(case.codes))
    weighted_sum(((w * codebook).sum(-1), kl, w), (a, h, v)).backward()
    return [torch.zeros_like(t) if t.grad is None else t.grad for t in (input, codebook, temperature)]


def gradient_bound(case: Case) -> float:
    """4e-6 max(1, 0.2/tau) in float32: tighter than an output's, since the scale counts what cancels."""
    return 0.4 * case.tolerance


def scales(true) -> tuple[float, float, float]:
    """What the error of each gradient is measured against: the largest sum of magnitudes behind it."""

    def largest(x):
        return max(0.01, float(np.abs(x).max(initial=0.0)))

    return largest(true.input_size), largest(true.codebook_size), largest(true.temperature_size)


def dtypes_of(case: Case):
    return case.dtype, case.codebook.dtype, torch.float64


def assert_gradients(case: Case, got, true, bound: float | None = None):
    """Every gradient within bound times its scale, plus one rounding where it is stored in a half dtype.

    bound: `gradient_bound` if None. A missing gradient passes only where the true one is zero altogether.
    """
    bound = gradient_bound(case) if bound is None else bound
    expected = (true.input, true.codebook, np.asarray(true.temperature))
    names = ("input", "codebook", "temperature")
    for name, value, truth_value, scale, dtype in zip(
        names, got, expected, scales(true), dtypes_of(case), strict=True
    ):
        if value is None:
            assert not truth_value.any(), f"no gradient of {name}\n{case}"
            continue
        assert value.dtype == dtype, f"gradient of {name} is {value.dtype}\n{case}"
        actual = double(value).reshape(truth_value.shape)
        assert np.isfinite(actual).all(), f"gradient of {name} is not finite\n{case}"
        error = np.abs(actual - truth_value)
        allowed = bound * scale + rounding(dtype, np.abs(truth_value) + bound * scale)
        if (error > allowed).any():
            worst = np.unravel_index((error - allowed).argmax(), error.shape)
            raise AssertionError(
                f"gradient of {name}{list(map(int, worst))}: got {actual[worst]}, "
                f"expected {truth_value[worst]}, error {error[worst]:.3g}, "
                f"allowed {np.broadcast_to(allowed, error.shape)[worst]:.3g}\n{case}"
            )


def check_temperatures_near_zero(backend: str):
    """All weight on one code: errors that 1/temperature would multiply must be exactly 0."""
    for temperature, furthest in ((1e-6, 1e10), (1e-9, 1e10), (1e-12, 3.0)):
        for is_logits in (False, True):
            case = make(40, 17, is_logits=is_logits, temperature=temperature)
            case.codebook[[2, 9]] = torch.tensor([-furthest, furthest])
            given = output_gradients(case)
            got = library_gradients(case, backend, *given)
            assert_gradients(case, got, case.true_gradients(*given), bound=1e-5)


def worst_error(case: Case, got, true) -> list[float]:
    """The largest error of each gradient over its scale."""
    expected = (true.input, true.codebook, np.asarray(true.temperature))
    return [
        float(np.abs(double(value).reshape(t.shape) - t).max(initial=0.0)) / scale
        for value, t, scale in zip(got, expected, scales(true), strict=True)
    ]


def stored_rounding(case: Case) -> list[float]:
    """The relative rounding of each gradient where it is stored."""
    return [torch.finfo(dtype).eps / 2 if dtype in HALF else 0.0 for dtype in dtypes_of(case)]
