"""Random calls of the public functions, against the truth and the rules on bad input.

    python tests/fuzz/fuzz.py --seconds 60 --seed 0          # calls 0, 1, 2, ... of seed 0
    python tests/fuzz/fuzz.py --seed 0 --number 1234         # that one again

Call n of a seed is always the same call. Each fault is printed with what replays it; the exit status is 1 if
there was one.
"""

import argparse
import collections
import contextlib
import os
import pathlib
import random
import re
import sys
import time
import traceback

sys.path[:0] = [str(pathlib.Path(__file__).parents[1]), str(pathlib.Path(__file__).parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import truth  # noqa: E402
from cases import Case, double  # noqa: E402
from fuzz_bad import check_bad_call, describe_bad, random_bad_call  # noqa: E402
from fuzz_calls import input_and_codebook, random_call  # noqa: E402
from fuzz_compare import check_call, check_close, check_nearest, describe_nearest  # noqa: E402
from fuzz_softmax import check_softmax, describe_softmax, random_softmax  # noqa: E402

import fqvae_kernels  # noqa: E402

# Faults of one kind are printed so often, and the fuzzer gives up after so many kinds.
MOST_OF_A_KIND, MOST_KINDS = 2, 20


def targets() -> list[tuple[str, str | None]]:
    """Backends that serve the CPU, the compiled one with each instruction set that it has here."""
    found: list[tuple[str, str | None]] = [("reference", None)]
    if "cpu" in fqvae_kernels.available_backends():
        from fqvae_kernels import _native

        found += [("cpu", name) for name in _native.instruction_sets()]
    return found


@contextlib.contextmanager
def forced(instruction_set: str | None):
    if instruction_set is None:
        yield
        return
    from fqvae_kernels import _native

    before = _native.instruction_set()
    _native.use_instruction_set(instruction_set)
    try:
        yield
    finally:
        _native.use_instruction_set(before)


def random_noise(draw: random.Random) -> dict:
    rows = draw.choice([0, 1, 2, 7, 100])
    edge = draw.choice([0, 2**31, 2**32, 2**63 - 1])
    return {
        "seed": draw.choice([0, 2**64 - 1, draw.randrange(2**64)]),
        "rows": rows,
        "codes": draw.choice([1, 2, 3, 4, 5, 8, 15, 16, 17, 64, 67, 1000]),
        "row_offset": max(0, edge - draw.randrange(rows + 2)),
        "dtype": draw.choice([torch.float32, torch.float64]),
    }


def check_noise(given: dict):
    got = fqvae_kernels.gumbel_noise(**given)
    expected = truth.gumbel(given["seed"], given["rows"], given["codes"], given["row_offset"])
    assert got.shape == expected.shape and got.dtype == given["dtype"], "shape or dtype"
    unit = 2e-6 if given["dtype"] == torch.float32 else 1e-13
    check_close(got, expected, unit * np.maximum(1.0, np.abs(expected)), "noise")
    assert np.isfinite(double(got)).all()


def one_call(seed: int, number: int, only: str | None = None) -> tuple[str, str | None]:
    """Makes call `number` of a seed. Returns what was called, and the fault or None."""
    draw = random.Random(f"{seed}:{number}")
    backend, instruction_set = draw.choice(targets())
    kind = draw.random()
    described = f"{backend} {instruction_set or ''}"
    if only is not None and backend != only:
        return described, None
    try:
        with forced(instruction_set):
            if kind < 0.2:
                function, given, name = random_bad_call(draw, backend)
                described += f": {describe_bad(function, given)}"
                check_bad_call(function, given, name)
            elif kind < 0.25:
                noise = random_noise(draw)
                described += f": gumbel_noise(**{noise})"
                check_noise(noise)
            elif kind < 0.35:
                case = Case(*input_and_codebook(draw, False))
                described += f": {describe_nearest(case, backend)}"
                check_nearest(case, backend, draw)
            elif kind < 0.4 and hasattr(fqvae_kernels, "gumbel_softmax"):
                softmax = random_softmax(draw, backend)
                described += f": {describe_softmax(softmax)}"
                check_softmax(softmax, draw)
            else:
                call = random_call(draw, backend)
                described += f": {call}"
                check_call(call, draw)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{pathlib.Path(last.filename).name}:{last.lineno}"
        return described, f"{type(error).__name__} at {where}: {error}"
    return described, None


def fuzz(
    seed: int, seconds: float, most: int, progress: int | None = None, only: str | None = None
) -> tuple[int, int]:
    """At most so many calls for so long. Returns how many there were, and how many faults.

    progress: a file's descriptor.
    """
    deadline, number, kinds = time.monotonic() + seconds, 0, collections.Counter()
    while number < most and time.monotonic() < deadline and len(kinds) < MOST_KINDS:
        if progress is not None:
            # Read by whoever started this process, should a call end it.
            os.pwrite(progress, b"%-20d" % number, 0)
        described, fault = one_call(seed, number, only)
        if fault is not None:
            # The same words about other numbers, by the same backend.
            kind = (described.split()[0], re.sub(r"[-+.\d]+(e[-+]\d+)?", "#", fault)[:60])
            kinds[kind] += 1
            if kinds[kind] <= MOST_OF_A_KIND:
                print(f"\nfault: {fault}\n{described}\nreplay: {replay(seed, number)}", flush=True)
        number += 1
    for (backend, fault), count in kinds.items():
        print(f"{count} of {backend}: {fault}")
    return number, kinds.total()


def replay(seed: int, number: int | str) -> str:
    return f"python tests/fuzz/fuzz.py --seed {seed} --number {number}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--calls", type=int, default=sys.maxsize, help="stop after so many")
    parser.add_argument("--number", type=int, help="make this one call")
    parser.add_argument("--backend", help="leave out the calls of other backends")
    parser.add_argument("--progress", type=pathlib.Path, help="a file for the number of the running call")
    options = parser.parse_args()
    # Uninitialised memory holds NaN or the largest integer, so that what nobody wrote shows.
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    if options.number is not None:
        described, fault = one_call(options.seed, options.number)
        print(described, f"fault: {fault}" if fault else "no fault", sep="\n")
        return int(fault is not None)
    progress = None
    if options.progress is not None:
        progress = os.open(options.progress, os.O_WRONLY | os.O_CREAT)
    calls, faults = fuzz(options.seed, options.seconds, options.calls, progress, options.backend)
    print(f"{calls} calls of seed {options.seed}, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
