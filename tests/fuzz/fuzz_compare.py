"""A call's outputs and gradients against the truth in float64, with the rules for what is not finite."""

import random

import numpy as np
import torch
import truth
from cases import Case, check_indices, compute_dtype, double, rounding, tolerance
from fuzz_calls import Call, describe, run
from fuzz_values import as_view, generator
from gradcases import scales

# Squared distances between larger codes overflow float32, and beyond 2^98 the kernels count every distance as
# that
# far: of such calls only what holds for all codes is checked.
LARGEST_CODE = {torch.float32: 1e15, torch.float64: 1e28}
# The same for gradients, of which a far z is a factor.
LARGEST_SCALE = {torch.float32: 1e15, torch.float64: 1e28}


def unequal(got: torch.Tensor, expected, allowed) -> np.ndarray:
    """Where got isn't within allowed of expected. What is beyond the range of its dtype may be infinite."""
    expected = np.broadcast_to(np.asarray(expected, dtype=np.float64), got.shape)
    value = double(got)
    largest = torch.finfo(got.dtype).max
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = allowed + rounding(got.dtype, np.abs(expected) + allowed)
        close = np.abs(value - expected) <= allowed
        beyond = (np.abs(expected) + allowed >= largest * (1.0 - 2.0**-11)) & (np.abs(value) >= largest / 2)
    return ~(close | (value == expected) | (np.isnan(value) & np.isnan(expected)) | beyond)


def check_close(got: torch.Tensor, expected, allowed, name: str):
    wrong = unequal(got, expected, allowed)
    if wrong.any():
        place = tuple(int(i[0]) for i in np.nonzero(wrong)) if wrong.ndim else ()
        wanted = np.broadcast_to(np.asarray(expected, dtype=np.float64), got.shape)[place]
        raise AssertionError(
            f"{name}{list(place)} is {double(got)[place]!r}, but should be {wanted!r} within "
            f"{np.broadcast_to(allowed, got.shape)[place]:.3g}; {int(wrong.sum())} of {wrong.size} are wrong"
        )


