"""`python -m fqvae_kernels`: what was built, what serves on this machine, and why the rest does not."""

from __future__ import annotations

import platform

import torch

import fqvae_kernels
from fqvae_kernels import backends
from fqvae_kernels.backends import cpu


def main() -> None:
    """Print the report."""
    _line("fqvae_kernels", fqvae_kernels.__version__)
    _line("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    _line("torch", str(torch.__version__))
    _line("threads", f"{torch.get_num_threads()} (torch.get_num_threads())")
    print("\nbackends, best first")
    for name in backends.NAMES:
        reason = backends.unavailable_reason(name)
        _line(f"  {name}", "available" if reason is None else f"not available: {reason}")
    for index in range(torch.cuda.device_count()):
        _describe_gpu(torch.device("cuda", index))
    if cpu.unavailable_reason(None) is None:
        _describe_native()


def _describe_gpu(device: torch.device) -> None:
    major, minor = torch.cuda.get_device_capability(device)
    print(f"\n{device}: {torch.cuda.get_device_name(device)}, compute capability {major}.{minor}")
    _line("  backend=None takes", backends.choose(None, device).name)
    for name in backends.candidates("cuda"):
        reason = backends.unavailable_reason(name, device)
        if reason is not None:
            _line(f"  {name}", f"not available: {reason}")


def _describe_native() -> None:
    native = cpu.native()
    print("\nnative extension")
    _line("  file", str(native.__file__))
    _line(
        "  instruction set",
        f"{native.instruction_set()} (this processor runs {_join(native.instruction_sets())})",
    )
    _line("  threading", native.threading_runtime())
    for key, value in native.build_info().items():
        _line(
            f"  {str(key).replace('_', ' ')}", _join(value) if isinstance(value, list | tuple) else str(value)
        )


def _join(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(map(str, names))


def _line(label: str, text: str) -> None:
    print(f"{label:<20} {text}")


if __name__ == "__main__":
    main()
