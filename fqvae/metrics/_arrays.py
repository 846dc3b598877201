"""What comes in: arrays of NumPy or torch are checked, and become NumPy arrays of int64 or float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[Any] | Tensor
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

_LARGEST = float(np.finfo(np.float32).max)  # scikit-learn's trees read float32


def read_codes(name: str, codes: Array, *, discrete: bool, samples: int = 2) -> NDArray[Any]:
    """Codes (samples, latents): int64 if discrete, float64 otherwise.

    Args:
        name: of the argument, for the errors.
        codes: integers of at least 0 if discrete; finite numbers otherwise.
        samples: the fewest that will do.

    Raises:
        TypeError, ValueError: codes are not so.
    """
    array = _table(name, codes, samples, "latents")
    if discrete:
        return _indices(name, array)
    array = array.astype(np.float64)
    wrong = array[~(np.abs(array) <= _LARGEST)]
    if wrong.size:
        raise ValueError(f"{name} must be finite and in the range of float32, but held {wrong[0]}")
    return array


def read_factors(name: str, factors: Array, *, samples: int = 2) -> Ints:
    """Factors of variation, int64 (samples, factors) of at least 0; arguments and errors as `read_codes`."""
    return _indices(name, _table(name, factors, samples, "factors"))


def read_pair(
    codes: Array, factors: Array, *, discrete: bool, suffix: str = "", samples: int = 2
) -> tuple[NDArray[Any], Ints]:
    """Codes and factors of the same samples. suffix: of the arguments' names, for the errors."""
    read = read_codes(f"codes{suffix}", codes, discrete=discrete, samples=samples)
    labels = read_factors(f"factors{suffix}", factors, samples=samples)
    if len(read) != len(labels):
        raise ValueError(
            f"codes{suffix} and factors{suffix} must have the same number of samples, "
            f"but had {len(read)} and {len(labels)}"
        )
    return read, labels


def read_split(
    codes_train: Array, factors_train: Array, codes_test: Array, factors_test: Array, *, discrete: bool
) -> tuple[NDArray[Any], Ints, NDArray[Any], Ints]:
    """Training and test samples of the same latents and factors; one test sample will do."""
    codes, factors = read_pair(codes_train, factors_train, discrete=discrete, suffix="_train")
    tests, labels = read_pair(codes_test, factors_test, discrete=discrete, suffix="_test", samples=1)
    for name, first, second in (("codes", codes, tests), ("factors", factors, labels)):
        if first.shape[1] != second.shape[1]:
            raise ValueError(
                f"{name}_train and {name}_test must have the same number of columns, "
                f"but had {first.shape[1]} and {second.shape[1]}"
            )
    return codes, factors, tests, labels


def check_count(name: str, value: int, least: int) -> None:
    """Raises TypeError, ValueError unless the value is an int of at least so much."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, but was {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, but was {value}")


def check_seed(seed: int) -> None:
    """Raises TypeError, ValueError unless the seed is an int in [0, 2**32), scikit-learn's range."""
    check_count("seed", seed, 0)
    if seed >= 2**32:
        raise ValueError(f"seed must be below 2**32, but was {seed}")


def check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Raises ValueError unless the value is one of the known."""
    if value not in known:
        raise ValueError(f"{name} must be one of {tuple(known)}, but was {value!r}")


def varying(table: NDArray[Any]) -> NDArray[np.bool_]:
    """Which columns hold more than one value, bool (columns,)."""
    differs: NDArray[np.bool_] = (table != table[:1]).any(0)
    return differs


def labels_of(column: NDArray[Any]) -> Ints:
    """The values of a column (samples,) numbered by their order, int64 (samples,)."""
    return np.unique(column, return_inverse=True)[1].reshape(-1).astype(np.int64, copy=False)


def standardised(codes: Floats, other: Floats | None = None) -> Floats:
    """The columns of codes that vary, shifted and scaled to mean 0 and standard deviation 1.

    Args:
        codes: (samples, latents).
        other: (more samples, latents); if given, these are returned, shifted and scaled in the same way.
    """
    varies = varying(codes)
    codes = codes[:, varies]
    low, high = codes.min(0), codes.max(0)
    # First to [0, 1]: the squares of very small numbers would underflow.
    codes = (codes - low) / (high - low)
    result = codes if other is None else (other[:, varies] - low) / (high - low)
    scaled: Floats = (result - codes.mean(0)) / codes.std(0)
    return scaled


def binned(codes: NDArray[Any], bins: int) -> Ints:
    """Each column cut into equal intervals between its extremes, int64 in [0, bins)."""
    low, high = codes.min(0), codes.max(0)
    width = np.where(high > low, high - low, 1.0)
    numbers: Ints = np.minimum((codes - low) / width * bins, bins - 1).astype(np.int64)
    return numbers


def _table(name: str, value: Array, samples: int, columns: str) -> NDArray[Any]:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        array = (value.double() if value.dtype == torch.bfloat16 else value).numpy()
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name} must be an array of shape (samples, {columns}): {error}") from error
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise TypeError(f"{name} must hold numbers, but was of {array.dtype}")
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name} must be of shape (samples, {columns}), but was of shape {array.shape}")
    if len(array) < samples:
        raise ValueError(f"{name} must have at least {samples} samples, but had {len(array)}")
    return array


def _indices(name: str, array: NDArray[Any]) -> Ints:
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} must hold integers, but was of {array.dtype}")
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int64).max):
        wrong = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"{name} must be at least 0 and below 2**63, but held {wrong}")
    return array.astype(np.int64, copy=False)