def distances(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """|z - m*| ``(N, 1)`` and |m - m*| ``(N, K)``, m* the nearest code. Zeros for logits."""
    if case.is_logits:
        return np.zeros((case.rows, 1)), np.zeros((case.rows, case.codes))
    z, book = double(case.input).reshape(-1), double(case.codebook.to(compute_dtype(case.dtype)))
    finite = np.nan_to_num(np.atleast_2d(book), posinf=0.0, neginf=0.0)
    m = finite[np.arange(case.rows) % len(finite)]
    nearest = np.take_along_axis(m, truth.nearest(z, book)[:, None], axis=1)
    return np.nan_to_num(np.abs(z[:, None] - nearest)), np.abs(m - nearest)


def moved(case: Case) -> np.ndarray:
    """How far rounding moves the logits of z: some eps |m - m*| (|z - m*| + |m - m*|), ``(N, K)``.

    The usual bounds allow for codebooks a few units wide; these are of any width.
    """
    far, step = distances(case)
    return 4.0 * torch.finfo(compute_dtype(case.dtype)).eps * step * (far + step)


def spread(case: Case, weights: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """`moved` over the temperature by the weight of each code, ``(N,)``: from 1 on a row may be anything."""
    off = moved(case) / temperature
    # A logit that moves far may bring weight to a code that has none.
    reached = np.minimum(1.0, weights * np.exp(np.minimum(off, 80.0)))
    return np.nan_to_num((reached * np.minimum(off, 1.0)).sum(axis=1))


def check_chosen(case: Case, indices: torch.Tensor, true: truth.Forward) -> np.ndarray:
    """`check_indices`, with the slack of `moved` where the codes are far apart."""
    got = indices.reshape(-1).numpy()
    if true.u is None and case.rows and ((got >= 0) & (got < case.codes)).all():
        row = np.arange(case.rows)
        gap = true.scores[row, true.indices] - true.scores[row, got]
        close = gap <= moved(case)[row, got] + moved(case)[row, true.indices]
        # What is close enough counts as the truth.
        kept = np.where(close, true.indices, got)
        check_indices(case, torch.from_numpy(kept), true)
        return got
    return check_indices(case, indices, true)


def widest(case: Case, true: truth.Forward, loss: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    """The scale of gradients through z: parts of dl before they cancel, times the distance to the code."""
    if case.is_logits or not case.rows:
        return 0.0
    a, h, v = loss
    far, step = distances(case)
    w, q = true.soft, true.posterior
    size = np.abs(a[:, None]) * step + np.abs(v)
    logit = np.where(q > 0.0, 1.0 - true.relative_logits, 0.0)
    # A row whose weight lies on one code altogether has no gradient, however far z is.
    unit = torch.finfo(compute_dtype(case.dtype)).eps / 8

    def alive(weight):
        return 1.0 - weight.max(axis=1, keepdims=True) > unit

    dl = w * (size + (w * size).sum(axis=1, keepdims=True)) * alive(w)
    if case.estimator == "reinmax":
        dl = 2.0 * size + 2.0 * (w * size).sum(axis=1, keepdims=True)
    dl = dl * max(1.0, 1.0 / case.temperature)
    dl = dl + np.abs(h[:, None]) * q * (logit + (q * logit).sum(axis=1, keepdims=True)) * alive(q)
    each = np.where(true.bad[:, None], 0.0, 2.0 * dl * (far + step))
    return float(np.nan_to_num(each.sum(axis=0).max(initial=0.0)))


def is_wild(case: Case) -> bool:
    """Codes so large that their distances may overflow."""
    codes = case.codebook.to(compute_dtype(case.dtype)).abs()
    return bool((codes[codes.isfinite()] > LARGEST_CODE[codes.dtype]).any())


def check_outputs(call: Call, result, true: truth.Forward):
    case, arguments, wild = call.case, call.arguments, is_wild(call.case)
    of_weights = spread(case, true.soft, case.temperature)
    lead = case.input.shape[:-1] if case.is_logits else case.input.shape
    assert result.quantized.shape == result.indices.shape == lead, "shape"
    assert result.quantized.dtype == case.dtype, "dtype of quantized"
    assert (result.kl is not None) == arguments["return_kl"], "kl is there where it was not asked for"
    assert (result.weights is not None) == arguments["return_weights"], "so are the weights"
    index = result.indices.reshape(-1).numpy() if wild else check_chosen(case, result.indices, true)
    assert ((index >= 0) & (index < case.codes)).all(), "an index out of range"
    for output in (result.quantized, result.kl, result.weights):
        if output is not None:
            values = double(output)[true.bad.reshape(lead)]
            assert np.isnan(values).all(), "a bad row is not NaN"
    book = case.codebook.to(compute_dtype(case.dtype)).reshape(-1, case.codes)
    latent = torch.arange(case.rows) % book.shape[0]
    if case.is_code:
        picked = double(book[latent, torch.from_numpy(index)].to(case.dtype))
        expected = np.where(true.bad, np.nan, picked)
        check_close(result.quantized, expected.reshape(lead), 0.0, "quantized")
    elif not wild:
        reach = np.nan_to_num(double(book.abs().amax(dim=-1)[latent]), nan=0.0, posinf=0.0)
        allowed = (case.tolerance + of_weights) * np.maximum(1.0, reach)
        check_close(result.quantized, true.quantized.reshape(lead), allowed.reshape(lead), "quantized")
    if result.kl is not None:
        assert result.kl.shape == lead and result.kl.dtype == compute_dtype(case.dtype), (
            "shape or dtype of kl"
        )
        bound = tolerance(case.dtype, 1.0) * np.maximum(1.0, np.nan_to_num(true.kl))
        bound = bound + 10.0 * spread(case, true.posterior)
        if not wild:
            check_close(result.kl, true.kl.reshape(lead), bound.reshape(lead), "kl")
    if result.weights is not None:
        assert result.weights.shape == (*lead, case.codes) and result.weights.dtype == case.dtype, "weights"
        one_hot = np.where(true.bad[:, None], np.nan, index[:, None] == np.arange(case.codes))
        weights = one_hot if case.is_code else double(result.weights) if wild else true.weights
        allowed = np.zeros(case.rows) if case.is_code else case.tolerance + of_weights
        check_close(
            result.weights, weights.reshape(result.weights.shape), allowed.reshape(*lead, 1), "weights"
        )
        assert not (result.weights < 0).any(), "a negative weight"


def incoming(draw: random.Random, output: torch.Tensor, bad: torch.Tensor) -> torch.Tensor:
    """A gradient of an output: normal, or expanded from one value; in any strides; NaN in bad rows."""
    if draw.random() < 0.1:
        return torch.full((), 0.5, dtype=output.dtype).expand(output.shape)
    values = torch.randn(output.shape, generator=generator(draw), dtype=torch.float64).to(output.dtype)
    if draw.random() < 0.5:
        values[bad] = draw.choice([float("nan"), float("inf")])
    return as_view(draw, values)


def check_gradients(case: Case, got, true: truth.Gradients, result: truth.Forward, scale_of_z: float = 0.0):
    """Each within its bound; exactly zero wherever nothing but bad rows could contribute."""
    bad = result.bad
    book = np.atleast_2d(double(case.codebook))
    spoilt = np.array([bad[latent :: len(book)].all() for latent in range(len(book))])
    of_input = bad[:, None] if case.is_logits else bad
    zero = (
        np.broadcast_to(of_input, true.input.shape),
        np.broadcast_to(spoilt[:, None], book.shape).reshape(true.codebook.shape),
        np.asarray(bad.all()),
    )
    expected = (true.input, true.codebook, np.asarray(true.temperature))
    # What all results are held to; many terms that are added up lose more.
    bound = case.tolerance * max(1.0, case.codes / 1000)
    off = spread(case, result.soft, case.temperature) + 10.0 * spread(case, result.posterior)
    bound += off.max(initial=0.0)
    for name, value, wanted, scale, where in zip(
        ("input", "codebook", "temperature"), got, expected, scales(true), zero, strict=True
    ):
        if value is None:
            continue
        assert not double(value).reshape(where.shape)[where].any(), f"a gradient of {name} through a bad row"
        if name != "temperature":
            scale = max(scale, scale_of_z)
        if (
            is_wild(case)
            or not scale < LARGEST_SCALE[compute_dtype(case.dtype)]
            or not np.isfinite(wanted).all()
        ):
            continue
        # A gradient of a float32 leaf is rounded to float32, whatever it is computed in.
        allowed = bound * scale + torch.finfo(value.dtype).eps * np.abs(wanted)
        check_close(value.reshape(wanted.shape), wanted, allowed, f"gradient of {name}")


def check_call(call: Call, draw: random.Random):
    """The whole of one call: nothing written to its inputs, outputs, gradients, and the same again."""
    case = call.case
    input = case.input.detach().requires_grad_(call.requires[0])
    book = case.codebook.detach().requires_grad_(call.requires[1])
    warmth = call.arguments["temperature"]
    if isinstance(warmth, torch.Tensor):
        warmth = warmth.detach().clone().requires_grad_(call.requires[2])
        call.arguments["temperature"] = warmth
    before = (input.detach().clone(), book.detach().clone())
    result = run(call, input, book)
    for now, then in zip((input, book), before, strict=True):
        assert torch.equal(now.detach().nan_to_num(1.25), then.nan_to_num(1.25)), "an input was written to"
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        true = case.true_forward()
        check_outputs(call, result, true)
    if call.repeats:
        again = run(call, input, book)
        for one, other in zip(result, again, strict=True):
            assert (one is None) == (other is None), "another output the second time"
            if one is not None:
                assert torch.equal(one.nan_to_num(1.25), other.nan_to_num(1.25)), "a repeated call differs"
    assert not result.indices.requires_grad, "indices require a gradient"
    bad = torch.from_numpy(true.bad).reshape(result.indices.shape)
    outputs = (result.quantized, result.kl, result.weights)
    given = [incoming(draw, o, bad) if uses else None for o, uses in zip(outputs, call.loss, strict=True)]
    leaves = [t for t, needed in zip((input, book, warmth), call.requires, strict=True) if needed]
    pairs = [(o, g) for o, g in zip(outputs, given, strict=True) if g is not None and o.requires_grad]
    if not leaves:
        assert not any(o.requires_grad for o in outputs if o is not None), "an output requires a gradient"
    if not leaves or not pairs:
        return
    found = torch.autograd.grad([o for o, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True)
    found = iter(found)
    got = [next(found) if needed else None for needed in call.requires]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        gradients = case.true_gradients(*given, indices=result.indices)
        whole = [
            np.zeros((case.rows, *end)) if g is None else double(g).reshape(case.rows, *end)
            for g, end in zip(given, ((), (), (case.codes,)), strict=True)
        ]
        check_gradients(case, got, gradients, true, widest(case, true, whole))


def check_nearest(case: Case, backend: str, draw: random.Random):
    """`nearest_quantize`: a nearest code's value, bad rows, and the gradient straight to z."""
    import fqvae_kernels

    z, book = case.input.detach().requires_grad_(draw.random() < 0.5), case.codebook.detach().requires_grad_()
    result = fqvae_kernels.nearest_quantize(z, book, backend=backend)
    assert result.quantized.shape == result.indices.shape == z.shape, "shape"
    assert result.quantized.dtype == z.dtype and result.indices.dtype == torch.int64, "dtype"
    cast = case.codebook.to(compute_dtype(case.dtype))
    flat, index = double(z).reshape(-1), result.indices.reshape(-1).numpy()
    assert ((index >= 0) & (index < case.codes)).all(), "an index out of range"
    expected, bad = truth.nearest(flat, double(cast)), np.isnan(truth.nearest_quantized(flat, double(cast)))
    row = np.arange(case.rows)
    each = np.nan_to_num(double(cast).reshape(-1, case.codes), posinf=0.0, neginf=0.0)
    each = each[row % len(each)]
    with np.errstate(over="ignore", invalid="ignore"):
        clamped = np.clip(np.where(bad, 0.0, flat), each.min(axis=1), each.max(axis=1))
        distance = np.abs(clamped[:, None] - each)
        gap = distance[row, index] - distance[row, expected]
        unit = torch.finfo(cast.dtype).eps * (np.abs(clamped) + np.abs(each).max(axis=1, initial=0.0))
    assert not (gap > unit)[~bad].any(), "a code that is not the nearest"
    picked = cast.reshape(-1, case.codes)
    picked = double(picked[torch.from_numpy(row % len(picked)), result.indices.reshape(-1)].to(z.dtype))
    check_close(result.quantized.reshape(-1), np.where(bad, np.nan, picked), 0.0, "quantized")
    if z.requires_grad:
        gradient = incoming(draw, result.quantized, torch.from_numpy(bad).reshape(z.shape))
        of_z, of_book = torch.autograd.grad(result.quantized, (z, book), gradient, allow_unused=True)
        wanted = np.where(bad, 0.0, double(gradient).reshape(-1)).reshape(z.shape)
        check_close(of_z, wanted, 0.0, "gradient of z")
        assert of_book is None or not of_book.any(), "a gradient of the codebook"


def describe_nearest(case: Case, backend: str) -> str:
    return f"nearest_quantize({describe(case.input)}, {describe(case.codebook)}, backend={backend!r})"
