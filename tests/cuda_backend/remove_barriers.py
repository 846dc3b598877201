"""Takes the barriers of the CUDA kernels out, one at a time, and looks whether the checks notice.

    python tests/cuda_backend/remove_barriers.py

For every barrier of the float kernels, compiled for sm_90, it runs calls that use the kernel in all its
ways, with the race detector on and in three orders of the threads, and prints what was noticed. The exit
status is 1 if a barrier can go unnoticed.
"""

import functools
import itertools
import pathlib
import sys

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent), str(TESTS / "cuda_backend")]

import cudaptx  # noqa: E402
import nvcc  # noqa: E402
import ptx  # noqa: E402
import ptx.edit  # noqa: E402
from cases import make, output_gradients  # noqa: E402
from gradcases import library_gradients  # noqa: E402

import fqvae_kernels  # noqa: E402

KERNELS = (
    "forward_z_float",
    "forward_logits_float",
    "backward_z_float",
    "backward_z_general_float",
    "backward_logits_general_float",
    "nearest_float",
    "reduce",
)


def calls(kernel):
    """Calls that use a kernel in all its ways.

    The codebook in shared memory as a whole and in parts; rows for several turns of a block; the bounded scorer
    and the exact one; with weights, and without.
    """
    is_logits, general = "logits" in kernel, "general" in kernel
    for rows, codes in ((9000, 8), (300, 130), (140, 4100)):
        for temperature, weights in itertools.product((0.7, 0.02), (False, True)):
            case = make(rows, codes, is_logits=is_logits, temperature=temperature)
            if kernel == "nearest_float":
                yield functools.partial(
                    fqvae_kernels.nearest_quantize, case.input, case.codebook, backend="cuda"
                )
            elif kernel.startswith("forward"):
                yield functools.partial(case.call, "cuda", return_weights=weights)
            elif general or not weights:
                a, h, v = output_gradients(case, weights=weights)
                needs = (True, True, general)
                yield functools.partial(library_gradients, case, "cuda", a, h, v, requires=needs)


def noticed(kernel):
    """What the checks say of the kernel as it is, or None."""
    for call, order in itertools.product(calls(kernel), (0, 1, 2)):
        said = failure(call, order)
        if said is not None:
            return said
    return None


def failure(call, order):
    try:
        with cudaptx.running_ptx(multiprocessors=1, race=True, order=order):
            call()
    except (AssertionError, ptx.PtxError) as error:
        return str(error)
    return None


def main():
    load, missed = cudaptx.kernel, 0
    for name in KERNELS:
        assert noticed(name) is None, f"{name} fails as it is"
        text = nvcc.compiled(cudaptx.sources()[name], "sm_90").read_text()
        for n, line in enumerate(ptx.edit.barriers(text, name)):
            broken = ptx.load(ptx.edit.without_barrier(text, n, name), name)
            cudaptx.kernel = lambda asked, arch, broken=broken, name=name: (
                broken if asked == name else load(asked, arch)
            )
            said = noticed(name)
            cudaptx.kernel = load
            missed += said is None
            print(
                f"{name}, barrier {n}, line {line}: {'NOT NOTICED' if said is None else said[:150]}",
                flush=True,
            )
    print(f"{missed} removals went unnoticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
