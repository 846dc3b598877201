"""What all functions on arrays have in common: torch as NumPy, and refusal of what makes no sense."""

import re
import subprocess
import sys

import metric_truth as truth
import numpy as np
import pytest
import torch

from fqvae import metrics

FACTORS = truth.uniform(40, 3, 2)
CODES = (FACTORS[:, [0, 1, 0]] + np.random.default_rng(0).integers(0, 2, (40, 3))) % 3

# Of codes and factors: a function, and the names that the two have there.
CALLS = {
    "dci train": (lambda c, f: metrics.dci(c, f, CODES, FACTORS, classifier="histogram", jobs=1), "_train"),
    "dci test": (lambda c, f: metrics.dci(CODES, FACTORS, c, f, classifier="histogram", jobs=1), "_test"),
    "sap train": (lambda c, f: metrics.sap(c, f, CODES, FACTORS), "_train"),
    "sap test": (lambda c, f: metrics.sap(CODES, FACTORS, c, f), "_test"),
    "explicitness train": (lambda c, f: metrics.explicitness(c, f, CODES, FACTORS, discrete=True), "_train"),
    "explicitness test": (lambda c, f: metrics.explicitness(CODES, FACTORS, c, f, discrete=True), "_test"),
    "infomec discrete": (lambda c, f: metrics.infomec(c, f, discrete=True, jobs=1), ""),
    "infomec continuous": (lambda c, f: metrics.infomec(c, f, discrete=False, shuffles=0, jobs=1), ""),
    "mig": (lambda c, f: metrics.mig(c, f, discrete=True), ""),
    "modularity": (lambda c, f: metrics.modularity(c, f, discrete=True), ""),
    "table": (lambda c, f: metrics.TableSampler(c, f), ""),
    "latent_nmi": (lambda c, f: metrics.latent_nmi(c, discrete=True), ""),
    "total_correlation": (lambda c, f: metrics.total_correlation(c, discrete=True), ""),
}
CONTINUOUS = ("dci train", "sap test", "infomec continuous", "table")
DISCRETE = ("explicitness train", "infomec discrete", "mig", "modularity", "latent_nmi", "total_correlation")
WITH_FACTORS = [name for name in CALLS if name not in ("latent_nmi", "total_correlation")]


def refused(name, error, message, codes=CODES, factors=FACTORS):
    """message: of the argument, its name in braces."""
    call, suffix = CALLS[name]
    expected = re.escape(message.format(codes=f"codes{suffix}", factors=f"factors{suffix}"))
    with pytest.raises(error, match=expected):
        call(codes, factors)


def numbers(result):
    values = result if isinstance(result, tuple) else (result,)
    return [np.asarray(value).tolist() for value in values]


@pytest.mark.parametrize("name", [name for name in CALLS if name != "table"])
def test_torch_equals_numpy_equals_lists(name):
    call = CALLS[name][0]
    expected = numbers(call(CODES, FACTORS))
    assert numbers(call(torch.from_numpy(CODES), torch.from_numpy(FACTORS).int())) == expected
    assert numbers(call(CODES.astype(np.uint8), FACTORS.tolist())) == expected
    if name in CONTINUOUS:
        codes = torch.from_numpy(CODES)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            assert numbers(call(codes.to(dtype).requires_grad_(), FACTORS)) == expected


@pytest.mark.parametrize("name", WITH_FACTORS)
class TestFactors:
    def test_another_length(self, name):
        message = "{codes} and {factors} must have the same number of samples, but had 40 and 39"
        refused(name, ValueError, message, factors=FACTORS[1:])

    def test_floats(self, name):
        message = "{factors} must hold integers, but was of float64"
        refused(name, TypeError, message, factors=FACTORS / 2)

    def test_out_of_range(self, name):
        message = "{factors} must be at least 0 and below 2**63, but held -1"
        refused(name, ValueError, message, factors=FACTORS - 1)

    def test_shape(self, name):
        message = "{factors} must be of shape (samples, factors), but was of shape (40,)"
        refused(name, ValueError, message, factors=FACTORS[:, 0])
        refused(name, ValueError, "(40, 0)", factors=FACTORS[:, :0])


