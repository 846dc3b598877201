"""The codes of a quantizer: their values, how they start, and the precision that tells them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from fqvae_kernels import _arguments
from fqvae_kernels._quantizer.capacity import capacity
from fqvae_kernels._quantizer.capture import happens_once, warn_left_out
from fqvae_kernels._quantizer.checks import check_float
from fqvae_kernels._quantizer.levels import code_places, initial, linspace, own_codes
from fqvae_kernels._quantizer.logarithm import Logarithmic, read
from fqvae_kernels._quantizer.losses import compute_dtype
from fqvae_kernels._quantizer.precision import Factor, check_precision
from fqvae_kernels._quantizer.start import DataStart, starting_codes
from fqvae_kernels._tensors import empty_whole, put, whole

_INITS = ("normal", "uniform", "linspace", "data")
# The least step between sorted codes at the start. A step of 0 could never grow.
_LEAST_STEP = 1e-6


class Codebook(Logarithmic):
    """The part of a `ScalarQuantizer` that holds its codes; the arguments are described there.

    Parameters: `codebook`, (K,), or (L, K) for several codebooks. With levels K is the largest of them, and
    what lies beyond a latent's own level is never read and gets no gradient. Where the codes are sorted
    `codebook_steps`, of the same shape, takes its place, and `codebook` is computed from it, differentiable
    and in increasing order. Where precision is learned, `log_precision`, (num_codebooks,).
    """

    codebook: Tensor
    codebook_steps: torch.nn.Parameter
    log_precision: torch.nn.Parameter
    given_precision: Tensor
    code_places: Tensor
    data_start: DataStart | None

    def __init__(
        self,
        codebook_size: int,
        num_codebooks: int,
        init: str | Tensor,
        init_scale: float,
        sorted: bool,
        precision: float | Sequence[float] | Tensor,
        learn_precision: bool,
        levels: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.codebook_size = _arguments.check_count("codebook_size", codebook_size, 1)
        self.num_codebooks = _arguments.check_count("num_codebooks", num_codebooks, 1)
        several = self.num_codebooks > 1
        shape = (self.num_codebooks, self.codebook_size) if several else (self.codebook_size,)
        self.init, self.init_scale = _check_init(init, init_scale, shape)
        _arguments.check_flag("sorted", sorted)
        self.sorted = sorted
        name = "codebook_steps" if sorted else "codebook"
        self.register_parameter(name, torch.nn.Parameter(torch.empty(shape)))
        if levels is not None:
            # Made from what whoever loads a state_dict has given too.
            places = code_places(levels).to(getattr(self, name).device)
            self.register_buffer("code_places", places, persistent=False)
        # None is kept as a plain attribute, which costs a call nothing to ask.
        self.data_start = DataStart(self.num_codebooks) if init == "data" else None
        self._set_precision(precision, learn_precision)
        self.reset_parameters()

    def __getattr__(self, name: str) -> Any:
        # No property: DataParallel and others put a tensor in the place of the Parameter.
        if name == "codebook" and self.__dict__.get("sorted", False):
            return _increasing(whole(self.codebook_steps))
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("codebook", "codebook_steps") and hasattr(value, "full_tensor"):
            self.__dict__["_is_sharded"] = True  # so FSDP2 puts a rank's part in place of a Parameter
        super().__setattr__(name, value)

    @property
    def precision(self) -> float | Tensor:
        """s in the distances s (z - m)**2: a float, or (num_codebooks,) or 0-d where it is learned."""
        if self._precision is not None:
            return self._precision
        return read(self.log_precision).exp() if self.learn_precision else self.given_precision

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the codes as `init`, `init_scale` and `sorted` say, and a learned precision as it was given.

        Where FSDP2 has sharded the parameters it is a collective call, and all ranks get the codes of rank 0.
        """
        self._restore_given()
        self._put_codes(self._initial_codes())
        if self.data_start is not None:
            self.data_start.reset()
        if self.learn_precision:
            given = torch.tensor(self._precisions, dtype=self.given_precision.dtype, device="cpu")
            put(given.log().expand(self.num_codebooks), self.log_precision)

    def init_from(self, z: Tensor) -> None:
        """Set the codes to quantiles of z, as init="data" does with the first batch in training.

        Code k of K becomes the quantile (k + 1/2) / K of the codebook's finite values, times init_scale. A
        codebook keeps its codes if it has no finite value, or if its K > 1 quantiles are all the same. Where
        torch.distributed is initialised it is a collective call, and codes come from all ranks' z.

        z: as for a call. Raises TypeError and ValueError, as a call.
        """
        self._start_codes(z, None)

    def _own_codebook(self, codebook: Tensor) -> Tensor:
        """What to quantize with of a codebook that has levels: without what lies beyond them."""
        return own_codes(codebook, self.code_places)

    def capacity(self) -> Tensor:
        """The bits that one scalar can carry at the present codebook and precision.

        That is the capacity of the channel from z to an index drawn from the posterior
        softmax(-precision (z - codes)**2): the largest mutual information over all distributions of z, which
        may go 50 / sqrt(precision) beyond the outermost codes. The spread of the codes times sqrt(precision)
        decides it; temperature does not enter, since it leaves the index alone. N(0, 1) codes at precision 1
        carry 1.78 bits for K = 32, 1.87 for K = 64 and 1.95 for K = 128, whatever the temperature is; codes
        that are equal carry 0, and K codes far apart log2(K).

        Returns float64 on the CPU without a gradient: 0-d for one codebook, (num_codebooks,) for several, NaN
        for a codebook with a code that is not finite. It is found by the Blahut-Arimoto iteration, within
        2e-4 bits, which takes some tenths of a second for each codebook.
        """
        with torch.no_grad():
            books = whole(self.codebook).detach().reshape(-1, self.codebook_size).double().cpu()
            precision = torch.as_tensor(self.precision, device="cpu").detach().double()
            levels = [self.codebook_size] * len(books) if self.levels is None else self.levels
            values = [
                capacity(book[:size], float(s))
                for book, size, s in zip(books, levels, precision.expand(len(books)), strict=True)
            ]
        found = torch.tensor(values, dtype=torch.float64, device="cpu")
        return found if self.num_codebooks > 1 else found[0]

    def _start_if_waiting(self, z: Tensor, start: DataStart) -> None:
        """Let the codebooks that have not started yet start from a batch of training."""
        happens = self.training and isinstance(z, Tensor) and happens_once(z.detach())
        if happens and start.is_waiting():
            self._check_codes_last("init must not be 'data'")
            self._start_codes(z, start.done)
            start.is_waiting()  # which programs that are made later ask
        elif self.training and torch.compiler.is_compiling() and start.may_wait:
            warn_left_out("init='data'")

    def _check_codes_last(self, wrong: str) -> None:
        """Raise RuntimeError where codes that a forward pass sets would be lost."""
        if self.__dict__.get("_is_sharded", False):
            raise RuntimeError(
                f"{wrong} under FSDP2: a forward pass there works on a copy of the codes, so that what it "
                "sets is lost. Let init_from(z) set the codes before the training"
            )

    @torch.no_grad()
    def _start_codes(self, z: Tensor, done: Tensor | None) -> None:
        """Let codebooks start from z, but those that are done, (num_codebooks,)."""
        present = whole(self.codebook).detach()
        _arguments.check_scalars(z, present)
        values = z.detach().to(compute_dtype(z))
        found = self.init_scale * self._quantiles(values)
        known = found.isfinite().all(-1)
        if done is not None:
            known &= ~done.bool()
        codes = torch.where(known.unsqueeze(-1), found.to(present.dtype), present.reshape(found.shape))
        self._put_codes(codes.reshape(present.shape))
        if self.data_start is not None:
            self.data_start.done |= known

    def _quantiles(self, values: Tensor) -> Tensor:
        """(num_codebooks, K), as many of each codebook as it has codes; then 0."""
        if self.levels is None:
            return starting_codes(values, self.num_codebooks, self.codebook_size)
        found = values.new_zeros(self.num_codebooks, self.codebook_size)
        for size in sorted(set(self.levels)):
            own = starting_codes(values, self.num_codebooks, size)
            for latent, level in enumerate(self.levels):
                if level == size:
                    found[latent, :size] = own[latent]
        return found

    def _put_codes(self, codes: Tensor) -> None:
        if self.levels is not None:
            codes = initial(codes, self.code_places, self.sorted)
        if self.sorted:
            self._write("codebook_steps", _steps(codes.sort(-1).values))
        else:
            self._write("codebook", codes)

    def _write(self, name: str, values: Tensor) -> None:
        """Set a parameter's values, also one that torch.nn.utils.parametrize computes from another."""
        if is_parametrized(self, name):
            setattr(self, name, values)  # by its right_inverse
        else:
            put(values, getattr(self, name))

    def _may_start(self) -> bool:
        """Whether a later call may set the codes in place."""
        return self.data_start is not None and self.data_start.may_wait

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        applied = super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]
        self._restore_given()
        return applied

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self._restore_given()
        codes = prefix + ("codebook_steps" if self.sorted else "codebook")
        tells = prefix + "data_start.done" in state_dict
        if self.data_start is not None and codes in state_dict and not tells:
            self.data_start.finish()  # codes that come from elsewhere do not start again

    @torch.no_grad()
    def _restore_given(self) -> None:
        """Fill the buffers that no state_dict holds, which come empty from the device "meta"."""
        given: dict[str, Tensor] = {}
        if self.levels is not None:
            given["code_places"] = code_places(self.levels)
        if self._precision is None:
            shape = self.given_precision.shape
            values = torch.tensor(self._precisions, dtype=torch.float64, device="cpu")
            given["given_precision"] = values.reshape(shape)
        device = (self.codebook_steps if self.sorted else self.codebook).device
        for name, values in given.items():
            buffer = getattr(self, name)
            if buffer.is_meta and device.type != "meta":
                buffer = torch.empty_like(buffer, device=device)
                setattr(self, name, buffer)
            if not buffer.is_meta:
                buffer.copy_(values)

    def _distance_factor(self, dtype: torch.dtype) -> Factor | None:
        """The square root of the precision in dtype, (num_codebooks,) or 0-d; None where it is fixed at 1."""
        if self._precision is not None:
            return None if self._precision == 1.0 else math.sqrt(self._precision)
        if self.learn_precision:
            return (0.5 * read(self.log_precision).to(dtype)).exp()
        return self.given_precision.to(dtype).sqrt()

    def _set_precision(self, precision: float | Sequence[float] | Tensor, learn: bool) -> None:
        checked = check_precision(precision, self.num_codebooks)
        _arguments.check_flag("learn_precision", learn)
        self.learn_precision = learn
        # A single value that is fixed stays a number, which needs neither a device nor memory.
        self._precision = None if learn or isinstance(checked, Tensor) else checked
        if self._precision is not None:
            return
        values = torch.as_tensor(checked, dtype=torch.get_default_dtype())
        values = values.expand(self.num_codebooks).clone() if self.num_codebooks > 1 else values.reshape(())
        each = checked.tolist() if isinstance(checked, Tensor) else [checked] * self.num_codebooks
        self._precisions: list[float] = each
        # A setting like the others, which whoever loads a state_dict has given too.
        self.register_buffer("given_precision", values, persistent=False)
        if learn:
            self.log_precision = torch.nn.Parameter(values.log().reshape(self.num_codebooks))

    def _initial_codes(self) -> Tensor:
        """The codes that `init` and `init_scale` name, whole, in dtype and on device of the parameter."""
        codes = empty_whole(self.codebook_steps if self.sorted else self.codebook)
        if isinstance(self.init, Tensor):
            return codes.copy_(self.init)
        if self.init in ("normal", "data"):
            codes.normal_()
        elif self.init == "uniform":
            codes.uniform_(-0.5, 0.5)
        else:
            even = torch.linspace(-0.5, 0.5, self.codebook_size, device="cpu")
            codes.copy_(even if self.levels is None else linspace(self.levels))
        return codes if self.init_scale == 1.0 else codes.mul_(self.init_scale)


