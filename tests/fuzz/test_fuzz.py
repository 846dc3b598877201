"""The fuzzer finds nothing in the package, and finds what is broken on purpose.

pytest -m slow tests/fuzz --fuzz-seconds 600 --fuzz-seed 7
"""

import os
import pathlib
import sys

import pytest
import torch
from cases import run_python

import fqvae_kernels

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

import fuzz  # noqa: E402
import fuzz_calls  # noqa: E402


def option(request, name: str, default: str) -> str:
    given = request.config.getoption(f"--fuzz-{name}", default=None)
    return str(given if given is not None else os.environ.get(f"FQVAE_FUZZ_{name.upper()}", default))


@pytest.mark.slow
def test_random_calls(request, tmp_path):
    """In a process of its own: a call that ends the process, or never returns, is named as well."""
    seed, seconds = option(request, "seed", "0"), option(request, "seconds", "0")
    progress = tmp_path / "number"
    arguments = [str(HERE / "fuzz.py"), "--seed", seed, "--seconds", seconds, "--progress", str(progress)]
    if float(seconds) == 0:  # the same calls on every machine that makes them within a minute
        seconds = "60"
        arguments += ["--seconds", seconds, "--calls", "5000"]
    try:
        done = run_python(*arguments, timeout=float(seconds) + 120)
    except Exception as error:
        pytest.fail(f"{error}\nreplay: {fuzz.replay(seed, progress.read_text().strip())}")
    print(done.stdout)
    if done.returncode not in (0, 1):
        number = progress.read_text().strip()
        pytest.fail(f"exit status {done.returncode}\n{done.stderr}\nreplay: {fuzz.replay(seed, number)}")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def with_output(name, change):
    """The real functions, with one output changed."""

    def broken(real):
        def call(*arguments, **options):
            result = real(*arguments, **options)
            value = getattr(result, name)
            return result if value is None else result._replace(**{name: change(value)})

        return call

    return broken


def with_argument(change):
    """The real functions, of changed arguments."""

    def broken(real):
        def call(input, codebook, **options):
            return real(*change(input, codebook), **options)

        return call

    return broken


class WrongGradient(torch.autograd.Function):
    """The value itself, and its gradient 1 % too large."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 1.01


def swallows_errors(real):
    def call(*arguments, **options):
        try:
            return real(*arguments, **options)
        except (TypeError, ValueError):
            return None

    return call


BROKEN = {
    "another index": with_output("indices", lambda index: index.roll(1)),
    "an index out of range": with_output("indices", lambda index: index + 1000),
    "quantized off": with_output("quantized", lambda value: value * 1.001),
    "kl off": with_output("kl", lambda value: value + 1e-3),
    "weights off": with_output("weights", lambda value: value * 0.99),
    "NaN replaced": with_output("quantized", lambda value: value.nan_to_num(0.0)),
    "kl in another dtype": with_output("kl", lambda value: value.half()),
    "a gradient of z off": with_argument(lambda z, book: (WrongGradient.apply(z), book)),
    "a gradient of the codebook off": with_argument(lambda z, book: (z, WrongGradient.apply(book))),
    "no gradient of z": with_argument(lambda z, book: (z.detach(), book)),
    "the input is written to": with_argument(lambda z, book: (z.data.neg_(), book)),
    "no errors": swallows_errors,
}


@pytest.fixture(scope="module")
def sound():
    """Calls in which the package as it is has no fault."""
    return [number for number in range(400) if fuzz.one_call(5, number, "reference")[1] is None]


@pytest.mark.parametrize("fault", BROKEN)
def test_the_fuzzer_finds_it(monkeypatch, sound, fault):
    assert len(sound) > 380
    for name in ("gumbel_quantize", "gumbel_quantize_logits", "nearest_quantize"):
        monkeypatch.setattr(fqvae_kernels, name, swap(getattr(fqvae_kernels, name), BROKEN[fault]))
    assert any(fuzz.one_call(5, number, "reference")[1] for number in sound)


def swap(real, broken):
    """Only real calls of tensors reach what is broken: the rest keeps its errors."""
    changed = broken(real)

    def call(*arguments, **options):
        given = (*arguments, *(options.pop(key) for key in ("z", "logits", "codebook") if key in options))
        whole = all(isinstance(value, torch.Tensor) for value in given) and len(given) == 2
        return (changed if whole or broken is swallows_errors else real)(*given, **options)

    return call


def test_a_call_is_the_same_again():
    for number in range(0, 60, 3):
        described = [fuzz.one_call(9, number)[0] for _ in range(2)]
        assert described[0] == described[1]


def test_all_kinds_of_calls_are_made():
    """Every estimator, dtype and backend, and masks, NaN, no rows, strides among them."""
    import random

    calls = [fuzz_calls.random_call(random.Random(f"kinds {i}"), "reference") for i in range(400)]
    cases = [call.case for call in calls]
    assert {case.estimator for case in cases} == {"gumbel", "straight_through", "reinmax"}
    assert len({case.dtype for case in cases}) == 4 and {case.is_logits for case in cases} == {False, True}
    assert any(case.rows == 0 for case in cases) and any(case.codes == 1 for case in cases)
    assert any(case.input.isnan().any() for case in cases) and any(
        case.codebook.isnan().any() for case in cases
    )
    assert any(not case.input.is_contiguous() for case in cases)
    assert any(case.row_offset > 2**62 for case in cases)
    assert {call.requires for call in calls} >= {(False,) * 3, (True,) * 3}
