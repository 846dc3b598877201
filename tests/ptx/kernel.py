"""A kernel that can be launched, and what a launch reports."""

import ctypes
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .arguments import extent_and_access, extents, is_array, parameter_bytes
from .compile import shared_library
from .parse import PtxError, parse
from .translate import Translation, line_of, translate

_ALIGNMENT = 64


@dataclass(frozen=True)
class Stats:
    """What a launch did, counted over all threads.

    instructions: executed, those that a predicate switched off included.
    collectives: shuffles, votes and the like, bar.warp.sync among them; each counts once for all its lanes.
    barriers: of a block; each counts once.
    races, race: accesses that nothing orders with an earlier one, and the first of them in words (empty for
    none, and without race=True).
    barriers_with_exited, collectives_with_exited: those that a thread missed because it had exited.
    """

    instructions: int
    collectives: int
    barriers: int
    races: int
    race: str
    barriers_with_exited: int
    collectives_with_exited: int


class _Range(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64), ("writable", ctypes.c_uint32)]


class _Options(ctypes.Structure):
    _fields_ = [
        ("race", ctypes.c_uint32),
        ("order", ctypes.c_uint32),
        ("seed", ctypes.c_uint64),
        ("jitter", ctypes.c_double),
    ]


_COUNTERS = (
    "instructions",
    "collectives",
    "barriers",
    "races",
    "barriers_with_exited",
    "collectives_with_exited",
)


class _Counters(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in _COUNTERS]


class _LaunchArguments(ctypes.Structure):  # the same as in runtime/launch.h
    _fields_ = [
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_shared", ctypes.c_uint32),
        ("params_size", ctypes.c_uint32),
        ("params", ctypes.c_void_p),
        ("stack_size", ctypes.c_uint64),
        ("ranges", ctypes.POINTER(_Range)),
        ("range_count", ctypes.c_uint64),
        ("options", _Options),
        ("counters", _Counters),
        ("message", ctypes.c_char * 4096),
    ]


class Kernel:
    """A compiled kernel. Call it to launch it; name is its name in the PTX, parameters how many it takes."""

    def __init__(self, name: str, translation: Translation):
        self.name = name
        self._translation = translation
        # PyDLL keeps the interpreter's lock: a library's launches share its state, so there is one at a time.
        self._run = ctypes.PyDLL(str(shared_library(translation.source))).run
        self._run.argtypes = [ctypes.POINTER(_LaunchArguments)]
        self._run.restype = ctypes.c_bool

    @property
    def parameters(self) -> int:
        return len(self._translation.parameters)

    def __call__(
        self,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[Any],
        shared: int = 0,
        *,
        race: bool = False,
        order: int = 0,
        seed: int = 1,
        jitter: float = 0,
        buffers: Iterable[Any] = (),
    ) -> Stats:
        """Runs all threads of all blocks.

        grid, block: one to three extents.
        args: for a pointer a NumPy array or a CPU tensor, a pair (array, writable), or None; ints, floats and
        bools; bytes for a struct passed by value. Views may have strides. Read-only NumPy arrays stay so.
        shared: bytes of dynamic shared memory.
        race: whether to look for races.
        order: 0 threads, warps and blocks in order, 1 the other way round, 2 by chance.
        seed: of that chance and of the jitter.
        jitter: moves the result of every approximate instruction by up to so many times its documented error
        (runtime/approximate.h); 0 computes them better than hardware does.
        buffers: further arrays, or pairs as above, that pointers within structs lead to.

        Raises PtxError, with the line of PTX, for accesses out of bounds, misaligned or to a read-only array,
        a deadlock, an endless loop, a shuffle from a lane that takes no part; ValueError or TypeError for
        arguments that do not fit.
        """
        launch = _LaunchArguments()
        launch.grid[:] = extents("grid", grid, 2**31 - 1)
        launch.block[:] = extents("block", block, 1024)
        self._check_block(math.prod(launch.block))
        if shared < 0:
            raise ValueError(f"shared must not be negative, got {shared}")
        if order not in (0, 1, 2):
            raise ValueError(f"order must be 0, 1 or 2, got {order}")
        launch.dynamic_shared = shared
        launch.stack_size = -(-self._translation.stack_size // 4096) * 4096
        memory = [extent_and_access(value) for value in (*filter(is_array, args), *buffers)]
        launch.ranges = (_Range * len(memory))(*(_Range(*each) for each in memory))
        launch.range_count = len(memory)
        params = parameter_bytes(self.name, self._translation.parameters, args)
        # On the GPU parameters lie at addresses that are multiples of all their alignments.
        place = ctypes.create_string_buffer(len(params) + _ALIGNMENT)
        launch.params = -(-ctypes.addressof(place) // _ALIGNMENT) * _ALIGNMENT
        launch.params_size = len(params)
        ctypes.memmove(launch.params, params, len(params))
        launch.options = _Options(race, order, seed % 2**64, float(jitter))
        complete = self._run(ctypes.byref(launch))
        message = line_of(self._translation, launch.message.decode())
        if not complete:
            raise PtxError(f"{self.name}: {message}")
        return Stats(race=message, **{name: getattr(launch.counters, name) for name in _COUNTERS})

    def _check_block(self, threads: int) -> None:
        """Against what the kernel was compiled for."""
        for directive, fits in (("maxntid", operator.le), ("reqntid", operator.eq)):
            allowed = self._translation.directives.get(directive)
            if allowed and not fits(threads, math.prod(allowed)):
                raise ValueError(f"block has {threads} threads; the kernel says .{directive} {allowed}")


def load(ptx_text: str, name: str | None = None) -> Kernel:
    """Compiles a kernel of a PTX module for the CPU; only it and what it calls is looked at.

    name: the kernel's in the PTX (mangled, if C++), or a part that only it has; None if there is only one.
    Raises PtxError, with the line, for PTX that is not supported, ValueError if the name does not say which.
    """
    module = parse(ptx_text)
    found = [kernel for kernel in module.kernels if name in (None, kernel)]
    found = found or [kernel for kernel in module.kernels if str(name) in kernel]
    if len(found) != 1:
        raise ValueError(
            f"name {name!r} is not that of one kernel; the module has {', '.join(module.kernels)}"
        )
    return Kernel(found[0], translate(module, found[0]))