def codes_at(codebook: Tensor, indices: Tensor) -> Tensor:
    """The codes at indices of any shape for a codebook (K,), and of shape (..., L) for (L, K)."""
    codebook = whole(codebook)
    if codebook.dim() == 1:
        return codebook.index_select(0, indices.reshape(-1)).reshape(indices.shape)
    columns = indices.reshape(-1, codebook.shape[0])
    return codebook.gather(1, columns.T).T.reshape(indices.shape)


def _increasing(steps: Tensor) -> Tensor:
    """The first code as it is, each other one by the softplus of its step above the one before."""
    positive = torch.nn.functional.softplus(steps[..., 1:])
    return torch.cat((steps[..., :1], positive), -1).cumsum(-1)


def _steps(codes: Tensor) -> Tensor:
    """What `_increasing` makes the codes of, which are in increasing order, possibly equal."""
    step = codes.double().diff(dim=-1).clamp(min=_LEAST_STEP)
    # The inverse of softplus, ln(e**x - 1), without overflow.
    return torch.cat((codes[..., :1].double(), step + (-torch.expm1(-step)).log()), -1).to(codes.dtype)


def _check_init(init: str | Tensor, init_scale: float, shape: tuple[int, ...]) -> tuple[str | Tensor, float]:
    scale = check_float("init_scale", init_scale)
    if scale == 0:
        raise ValueError("init_scale must be greater than 0, but was 0")
    if isinstance(init, Tensor):
        if init.shape not in (shape, shape[-1:]) or not init.is_floating_point():
            raise ValueError(
                f"init as a tensor must be floating point of shape {shape} or {shape[-1:]}, but "
                f"was {init.dtype} of shape {tuple(init.shape)}"
            )
        if not init.is_meta and not init.isfinite().all():
            raise ValueError("init as a tensor must be finite, but holds NaN or infinity")
        if scale != 1:
            raise ValueError(f"init_scale must be 1 where init is a tensor, but was {scale}")
        return init.detach().clone(), scale
    if not isinstance(init, str):
        names = ", ".join(map(repr, _INITS))
        raise TypeError(f"init must be a tensor or one of {names}, but was of type {type(init).__name__}")
    if init not in _INITS:
        raise ValueError(f"init must be a tensor or one of {', '.join(map(repr, _INITS))}, but was {init!r}")
    return init, scale
