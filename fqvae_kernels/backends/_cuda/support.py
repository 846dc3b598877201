"""Whether the extension's kernels run on a GPU, told from version numbers: no context is made to find out."""

from __future__ import annotations


def why_unsupported(driver: int, toolkit: int, architectures: str, capability: tuple[int, int]) -> str | None:
    """Why the kernels cannot run, or None.

    Machine code runs on GPUs of its major compute capability from its minor one on, under any driver of the
    toolkit's major release or a later one. PTX runs on every later GPU, but only a driver at least as new as
    the toolkit compiles it.

    Args:
        driver: the newest CUDA that the driver knows, 13000 for 13.0; 0 where there is no driver.
        toolkit: the CUDA that the kernels were compiled with.
        architectures: of the build, as CMake writes them: "80-real 90-real 90-virtual".
        capability: of the GPU, (9, 0) for an H100.
    """
    if driver == 0:
        return "there is no CUDA driver on this machine"
    made = f"the extension was built with CUDA {_version(toolkit)}"
    if driver // 1000 < toolkit // 1000:
        return f"{made}, and the driver knows CUDA {_version(driver)}: update it, or build with that CUDA"
    code, ptx = _compiled_for(architectures)
    if any(major == capability[0] and minor <= capability[1] for major, minor in code):
        return None
    gpu, advice = _dotted(capability), f"build with FQVAE_CUDA_ARCHS={capability[0]}{capability[1]}"
    if not any(version <= capability for version in ptx):
        has = ", ".join(map(_dotted, sorted(code | ptx)))
        return f"the extension was built for compute capability {has}, and this GPU has {gpu}: {advice}"
    if driver < toolkit:
        return (
            f"{made} and holds only PTX for compute capability {gpu}, which a driver that knows CUDA "
            f"{_version(driver)} cannot compile: update it, or {advice}"
        )
    return None


def _compiled_for(architectures: str) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """The compute capabilities that there is machine code for, and those that there is PTX for."""
    code, ptx = set(), set()
    for word in architectures.split():
        number, _, kind = word.partition("-")
        capability = divmod(int(number), 10)
        if kind != "virtual":
            code.add(capability)
        if kind != "real":
            ptx.add(capability)
    return code, ptx


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
