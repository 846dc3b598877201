"""ScalarQuantizer's init="data": codes that start as quantiles of the first batch in training."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from gradcases import leaf
from quantizers import ESTIMATORS, z_of
from torch.utils.checkpoint import checkpoint

from fqvae_kernels import ScalarQuantizer


def waiting(**options):
    torch.manual_seed(1)
    return ScalarQuantizer(**({"codebook_size": 5, "init": "data", "estimator": "nearest"} | options))


def quantiles(values, codes):
    """Hazen's definition (1914): the k-th of n sorted values is the quantile (k + 1/2) / n."""
    levels = (np.arange(codes) + 0.5) / codes
    return torch.from_numpy(np.quantile(np.asarray(values, dtype=np.float64), levels, method="hazen"))


@pytest.mark.parametrize("rows", [3, 5, 100, 1001])
def test_codes_are_quantiles_of_the_first_batch(rows):
    q, z = waiting(init_scale=2.0), 3 * z_of(rows) + 7
    out = q(z)
    torch.testing.assert_close(q.codebook.detach().double(), 2 * quantiles(z, 5), atol=1e-5, rtol=1e-6)
    assert torch.equal(out.quantized, q.codes(out.indices)), "the first batch is quantized to them"
    before = q.codebook.detach().clone()
    q(z_of(rows, seed=1))
    assert torch.equal(q.codebook, before), "the first batch alone"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("is_sorted", [False, True])
def test_each_codebook_has_its_own_finite_values(is_sorted, dtype):
    q = waiting(num_codebooks=3, sorted=is_sorted)
    z = (z_of(4, 50, 3) * torch.tensor([1.0, 10.0, 0.1])).to(dtype)
    z[0, :5, 0], z[1, 3, 1], z[2, 3, 2] = math.nan, math.inf, -math.inf
    q(z)
    for latent in range(3):
        column = z[..., latent].double()
        expected = quantiles(column[column.isfinite()], 5)
        torch.testing.assert_close(q.codebook[latent].detach().double(), expected, atol=1e-5, rtol=1e-5)


def test_codes_are_normal_before_and_in_eval():
    q = waiting(codebook_size=2000)
    torch.manual_seed(1)
    assert torch.equal(q.codebook, ScalarQuantizer(2000).codebook)
    q.eval()
    q(z_of(50))
    torch.manual_seed(1)
    assert torch.equal(q.codebook, ScalarQuantizer(2000).codebook)


def test_what_has_no_quantiles_waits():
    q = waiting(num_codebooks=3)
    start = q.codebook.detach().clone()
    z = z_of(20, 3)
    z[:, 1], z[:, 2] = 0.25, math.nan
    q(z)
    assert q.data_start.done.tolist() == [True, False, False]
    assert torch.equal(q.codebook[1:], start[1:]) and not torch.equal(q.codebook[0], start[0])
    first = q.codebook[0].detach().clone()
    q(torch.empty(0, 3))
    q(z_of(20, 3, seed=1))
    assert q.data_start.done.all() and torch.equal(q.codebook[0], first)
    torch.testing.assert_close(q.codebook[2].detach().double(), quantiles(z_of(20, 3, seed=1)[:, 2], 5))


def test_a_single_code_starts_at_the_median():
    q = waiting(codebook_size=1)
    q(torch.tensor([4.0, 1.0, 2.0]))
    assert q.codebook.tolist() == [2.0]


@pytest.mark.parametrize("method", ["deepcopy", "pickle", "state_dict"])
def test_a_loaded_model_does_not_start_again(method):
    q = waiting()
    q(z_of(30))
    if method == "state_dict":
        other = waiting()
        other.load_state_dict(q.state_dict())
        assert "data_start.done" in q.state_dict()
    else:
        other = copy.deepcopy(q) if method == "deepcopy" else pickle.loads(pickle.dumps(q))
    other(5 + z_of(30, seed=1))
    assert torch.equal(other.codebook, q.codebook)
    q(5 + z_of(30, seed=1))
    q.load_state_dict(waiting().state_dict())
    q(5 + z_of(30, seed=1))
    assert q.codebook.min() > 2, "a state from before the start makes it start"


def test_reset_parameters_waits_again():
    q = waiting()
    q(z_of(30))
    q.reset_parameters()
    q(5 + z_of(30))
    assert q.codebook.min() > 2


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_first_step_has_gradients(estimator):
    q = waiting(estimator=estimator, codebook_weight=1.0)
    z = leaf(z_of(30))
    out = q(z)
    (out.quantized.sum() + out.loss).backward()
    assert z.grad.any() and q.codebook.grad.any() and q.codebook.requires_grad


def test_checkpointing_repeats_the_same_codes():
    results = []
    for repeated in (False, True):
        q, z = waiting(estimator="gumbel"), leaf(z_of(30))

        def run(z, q=q):
            return q(z, seed=3).quantized

        (checkpoint(run, z, use_reentrant=False) if repeated else run(z)).square().sum().backward()
        results.append((z.grad, q.codebook.grad, q.codebook.detach()))
    for got, expected in zip(*results, strict=True):
        assert torch.equal(got, expected)


def test_a_captured_program_starts_nothing():
    torch._dynamo.reset()
    q = waiting(backend="reference")
    start = q.codebook.detach().clone()
    with pytest.warns(UserWarning, match="^init='data' does nothing in a program of torch.compile"):
        torch.compile(q, fullgraph=True, backend="aot_eager")(z_of(30))
    torch.func.vmap(q)(z_of(3, 30))
    assert torch.equal(q.codebook, start) and not q.data_start.done.any()
    q.init_from(z_of(30))
    torch.testing.assert_close(q.codebook.detach().double(), quantiles(z_of(30), 5))
    assert q.data_start.done.all()
    torch._dynamo.reset()
    other = waiting(backend="reference")
    other(z_of(30))
    torch.compile(other, fullgraph=True, backend="aot_eager")(z_of(30))  # warnings are errors


def test_any_quantizer_may_start_from_data():
    q = ScalarQuantizer(5, num_codebooks=2)
    q.init_from(z_of(30, 2))
    torch.testing.assert_close(q.codebook[1].detach().double(), quantiles(z_of(30, 2)[:, 1], 5))
    assert list(q.state_dict()) == ["codebook"]


@pytest.mark.parametrize("z", [torch.zeros(3, 4), torch.zeros(3, 2, dtype=torch.int64), "z"])
def test_bad_input_is_named(z):
    q = waiting(num_codebooks=2)
    for use in (q, q.init_from):
        with pytest.raises((TypeError, ValueError), match="z"):
            use(z)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_start_between_a_call_and_its_backward_pass(estimator):
    """The second latent is constant at first, so that its codes start in the second call."""
    q = waiting(estimator=estimator, num_codebooks=2, codebook_weight=1.0)
    first, second = leaf(z_of(6, 2)), leaf(z_of(6, 2))
    with torch.no_grad():
        first[:, 1] = 0.5
    before = q(first, seed=1)
    assert q.data_start.done.tolist() == [1, 0]
    codes = q.codebook.detach().clone()
    (before.quantized.sum() + before.loss + q(second, seed=2).loss).backward()
    assert q.data_start.done.tolist() == [1, 1] and not torch.equal(q.codebook, codes)
    alone = ScalarQuantizer(5, num_codebooks=2, init=codes, codebook_weight=1.0, estimator=estimator)
    z = leaf(first.detach())
    out = alone(z, seed=1)
    (out.quantized.sum() + out.loss).backward()
    torch.testing.assert_close(first.grad, z.grad)
