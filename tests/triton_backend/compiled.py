"""The backend's launcher for compiled kernels on the CPU: Triton's PTX, run by tests/ptx."""

import atexit
import ctypes
import functools
import hashlib
import inspect
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ptx import load

import fqvae_kernels
from fqvae_kernels.backends._triton.launch import THREADS, compile_options

TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
SCALARS = {"tl.int32": "i32", "tl.int64": "i64", "tl.float64": "fp64"}


def cache_folder() -> pathlib.Path:
    """FQVAE_PTX_CACHE, or a folder among the temporary files."""
    default = pathlib.Path(tempfile.gettempdir()) / f"fqvae-ptx-{os.getuid()}"
    path = pathlib.Path(os.environ.get("FQVAE_PTX_CACHE") or default)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@functools.cache
def _sources() -> str:
    """What compiled code depends on besides the request."""
    import triton

    folder = pathlib.Path(fqvae_kernels.__file__).parent / "backends" / "_triton"
    script = pathlib.Path(__file__).parent / "compile_kernels.py"
    texts = [path.read_text() for path in (*sorted(folder.glob("*.py")), script)]
    return "\0".join([triton.__version__, *texts])


@functools.cache
def _compiler(edits: tuple[str, ...]) -> subprocess.Popen:
    script = pathlib.Path(__file__).parent / "compile_kernels.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    package = str(pathlib.Path(fqvae_kernels.__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package, environment.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, str(script), *edits],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    atexit.register(process.communicate)  # which closes its input, and so ends it
    return process


@functools.cache
def _compiled(request: str, edits: tuple[str, ...]) -> dict:
    key = hashlib.sha256(f"{_sources()}\0{request}\0{edits}".encode()).hexdigest()
    path = cache_folder() / f"triton-{key}.json"
    if path.exists():
        return json.loads(path.read_text())
    process = _compiler(edits)
    process.stdin.write(request + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    result = json.loads(answer)
    if "error" in result:
        raise RuntimeError(f"{request}\n{result['error']}")
    written = path.with_suffix(f".{os.getpid()}")
    written.write_text(answer)
    written.replace(path)
    return result


def compile_kernel(
    kernel: Any, arguments: dict[str, Any], arch: int | str, edits: tuple[str, ...] = ()
) -> dict:
    """PTX, bytes of shared memory, registers and bytes of stack of a kernel as these arguments call it.

    edits: "module.function=other" puts another function of that module of kernels in the place of one, and
    "hip" has it compiled for a GPU of AMD, whose name is arch: see compile_kernels.py.
    """
    types, constants = {}, {}
    for name, parameter in inspect.signature(kernel.fn).parameters.items():
        value = arguments.get(name)
        if value is None or parameter.annotation == "tl.constexpr":
            types[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            types[name] = TYPES[value.dtype]
        else:
            types[name] = SCALARS[parameter.annotation]
    module = kernel.fn.__module__.rpartition(".")[2]
    request = {"kernel": f"{module}.{kernel.fn.__name__}", "types": types, "constants": constants}
    request |= {"arch": arch, "options": compile_options(arguments)}
    return _compiled(json.dumps(request, sort_keys=True), edits)


def at_addresses(arguments: dict[str, Any]) -> list[tuple[np.ndarray, bool]]:
    """What the addresses among the arguments lead to, which is only read: see backends/triton.py."""
    sizes = {
        "seed_address": 8,
        "temperature_address": (0, 8, 4, 2, 2)[arguments.get("temperature_type", 0)],
    }
    return [
        (np.frombuffer((ctypes.c_char * size).from_address(arguments[name]), np.uint8), False)
        for name, size in sizes.items()
        if arguments.get(name, 0) != 0
    ]


@functools.cache
def _loaded(ptx: str, name: str):
    return load(ptx, name)


@dataclass
class PtxLauncher:
    """A launcher that runs PTX, looks for races and moves approximate instructions by their errors.

    order: 0 threads in order, 1 the other way round, 2 by chance. jitter: how many times its documented error
    each approximate instruction is moved. edits: see compile_kernel. ran: the kernels run so far.
    """

    order: int = 0
    jitter: float = 0.0
    seed: int = 1
    arch: int = 90
    edits: tuple[str, ...] = ()
    race: bool = True
    ran: list[str] = field(default_factory=list)

    def __call__(self, kernel: Any, programs: int, arguments: dict[str, Any]) -> None:
        compiled = compile_kernel(kernel, arguments, self.arch, self.edits)
        name = kernel.fn.__name__
        given = [
            arguments[parameter]
            for parameter, about in inspect.signature(kernel.fn).parameters.items()
            if about.annotation != "tl.constexpr" and arguments.get(parameter) is not None
        ]
        stats = _loaded(compiled["ptx"], name)(
            programs,
            THREADS,
            given,
            compiled["shared"],
            race=self.race,
            order=self.order,
            seed=self.seed,
            jitter=self.jitter,
            buffers=at_addresses(arguments),
        )
        assert stats.races == 0, f"{name}: {stats.race}"
        assert stats.barriers_with_exited == stats.collectives_with_exited == 0, name
        self.ran.append(name)
