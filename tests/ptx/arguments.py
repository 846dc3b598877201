"""What a launch is given, as the bytes of a kernel's parameters and as extents of memory."""

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from .parse import Parameter

# Triton appends pointers to scratch memory to a kernel's parameters; they may be left out of a launch.
_TRAILING_POINTERS = 2


def extents(name: str, given: int | Sequence[int], limit: int) -> tuple[int, int, int]:
    """A grid or block as three numbers."""
    known = (int(given),) if isinstance(given, int | np.integer) else tuple(map(int, given))
    if not 1 <= len(known) <= 3 or min(known) < 1 or math.prod(known) > limit:
        raise ValueError(
            f"{name} must be one to three positive extents with product at most {limit}, got {given}"
        )
    first, second, third = (*known, 1, 1)[:3]
    return first, second, third


def is_array(value: Any) -> bool:
    """Whether it is a NumPy array, a tensor, or a pair of one and whether it may be written."""
    return isinstance(value, np.ndarray | tuple) or hasattr(value, "data_ptr")


def _array(value: Any) -> Any:
    array = value[0] if isinstance(value, tuple) else value
    if not isinstance(array, np.ndarray) and not hasattr(array, "data_ptr"):
        raise TypeError(f"a NumPy array or a tensor expected, got {type(array).__name__}")
    if not isinstance(array, np.ndarray) and array.device.type != "cpu":
        raise TypeError(f"a CPU tensor expected, got one on {array.device}")
    return array


def _address(array: Any) -> int:
    """Of the first element."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data_ptr())


def extent_and_access(value: Any) -> tuple[int, int, bool]:
    """The first address that elements lie at, the one past the last, and whether they may be written.

    Strides may leave holes, which belong to the extent.
    """
    array = _array(value)
    low = high = _address(array)
    writable = True
    if isinstance(array, np.ndarray):
        itemsize, strides, writable = array.itemsize, array.strides, array.flags.writeable
    else:
        itemsize = array.element_size()
        strides = tuple(stride * itemsize for stride in array.stride())
    if isinstance(value, tuple):
        writable = value[1]
    if 0 in array.shape:
        return low, low, writable
    for extent, stride in zip(array.shape, strides, strict=True):
        low += min(0, (extent - 1) * stride)
        high += max(0, (extent - 1) * stride)
    return low, high + itemsize, writable


def parameter_bytes(kernel: str, parameters: Sequence[Parameter], args: Sequence[Any]) -> bytes:
    """The arguments, each at its parameter's offset. Raises ValueError or TypeError for what does not fit."""
    missing = parameters[len(args) :]
    left_out = len(missing) <= _TRAILING_POINTERS and all(parameter.size == 8 for parameter in missing)
    if len(args) > len(parameters) or not left_out:
        raise ValueError(f"{kernel} takes {len(parameters)} arguments, got {len(args)}")
    data = bytearray(parameters[-1].offset + parameters[-1].size if parameters else 0)
    for i, (value, parameter) in enumerate(zip(args, parameters, strict=False)):
        given = _address(_array(value)) if is_array(value) else value
        packed = _packed(f"argument {i}", given, parameter)
        data[parameter.offset : parameter.offset + parameter.size] = packed
    return bytes(data)


def _packed(name: str, value: Any, parameter: Parameter) -> bytes:
    size = parameter.size
    if isinstance(value, bytes):
        if len(value) != size:
            raise ValueError(f"{name} has {len(value)} bytes; the parameter has {size}")
        return value
    if not isinstance(value, int | float | np.integer | np.floating | None):
        raise TypeError(f"{name} must be an array, a number or bytes, got {type(value).__name__}")
    if isinstance(value, float | np.floating) or parameter.type in ("f32", "f64"):
        if size not in (4, 8):
            raise TypeError(f"{name} is {value!r}; the parameter has {size} bytes")
        return struct.pack("<f" if size == 4 else "<d", value)
    number = int(value or 0)
    if not -(1 << (8 * size - 1)) <= number < 1 << 8 * size:
        raise ValueError(f"{name} is {number}; the parameter has {size} bytes")
    return (number % (1 << 8 * size)).to_bytes(size, "little")
