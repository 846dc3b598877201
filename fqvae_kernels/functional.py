"""The public functions: check the arguments, pick the backend, call it.

Shapes: N scalars or rows, K codes, L latents. Compute dtype: float64 for float64 input, float32 for float32,
float16 and bfloat16 input, which is also the arithmetic inside whatever autocast says.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fqvae_kernels import _arguments, _operators, _vectors, autograd, backends
from fqvae_kernels._call import Call, Tally, Wants, draws
from fqvae_kernels._draws import lies_as
from fqvae_kernels._seeds import draw_seed
from fqvae_kernels._tensors import compute_dtype, values_behind
from fqvae_kernels._types import GumbelQuantized, NearestQuantized

__all__ = ["gumbel_noise", "gumbel_quantize", "gumbel_quantize_logits", "gumbel_softmax", "nearest_quantize"]


# Whether torch.export is at work; before PyTorch 2.7 nothing tells.
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)

# The first fields of a `Call`, as a user gave them: a seed of None is to be drawn.
_Given = tuple[str, bool, bool, float | Tensor, int | Tensor | None, int, Wants]


def gumbel_quantize(
    z: Tensor,
    codebook: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    hard: bool = False,
    seed: int | Tensor | None = None,
    row_offset: int = 0,
    return_weights: bool = False,
    return_kl: bool = True,
    estimator: str = "gumbel",
    backend: str | None = None,
) -> GumbelQuantized:
    """Sample a code for every scalar of z from its squared distances to the codes.

    With logits l[n,k] = -(z[n] - m[k])**2 and Gumbel noise g[n,k] (see `gumbel_noise`), row n of z in C
    order, the estimator "gumbel" gives:

        weights   w[n,:] = softmax((l[n,:] + g[n,:]) / temperature)
        indices   argmax_k l[n,k] + g[n,k], lowest k on a tie
        quantized sum_k w[n,k] m[k]
        kl        sum_k q ln(q K) with the posterior q[n,:] = softmax(l[n,:]): KL(q || uniform) in nats

    "straight_through" and "reinmax" draw the index from q by one uniform number a row, return the code at the
    index and one-hot weights, and differ in the gradient of the logits (docs/estimators.md): straight_through
    takes that of softmax(l / temperature), reinmax is exact to second order at temperature 1, and wrong below
    (Liu et al., NeurIPS 2023).

    z, codebook and a temperature tensor get gradients through quantized, kl and weights. Nothing of size N x
    K is allocated unless weights are asked for. Derivatives of derivatives, forward-mode AD and
    torch.func.vmap take plain PyTorch with the same samples: right, but slow, and N x K in memory; so does
    the backend "reference". Method: arXiv 2409.14851; Jang et al. and Maddison et al., ICLR 2017.

    Args:
        z: float16, bfloat16, float32 or float64, any shape.
        codebook: (K,), one codebook for all scalars; or (L, K), one per latent, with z of shape (..., L); K
            at most 2**24. Any floating dtype: it is cast to the compute dtype, its gradient comes back in its
            own.
        temperature: float, or a 0-d floating-point tensor on z's device or the CPU; greater than 0, finite,
            and so is its reciprocal in the compute dtype. Under torch.compile a tensor may change at every
            call without recompiling. reinmax takes its gradient at a constant temperature: that is 0.
        hard: of "gumbel": straight-through. quantized is exactly the code at the index (rounded to z's
            dtype), weights are one-hot; the scores' gradient is the soft one, as in
            `torch.nn.functional.gumbel_softmax(hard=True)`. The other estimators always return a code.
        seed: int in [0, 2**64), a 0-d int64 tensor of those 64 bits, or None: drawn from PyTorch's default
            CPU generator, so `torch.manual_seed` fixes the samples on every device.
        row_offset: row i of z draws for row row_offset + i, so that shards of a batch sample together what
            the whole batch would have.
        return_weights: return the weights as well.
        return_kl: False: kl is None, and the work for it is saved.
        estimator: "gumbel", "straight_through" or "reinmax".
        backend: one of "cuda", "triton", "cpu", "reference", or None: the best one for z's device.

    Returns:
        GumbelQuantized(quantized, indices, kl, weights): z's shape and dtype; z's shape, int64; z's shape,
        compute dtype, or None; (*z.shape, K) in z's dtype, or None. A row whose z is NaN or infinite, and
        every row of a codebook that holds a NaN or infinite code, has NaN in quantized, kl and weights, an
        index in [0, K), and no gradient.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a shape, device or value that does not fit.
        RuntimeError: a backend that cannot serve here; torch.jit.trace without a seed.
    """
    _arguments.check_scalars(z, codebook)
    wants = _arguments.check_wants(return_weights, return_kl)
    return _sample(z, codebook, (estimator, False, hard, temperature, seed, row_offset, wants), backend)


def gumbel_quantize_logits(
    logits: Tensor,
    codebook: Tensor | None = None,
    *,
    embedding: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    hard: bool = False,
    seed: int | Tensor | None = None,
    row_offset: int = 0,
    return_weights: bool = False,
    return_kl: bool = True,
    estimator: str = "gumbel",
    backend: str | None = None,
) -> GumbelQuantized:
    """Sample a code for every row of logits that an encoder gives: the quantizer of a discrete VAE.

    As `gumbel_quantize` with l = logits, which get the gradient that z gets there; the codes then get one
    through quantized only. A logit of -inf masks its code: it is never drawn and its weight is 0.

    Codes are scalars of a codebook or vectors of an embedding, which is another argument because the shape
    (A, B) is A codebooks of B scalars in the one and B-vectors for A codes in the other. With vectors, soft
    weights are multiplied by the embedding and a drawn code is its row, to the last bit. The weights, of
    logits' shape, are then kept for the backward pass.

    Args:
        logits: (..., K), or (..., L, K) with codes per latent; float16, bfloat16, float32 or float64.
        codebook: (K,) or (L, K): a code is a scalar.
        embedding: (K, D) or (L, K, D), in place of codebook: a code is a vector of D values. Any floating
            dtype: it is cast to the compute dtype, its gradient comes back in its own.
        temperature, hard, seed, row_offset, return_weights, return_kl, estimator, backend: as for
            `gumbel_quantize`.

    Returns:
        GumbelQuantized(quantized, indices, kl, weights): logits.shape[:-1], with an embedding (*that, D), in
        logits' dtype; logits.shape[:-1], int64; the same shape, compute dtype, or None; logits.shape in
        logits' dtype, or None. A row that holds NaN or +inf, or nothing but -inf, and every row of a codebook
        that holds a NaN or infinite code, has NaN in quantized, kl and weights, an index in [0, K), and no
        gradient.

    Raises:
        TypeError: also where both codebook and embedding are given, or neither.
        ValueError, RuntimeError: as `gumbel_quantize`.
    """
    _arguments.check_one_kind_of_codes(codebook, embedding)
    if embedding is not None:
        _arguments.check_vectors(logits, embedding)
        wants = _arguments.check_wants(return_weights, return_kl)
        given: _Given = (estimator, True, hard, temperature, seed, row_offset, wants)
        return _sample_vectors(logits, embedding, given, backend)
    assert codebook is not None
    _arguments.check_logits(logits, codebook)
    wants = _arguments.check_wants(return_weights, return_kl)
    return _sample(logits, codebook, (estimator, True, hard, temperature, seed, row_offset, wants), backend)


def gumbel_softmax(
    logits: Tensor,
    tau: float | Tensor = 1.0,
    hard: bool = False,
    dim: int = -1,
    *,
    seed: int | Tensor | None = None,
    row_offset: int = 0,
    backend: str | None = None,
) -> Tensor:
    """Sample from the Gumbel-Softmax distribution: `torch.nn.functional.gumbel_softmax` in one pass.

    softmax((logits + g) / tau) along dim, with the noise of `gumbel_noise`; neither that nor anything else of
    logits' size is written besides the result. The gradient takes the weights as they are and draws nothing
    again, but for float16 and bfloat16, whose rounded weights would not do. It is PyTorch's, to every order
    and in both modes; what is beyond the kernels (forward-mode AD, torch.func.vmap) takes plain PyTorch with
    the same samples. Method: Jang et al. and Maddison et al., ICLR 2017.

    Besides the noise it differs from PyTorch's function in this: a tau that is a tensor has to be 0-d and
    floating, and there is no `eps`, which PyTorch ignores.

    Args:
        logits: float16, bfloat16, float32 or float64, any shape and layout. Rows run along dim; they are
            numbered in C order of the other dimensions. A logit of -inf masks its place: its weight is 0.
        tau: the temperature, a float or a 0-d tensor, as for `gumbel_quantize`.
        hard: straight-through: the result is one-hot, the gradient that of the soft weights.
        dim: the dimension that sums to 1, with at most 2**24 places.
        seed, row_offset, backend: as for `gumbel_quantize`.

    Returns:
        logits' shape and dtype. A row that holds NaN or +inf, or nothing but -inf, is NaN and gets no
        gradient.

    Raises:
        TypeError, ValueError, RuntimeError: as `gumbel_quantize`.
        IndexError: a dim that logits does not have.
    """
    _arguments.check_softmax_logits(logits, dim)
    if logits.dim() == 0:
        return gumbel_softmax(
            logits.unsqueeze(0), tau, hard, dim, seed=seed, row_offset=row_offset, backend=backend
        ).squeeze(0)
    rows = lies_as(logits.movedim(dim, -1), logits, dim)
    if rows.shape[-1] == 0:
        return logits.softmax(dim)
    codebook = rows.new_zeros(rows.shape[-1], dtype=compute_dtype(rows))  # any values
    wants = Wants(quantized=False, indices=False, kl=False, weights=True)
    given: _Given = ("gumbel", True, hard, tau, seed, row_offset, wants)
    chosen, call, traced = _prepare(rows, codebook, given, backend, "tau")
    return autograd.weights(chosen, rows, codebook, call, traced)[0].movedim(-1, dim)


def nearest_quantize(z: Tensor, codebook: Tensor, *, backend: str | None = None) -> NearestQuantized:
    """Replace every scalar of z by its nearest code, lowest index on a tie; the gradient goes straight
    through.

    d quantized / d z = 1, and the codebook gets no gradient: train it by a loss on codebook[indices], as
    `ScalarQuantizer` does.

    Args:
        z: float16, bfloat16, float32 or float64, any shape.
        codebook: (K,), or (L, K) with z of shape (..., L).
        backend: as for `gumbel_quantize`. While torch.export makes a program, None is "reference", whose
            operators are PyTorch's own.

    Returns:
        NearestQuantized(quantized, indices): z's shape and dtype, exactly a code's value (rounded to z's
        dtype); z's shape, int64. NaN or infinite z, and any z where a code of its codebook is NaN or
        infinite, gives NaN, an index in [0, K), and no gradient.

    Raises:
        TypeError, ValueError, RuntimeError: as `gumbel_quantize`.
    """
    _arguments.check_scalars(z, codebook)
    chosen = _choose(backend, z.device, drawn=False)
    return autograd.nearest(chosen, z, codebook, autograd.is_traced(z, codebook))


def nearest_counted(
    z: Tensor, codebook: Tensor, tally: Callable[[], Tally | None], *, backend: str | None = None
) -> NearestQuantized | None:
    """`nearest_quantize` by the native kernels, which count the codes as they go.

    None where they cannot serve, or where tally gives None: then nothing is counted.
    """
    _arguments.check_scalars(z, codebook)
    if _choose(backend, z.device, drawn=False).name != "cpu" or autograd.is_traced(z, codebook):
        return None
    return autograd.nearest_counted(z, codebook, tally)


def posterior_kl(
    input: Tensor, codebook: Tensor, *, is_logits: bool = False, backend: str | None = None
) -> Tensor:
    """KL(posterior || uniform) of each row, as `gumbel_quantize` gives it, in a pass of its own.

    No sample enters it. It is differentiable in input and codebook. Arguments and errors: `gumbel_quantize`,
    or with is_logits `gumbel_quantize_logits`, whose logits are then the input.
    """
    if is_logits:
        _arguments.check_logits(input, codebook)
    else:
        _arguments.check_scalars(input, codebook)
    given: _Given = ("straight_through", is_logits, False, 1.0, 0, 0, Wants(quantized=False, indices=False))
    kl = _sample(input, codebook, given, backend).kl
    assert kl is not None
    return kl


def gumbel_noise(
    seed: int | Tensor,
    rows: int,
    codes: int,
    *,
    row_offset: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> Tensor:
    """The standard Gumbel noise that the quantizers add to row row_offset + i and code k: the same on every
    device.

    g = -ln(-ln u), u = ((word >> 9) + 1/2) / 2**23, where word is number k mod 4 of Philox4x32-10 (Salmon et
    al., SC 2011) with the seed as key, low word first, and counter (k div 4, 0, n low, n high).

    Args:
        seed: int in [0, 2**64) or a 0-d int64 tensor.
        rows: at least 0.
        codes: from 1 to 2**24.
        row_offset: number of the first row, at least 0.
        device: PyTorch's default device if None.
        dtype: torch.float32 or torch.float64.
        backend: as for `gumbel_quantize`.

    Returns:
        (rows, codes), within 2e-6 * max(1, |g|) of the exact value in float32.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype or value.
        RuntimeError: a backend that cannot serve here.
    """
    rows = _arguments.check_count("rows", rows, 0)
    codes = _arguments.check_count("codes", codes, 1, _arguments.MOST_CODES)
    row_offset = _arguments.check_count("row_offset", row_offset, 0)
    target = _arguments.check_device(device)
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64, but was {dtype}")
    traced = autograd.is_traced(seed)
    checked_seed = _arguments.check_seed(seed, target, read=not traced)
    chosen = backends.choose(backend, target)
    return autograd.noise(chosen, checked_seed, rows, codes, row_offset, target, dtype, traced)


def _choose(name: str | None, device: torch.device, drawn: bool) -> backends.Backend:
    """The backend of this name, or the best one for the device.

    In a program that torch.export makes, it is the reference for a pass that draws nothing: such a program
    holds PyTorch's own operators alone, which ONNX knows, and runs where this package is not installed.
    """
    if name is None and not drawn and _is_exporting():
        return backends.get("reference")
    return backends.choose(name, device)


def _sample(input: Tensor, codebook: Tensor, given: _Given, backend: str | None) -> GumbelQuantized:
    """Check what the sampling functions have in common, make the call of it, and run the backend."""
    chosen, call, traced = _prepare(input, codebook, given, backend)
    return autograd.quantize(chosen, input, codebook, call, traced)


def _sample_vectors(logits: Tensor, embedding: Tensor, given: _Given, backend: str | None) -> GumbelQuantized:
    """The same for codes that are vectors."""
    wants = given[-1]
    dtype = compute_dtype(logits)
    wide, codebook = logits.to(dtype), _vectors.stand_in(embedding, dtype)
    asked = Wants(quantized=False, indices=True, kl=wants.kl, weights=True)
    chosen, call, traced = _prepare(wide, codebook, (*given[:-1], asked), backend)
    quantized, indices, kl, weights = _vectors.quantize(chosen, wide, codebook, embedding, call, traced)
    if not wants.weights or weights is None:
        return GumbelQuantized(quantized.to(logits.dtype), indices, kl, None)
    return GumbelQuantized(quantized.to(logits.dtype), indices, kl, weights.to(logits.dtype))


def _prepare(
    input: Tensor, codebook: Tensor, given: _Given, backend: str | None, temperature_name: str = "temperature"
) -> tuple[backends.Backend, Call, bool]:
    """The backend, the call, and whether what it is about is traced.

    temperature_name: the argument's, for messages.
    """
    estimator, is_logits, hard, temperature, seed, row_offset, wants = given
    _arguments.check_estimator(estimator)
    _arguments.check_flag("hard", hard)
    row_offset = _arguments.check_count("row_offset", row_offset, 0)
    chosen = _choose(backend, input.device, drawn=draws(wants))
    traced = autograd.is_traced(input, codebook, temperature, seed)
    temperature = _arguments.check_temperature(
        temperature, input.device, compute_dtype(input), read=not traced, name=temperature_name
    )
    if traced and isinstance(temperature, Tensor):
        for value in values_behind(temperature):
            _arguments.check_temperature_value(value, compute_dtype(input), temperature_name)
    if seed is not None:
        seed = _arguments.check_seed(seed, input.device, read=not traced)
    elif traced:
        _arguments.check_seed_may_be_drawn()
        seed = _operators.draw_seed(input.device)
    else:
        seed = draw_seed(input)
    return chosen, Call(estimator, is_logits, hard, temperature, seed, row_offset, wants), traced