@pytest.mark.parametrize("name", CALLS)
class TestCodes:
    def test_shape(self, name):
        message = "{codes} must be of shape (samples, latents), but was of shape (40, 3, 1)"
        refused(name, ValueError, message, codes=CODES[..., None])

    def test_no_numbers(self, name):
        refused(name, TypeError, "{codes} must hold numbers, but was of <U", codes=CODES.astype(str))
        refused(name, TypeError, "{codes} must hold numbers, but was of bool", codes=CODES > 0)

    def test_ragged(self, name):
        refused(name, ValueError, "{codes} must be an array of shape", codes=[[1, 2], [1]])

    def test_too_few_samples(self, name):
        least = 1 if name.endswith("test") else 2
        message = f"{{codes}} must have at least {least} samples, but had {least - 1}"
        refused(name, ValueError, message, CODES[: least - 1], FACTORS[: least - 1])


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e39])
def test_not_finite(name, value):
    codes = CODES.astype(float)
    codes[7, 1] = value
    message = f"{{codes}} must be finite and in the range of float32, but held {value}"
    refused(name, ValueError, message, codes)


@pytest.mark.parametrize("name", DISCRETE)
def test_floats_where_indices_are_due(name):
    refused(name, TypeError, "{codes} must hold integers, but was of float32", codes=CODES.astype(np.float32))
    refused(name, ValueError, "{codes} must be at least 0 and below 2**63, but held -1", codes=CODES - 1)
    large = CODES.astype(np.uint64) + np.uint64(2**63)
    refused(name, ValueError, "{codes} must be at least 0 and below 2**63, but held 922337", codes=large)


@pytest.mark.parametrize("name", ["dci", "sap", "explicitness"])
def test_columns_of_training_and_test(name):
    options = {"discrete": True} if name == "explicitness" else {}
    call = getattr(metrics, name)
    with pytest.raises(ValueError, match=r"codes_train and codes_test must have the same .* 3 and 2"):
        call(CODES, FACTORS, CODES[:, :2], FACTORS, **options)
    with pytest.raises(ValueError, match=r"factors_train and factors_test must have the same .* 2 and 1"):
        call(CODES, FACTORS, CODES, FACTORS[:, :1], **options)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("dci", {"classifier": "forest"}, ValueError, "classifier must be one of .*'histogram'.*'forest'"),
        ("dci", {"seed": 2**32}, ValueError, r"seed must be below 2\*\*32"),
        ("dci", {"seed": None}, TypeError, "seed must be an int, but was NoneType"),
        ("dci", {"jobs": 0}, ValueError, "jobs must be at least 1, but was 0"),
        ("sap", {"classifier": "boosting"}, ValueError, "classifier must be one of .*'boosting'"),
        ("infomec", {"neighbors": 0}, ValueError, "neighbors must be at least 1"),
        ("infomec", {"iterations": True}, TypeError, "iterations must be an int, but was bool"),
        ("infomec", {"shuffles": 9}, ValueError, "shuffles must be 0 or at least 10, but was 9"),
        ("infomec", {"active_share": 1.0}, ValueError, "active_share must be at least 0 and below 1"),
        ("infomec", {"active_share": float("nan")}, ValueError, "active_share must be .*nan"),
        ("infomec", {"jobs": 1.5}, TypeError, "jobs must be an int"),
        ("mig", {"bins": 1}, ValueError, "bins must be at least 2, but was 1"),
        ("modularity", {"bins": 1}, ValueError, "bins must be at least 2"),
        ("explicitness", {"iterations": 0}, ValueError, "iterations must be at least 1"),
    ],
)
def test_options(name, options, error, message):
    arrays = (CODES, FACTORS) * (2 if name in ("dci", "sap", "explicitness") else 1)
    if name not in ("dci", "sap"):
        options = {"discrete": True, **options}
    with pytest.raises(error, match=message):
        getattr(metrics, name)(*arrays, **options)


def test_arguments_are_left_as_they_were():
    codes, factors = CODES.astype(float), FACTORS.copy()
    codes.flags.writeable = factors.flags.writeable = False
    metrics.dci(codes, factors, codes, factors, classifier="histogram", jobs=1)
    metrics.infomec(codes, factors, discrete=False, jobs=1)
    metrics.mig(codes, factors, discrete=False)
    metrics.sap(codes, factors, codes, factors)
    metrics.explicitness(codes, factors, codes, factors, discrete=False)
    metrics.total_correlation(codes, discrete=False)


def test_progress_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(
        ModuleNotFoundError, match="progress=True: the package tqdm is missing; the extra 'train' has it"
    ):
        metrics.infomec(CODES, FACTORS, discrete=True, jobs=1, progress=True)


def test_import_is_quiet():
    program = "import fqvae.metrics; print(len(fqvae.metrics.__all__))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{len(metrics.__all__)}\n", "")
