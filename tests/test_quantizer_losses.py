"""The losses of ScalarQuantizer by name, over the rows that are finite, and when the KL is computed."""

import math

import pytest
import torch
from gradcases import leaf
from quantizers import ESTIMATORS, quantizer, z_of

from fqvae_kernels import ScalarQuantizer


@pytest.mark.parametrize("training", [True, False])
def test_losses_by_name_add_up(training):
    q = quantizer().train(training)
    out = q(z_of(20))
    assert list(out.losses) == ["kl", "commitment", "codebook"]
    torch.testing.assert_close(sum(out.losses.values()), out.loss)
    torch.testing.assert_close(out.losses["kl"], 0.1 * out.kl.mean())
    assert list(quantizer(kl_weight=0.0, commitment_weight=0.0)(z_of(20)).losses) == ["codebook"]
    assert ScalarQuantizer(5)(z_of(20)).losses == {}


class TestKL:
    """In eval() and for nearest codes it is a pass of its own, and is run for those who ask."""

    @pytest.fixture
    def passes(self, monkeypatch):
        """The settings of every pass that samples or computes the KL alone, with its name."""
        from fqvae_kernels._quantizer import estimator

        calls = []

        def watch(name):
            run = getattr(estimator, name)

            def watched(*arguments, **options):
                calls.append({"name": name, **options})
                return run(*arguments, **options)

            monkeypatch.setattr(estimator, name, watched)

        watch("gumbel_quantize")
        watch("posterior_kl")
        return calls

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_none_in_eval(self, passes, estimator):
        q = ScalarQuantizer(5, estimator=estimator, commitment_weight=1.0, codebook_weight=1.0).eval()
        out = q(z_of(6, 3), return_weights=True)
        assert out.kl is None and passes == [] and "kl" not in out.losses

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_where_it_is_asked_for_or_has_a_weight(self, passes, estimator):
        z = z_of(6, 3)
        posterior = (-((z.double()[..., None] - quantizer().codebook.detach().double()) ** 2)).softmax(-1)
        expected = (posterior * (posterior * 5).log()).sum(-1)
        for weight, asked in ((0.0, True), (0.5, None), (0.5, True)):
            q = quantizer(estimator=estimator, kl_weight=weight).eval()
            passes.clear()
            torch.testing.assert_close(q(z, return_kl=asked).kl.double(), expected, atol=1e-5, rtol=1e-5)
            assert [call["name"] for call in passes] == ["posterior_kl"]
        out = q(z, return_kl=False)
        assert out.kl is None
        torch.testing.assert_close(out.losses["kl"].double(), 0.5 * expected.mean(), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("estimator", ESTIMATORS)
    def test_in_training(self, passes, estimator):
        q = ScalarQuantizer(5, estimator=estimator)
        draws = estimator != "nearest"
        assert (q(z_of(6)).kl is not None) == draws
        assert [call["return_kl"] for call in passes] == ([True] if draws else [])
        passes.clear()
        assert q(z_of(6), return_kl=False).kl is None
        assert [call["return_kl"] for call in passes] == ([False] if draws else [])
        assert q(z_of(6), return_kl=True).kl is not None


class TestRowsThatAreNotFinite:
    """They enter no loss and give no gradient; the others as if these were not there."""

    OPTIONS = ({"kl_weight": 1.0}, {"commitment_weight": 1.0}, {"codebook_weight": 1.0})

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("estimator", ESTIMATORS)
    @pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
    def test_they_are_left_out(self, backend, estimator, training, options):
        torch.manual_seed(1)
        q = ScalarQuantizer(5, estimator=estimator, backend=backend, **options).train(training)
        values = z_of(12)
        values[3], values[10], values[11] = math.nan, math.inf, -math.inf
        kept = values.isfinite()
        z = leaf(values)
        # What is drawn for a row depends on its number: all three lie so that numbers stay or do not matter.
        out = q(z, seed=3)
        assert out.loss.isfinite() and out.loss > 0
        book, x = leaf(q.codebook.detach().double()), leaf(values[kept].double())
        posterior = (-((x[:, None] - book) ** 2)).softmax(-1)
        expected = {
            "kl_weight": (posterior * (posterior * 5).log()).sum(-1),
            "commitment_weight": (out.quantized.detach().double()[kept] - x) ** 2,
            "codebook_weight": (book[out.indices[kept]] - x.detach()) ** 2,
        }[next(iter(options))].mean()
        torch.testing.assert_close(out.loss.double(), expected, atol=1e-5, rtol=1e-5)
        expected.backward()
        out.loss.backward()
        if z.grad is not None:
            assert not z.grad[~kept].any()
            torch.testing.assert_close(z.grad[kept].double(), x.grad, atol=1e-5, rtol=1e-5)
        if q.codebook.grad is not None:
            torch.testing.assert_close(q.codebook.grad.double(), book.grad, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("estimator", ESTIMATORS)
    @pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
    @pytest.mark.parametrize("rows", [0, 4])
    def test_without_any_other_the_loss_is_0(self, estimator, training, options, rows):
        q = ScalarQuantizer(5, estimator=estimator, backend="reference", **options).train(training)
        z = leaf(torch.full((rows,), math.nan))
        out = q(z)
        assert out.loss.item() == 0
        out.loss.backward()
        for gradient in (z.grad, q.codebook.grad):
            assert gradient is None or not gradient.any()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_in_every_dtype(self, dtype):
        q = quantizer(estimator="nearest")
        values = z_of(12).to(dtype)
        values[3] = math.nan
        got, expected = q(values).loss, q(values[values.isfinite()]).loss
        torch.testing.assert_close(got, expected)
        assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
