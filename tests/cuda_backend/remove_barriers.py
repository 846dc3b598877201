"""Takes the barriers of the CUDA kernels out, one at a time, and looks whether the checks notice.

    python tests/cuda_backend/remove_barriers.py [KERNEL ...]

For every barrier of the float kernels and of reduce, compiled for sm_90, it runs calls that use the kernel in
all its ways: with the race detector on, and in three orders of the threads, whose results must be those of
the kernel as it is, bit for bit. Prints what noticed each removal: a race, a fault (a deadlock, say), or a
wrong result. The exit status is 1 if a removal can go unnoticed. Takes minutes.
"""

import functools
import itertools
import pathlib
import sys
from unittest import mock

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent), str(TESTS / "cuda_backend")]

import cudaptx  # noqa: E402
import nvcc  # noqa: E402
import ptx  # noqa: E402
import ptx.edit  # noqa: E402
import torch  # noqa: E402
from cases import make, output_gradients  # noqa: E402
from gradcases import library_gradients  # noqa: E402

import fqvae_kernels  # noqa: E402
from fqvae_kernels._call import Call, Wants  # noqa: E402
from fqvae_kernels.backends import cuda  # noqa: E402
from fqvae_kernels.backends._cuda import geometry  # noqa: E402

KERNELS = (
    "forward_z_float",
    "forward_z_table_float",
    "forward_z_slopes_float",
    "posterior_float",
    "forward_logits_float",
    "backward_z_float",
    "backward_z_general_float",
    "backward_logits_general_float",
    "forward_drawn_z_float",
    "forward_drawn_logits_float",
    "backward_drawn_z_float",
    "backward_drawn_logits_float",
    "nearest_float",
    "reduce",
)
# With one block for each codebook: rows of one warp's lanes in three turns of the block, the codebook in two
# parts and in three; several warps to a row's codes; and rows for 33 turns and more, of which every 32nd
# moves the sums of the backward pass on.
SIZES = ((9, 2051), (9, 4100), (70, 130), (4300, 8))
CHECKS = ({"race": True}, {"order": 0}, {"order": 1}, {"order": 2, "seed": 3})


def calls(kernel):
    """Calls that use a kernel in all its ways.

    The codebook in shared memory as a whole and in parts; rows for several turns of a block; the bounded
    scorer (temperature 0.7) and the exact one; with weights, and without; all gradients.
    """
    is_logits, general, drawn = (word in kernel for word in ("logits", "general", "drawn"))
    estimator = "reinmax" if drawn else "gumbel"
    for rows, codes in SIZES:
        if tabulated(kernel) and codes > geometry.MOST_STAGED:
            continue  # no table
        for temperature, weights in itertools.product((0.7, 0.02), (False, True)):
            case = make(rows, codes, is_logits=is_logits, temperature=temperature, estimator=estimator)
            if kernel == "nearest_float":
                if not weights and temperature == 0.7:
                    yield functools.partial(
                        fqvae_kernels.nearest_quantize, case.input, case.codebook, backend="cuda"
                    )
            elif kernel == "forward_z_slopes_float":
                if not weights:
                    a, h, _ = output_gradients(case, weights=False)
                    needs = (True, False, False)
                    yield functools.partial(library_gradients, case, "cuda", a, h, requires=needs)
            elif kernel.startswith("forward") or kernel == "posterior_float":
                if weights and tabulated(kernel):
                    continue
                yield functools.partial(case.call, "cuda", return_weights=weights)
                if not tabulated(kernel):  # the program without sums of the posterior
                    call = Call(
                        estimator=estimator,
                        is_logits=is_logits,
                        temperature=temperature,
                        wants=Wants(kl=False, weights=weights),
                    )
                    yield functools.partial(cuda.forward, case.input, case.codebook, call, None)
            elif general or drawn or not weights:
                a, h, v = output_gradients(case, weights=weights)
                needs = (True, True, general or (drawn and weights))
                yield functools.partial(library_gradients, case, "cuda", a, h, v, requires=needs)
                if general and weights:  # the program that reads them
                    needs = (True, True, False)
                    yield functools.partial(library_gradients, case, "cuda", a, h, v, requires=needs)
                if drawn and not weights:  # the program without sums of the posterior
                    case = case.but(estimator="straight_through")
                    yield functools.partial(library_gradients, case, "cuda", a, requires=needs)


def tabulated(kernel):
    """Whether the calls of a kernel read the KL from a table."""
    return kernel in ("forward_z_table_float", "posterior_float")


def few_blocks(kernel):
    """The geometry of one block for each codebook, with a table for the kernels of one."""
    changes = {"BLOCKS_AT_ONCE": {4: 1, 8: 1}}
    if tabulated(kernel):
        changes |= {"_TABLE_CYCLES": -1, "_ROWS_PER_NODE": 0}
    return mock.patch.multiple(geometry, **changes)


def run(call, checks):
    with cudaptx.running_ptx(multiprocessors=1, **checks):
        return [x for x in call() if x is not None]


@functools.cache
def whole(kernel):
    """The calls of a kernel, and their results with the kernel as it is, which passes all checks."""
    found = []
    for call in calls(kernel):
        results = run(call, CHECKS[0])
        for checks in CHECKS[1:]:
            assert same(run(call, checks), results), f"{kernel}: other bits with {checks}"
        found.append((call, results))
    return found


def same(got, expected):
    return all(torch.equal(x, y) for x, y in zip(got, expected, strict=True))


def failure(call, expected, checks):
    """What the checks say of one call, or None."""
    try:
        got = run(call, checks)
    except AssertionError as error:
        return f"race: {error}"
    except ptx.PtxError as error:
        return f"fault: {error}"
    return None if same(got, expected) else f"wrong result with {checks}"


def noticed(kernel):
    """What the checks say of a kernel from which something is missing, or None."""
    every = itertools.product(CHECKS, whole(kernel))
    said = (failure(call, expected, checks) for checks, (call, expected) in every)
    return next(filter(None, said), None)


def without_each_barrier(name):
    """What the checks say when one barrier of a kernel is missing, for each of them: (barrier, said)."""
    load = cudaptx.kernel
    whole(name)
    text = nvcc.compiled(cudaptx.sources()[name], "sm_90").read_text()
    for n, line in enumerate(ptx.edit.barriers(text, name)):
        try:
            less = ptx.edit.without_barrier(text, n, name)
        except ValueError:
            continue  # it also computes something, without which there is no kernel
        broken = ptx.load(less, name)

        def instead(asked, arch, broken=broken):
            return broken if asked == name else load(asked, arch)

        with mock.patch.object(cudaptx, "kernel", instead):
            yield f"{name}, barrier {n}, line {line}", noticed(name)


def main(kernels):
    missed = []
    for name in kernels:
        with few_blocks(name):
            for barrier, said in without_each_barrier(name):
                missed += [barrier] if said is None else []
                print(f"{barrier}: {'NOT CAUGHT' if said is None else said[:150]}", flush=True)
    print(f"{len(missed)} removals not caught", *missed, sep="\n  ")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or KERNELS))
