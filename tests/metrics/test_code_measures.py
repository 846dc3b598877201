"""Ranks, usage, dependence of latents and total correlation: by hand and in closed form."""

import math

import metric_truth as truth
import numpy as np
import pytest
import torch

from fqvae.metrics import code_ranks, code_usage, latent_nmi, total_correlation


class TestRanks:
    def test_one_codebook(self):
        codebook = np.array([0.5, -2.0, 3.0, 0.0])  # ranks 2 0 3 1
        indices = np.array([[0, 1], [2, 3], [1, 1]])
        assert code_ranks(indices, codebook).tolist() == [[2, 0], [3, 1], [0, 0]]

    def test_a_codebook_for_each_latent(self):
        codebook = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
        assert code_ranks(np.array([[0, 0], [2, 2], [1, 1]]), codebook).tolist() == [[0, 2], [2, 1], [1, 0]]

    def test_equal_values_share_a_rank(self):
        codebook = torch.tensor([1.0, 0.0, 1.0, 2.0])
        result = code_ranks(torch.tensor([[0], [1], [2], [3]]), codebook)
        assert result.dtype == np.int64 and result.ravel().tolist() == [1, 0, 1, 2]

    def test_order_is_that_of_the_values(self):
        generator = np.random.default_rng(0)
        codebook, indices = generator.normal(size=(3, 64)), generator.integers(0, 64, (500, 3))
        values = np.stack([codebook[j, indices[:, j]] for j in range(3)], 1)
        ranks = code_ranks(indices, codebook)
        for j in range(3):
            assert [sum(codebook[j] < value) for value in values[:, j]] == ranks[:, j].tolist()

    @pytest.mark.parametrize(
        ("indices", "codebook", "message"),
        [
            ([[4]], np.zeros(4), r"indices must be in \[0, 4\), but held 4"),
            ([[-1]], np.zeros(4), "indices must be at least 0 .*-1"),
            ([[0, 1]], np.zeros((3, 4)), r"codebook must be of shape \(K,\) or \(2, K\), but was \(3, 4\)"),
            ([[0]], np.zeros((1, 1, 4)), r"codebook must be of shape .*\(1, 1, 4\)"),
            ([[0]], np.array([0.0, np.nan]), "codebook must be finite .*nan"),
        ],
    )
    def test_refused(self, indices, codebook, message):
        with pytest.raises(ValueError, match=message):
            code_ranks(np.array(indices), codebook)

    def test_floats_are_no_indices(self):
        with pytest.raises(TypeError, match="indices must hold integers, but was of float64"):
            code_ranks(np.zeros((2, 2)), np.zeros(4))


class TestUsage:
    def test_hand_computed(self):
        result = code_usage(np.array([[0, 1], [0, 1], [3, 1], [2, 1]]), 5)
        assert result.counts.tolist() == [[2, 0, 1, 1, 0], [0, 4, 0, 0, 0]]
        assert result.used.tolist() == [3, 1]
        # exp of (1/2 ln 2 + 2/4 ln 4)
        np.testing.assert_allclose(result.perplexity, [2**1.5, 1], rtol=1e-12)

    def test_all_codes_equally_often(self):
        result = code_usage(np.tile(np.arange(64), 3).reshape(-1, 1), 64)
        assert result.used.tolist() == [64] and result.perplexity[0] == pytest.approx(64)

    def test_one_sample(self):
        assert code_usage(np.array([[1, 0]]), 2).perplexity.tolist() == [1, 1]

    def test_refused(self):
        with pytest.raises(ValueError, match=r"indices must be in \[0, 3\), but held 3"):
            code_usage(np.array([[3]]), 3)
        with pytest.raises(ValueError, match="codebook_size must be at least 1, but was 0"):
            code_usage(np.array([[0]]), 0)
        with pytest.raises(TypeError, match="indices must hold integers"):
            code_usage(np.array([[0.0]]), 3)


class TestLatentNMI:
    def test_closed_forms(self):
        first, second = truth.grid(4, 3).T
        codes = np.stack([first, second, 3 - first, first // 2, np.zeros(12, dtype=int)], 1)
        half = 2 * math.log(2) / (math.log(4) + math.log(2))
        expected = [
            [1, 0, 1, half, 0],
            [0, 1, 0, 0, 0],
            [1, 0, 1, half, 0],
            [half, 0, half, 1, 0],
            [0, 0, 0, 0, 0],
        ]
        np.testing.assert_allclose(latent_nmi(codes, discrete=True), expected, atol=1e-12)

    def test_definition(self):
        codes = truth.uniform(100, 5, 4, 3)
        result = latent_nmi(codes, discrete=True)
        assert np.array_equal(result, result.T) and (result <= 1).all()
        for i, a in enumerate(codes.T.tolist()):
            for j, b in enumerate(codes.T.tolist()):
                expected = 2 * truth.information(a, b) / (truth.entropy(a) + truth.entropy(b))
                assert result[i, j] == pytest.approx(expected, abs=1e-12)

    def test_continuous(self):
        generator = np.random.default_rng(0)
        codes = generator.normal(size=(5000, 2)) @ [[1, 1, 0], [0, 0.1, 1]]
        result = latent_nmi(codes, discrete=False)
        assert result[0, 1] > 0.4 and result[0, 2] < 0.05
        # Cut by hand: intervals of one width, the largest value in the last.
        cut = np.floor((codes - codes.min(0)) / np.ptp(codes, axis=0) * 20).clip(max=19).astype(int)
        np.testing.assert_allclose(latent_nmi(cut, discrete=True), result, atol=1e-12)


class TestTotalCorrelation:
    def test_discrete(self):
        codes = truth.grid(4, 3, 2)
        assert total_correlation(codes, discrete=True) == pytest.approx(0, abs=1e-12)
        # A copy has all its entropy in common with the original.
        assert total_correlation(codes[:, [0, 1, 0, 0]], discrete=True) == pytest.approx(2 * math.log(4))
        codes = truth.uniform(50, 3, 3, 3)
        rows = [tuple(row) for row in codes.tolist()]
        expected = sum(map(truth.entropy, codes.T.tolist())) - truth.entropy(rows)
        assert total_correlation(codes, discrete=True) == pytest.approx(expected, abs=1e-12)

    def test_gaussian(self):
        """Of two latents with correlation r: -ln(1 - r**2)/2, whatever their units."""
        x = np.random.default_rng(0).normal(size=(1000, 2))
        x -= x.mean(0)
        x[:, 1] -= x[:, 0] * (x[:, 0] @ x[:, 1]) / (x[:, 0] @ x[:, 0])
        x /= x.std(0)  # now exactly uncorrelated
        assert total_correlation(x, discrete=False) == pytest.approx(0, abs=1e-9)
        y = np.stack([x[:, 0] * 1e5 + 3, 0.6 * x[:, 0] + 0.8 * x[:, 1]], 1)
        assert total_correlation(y, discrete=False) == pytest.approx(-math.log(1 - 0.6**2) / 2, abs=1e-9)

    def test_degenerate(self):
        assert total_correlation(np.ones((5, 3)), discrete=False) == 0
        codes = np.random.default_rng(0).normal(size=(30, 2))
        constant = np.insert(codes, 1, 2.0, axis=1)
        assert total_correlation(constant, discrete=False) == total_correlation(codes, discrete=False)
        assert total_correlation(constant[:, :2], discrete=False) == 0
        assert total_correlation(np.zeros((5, 3), dtype=int), discrete=True) == 0
        copied = total_correlation(codes[:, [0, 0]], discrete=False)
        assert 15 < copied < 20  # of infinity
        assert math.isfinite(total_correlation(codes[:2], discrete=False))
        assert math.isfinite(total_correlation(np.random.default_rng(1).normal(size=(5, 9)), discrete=False))
