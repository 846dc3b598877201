"""The scores of FactorVAE and beta-VAE, and the samplers under them."""

import metric_truth as truth
import numpy as np
import pytest
import torch

from fqvae.metrics import GridSampler, TableSampler, beta_vae_score, factorvae_score

SIZES = (6, 5, 4)
SCORES = (factorvae_score, beta_vae_score)


def score(function, sampler, **options):
    return function(sampler, **{"train": 600, "test": 300, "scale_samples": 500, **options})


def grid(encode):
    return GridSampler(encode, SIZES)


def table(encode, count=3000):
    factors = truth.uniform(count, *SIZES)
    return TableSampler(encode(factors), factors)


@pytest.mark.parametrize("make", [grid, table])
class TestSamplers:
    def test_groups_share_a_value(self, make):
        sampler = make(lambda factors: factors.astype(float))
        factor = np.array([0, 1, 2, 2, 0])
        codes = sampler.groups(factor, 50, np.random.default_rng(0))
        assert codes.shape == (5, 50, 3)
        for group, fixed in zip(codes, factor, strict=True):
            assert [len(np.unique(group[:, j])) == 1 for j in range(3)] == [j == fixed for j in range(3)]

    def test_values_are_uniform(self, make):
        sampler = make(lambda factors: factors.astype(float))
        generator = np.random.default_rng(1)
        first = sampler.groups(np.full(6000, 0), 2, generator)
        everything = sampler.sample(6000, generator)
        for column, size in ((first[:, 0, 0], 6), (first[:, 1, 1], 5), (everything[:, 2], 4)):
            counts = np.bincount(column.astype(int), minlength=size)
            # chi-squared with at most 5 degrees of freedom; the table's own counts vary as much again
            assert ((counts - 6000 / size) ** 2 / (6000 / size)).sum() < 45

    def test_sizes(self, make):
        assert make(lambda factors: factors).factor_sizes == SIZES


def test_table_draws_as_often_as_values_occur():
    factors = np.repeat([[3, 0], [3, 1], [8, 1]], [60, 30, 10], axis=0)
    sampler = TableSampler(np.arange(100.0).reshape(-1, 1), factors)
    assert sampler.factor_sizes == (2, 2)
    codes = sampler.groups(np.zeros(4000, dtype=int), 2, np.random.default_rng(0))[..., 0]
    assert ((codes[:, 0] < 90) == (codes[:, 1] < 90)).all()
    assert abs((codes[:, 0] >= 90).mean() - 0.1) < 0.02
    # Within the first value all samples are alike.
    assert abs((codes[codes < 90] < 60).mean() - 2 / 3) < 0.02


@pytest.mark.parametrize("make", [grid, table])
@pytest.mark.parametrize("function", SCORES)
class TestScores:
    def test_permuted_identity(self, function, make):
        assert score(function, make(lambda factors: factors[:, [2, 0, 1]] * [1.0, 100.0, 1e-3])) == (1, 1)

    def test_noise_guesses(self, function, make):
        noise = np.random.default_rng(5)
        sampler = make(lambda factors: noise.normal(size=(len(factors), 4)))
        assert abs(score(function, sampler).test - 1 / 3) < 0.12

    def test_seed(self, function, make):
        """Codes that know one factor and a bit of another, so that scores are in between."""

        def encode(factors):
            return np.stack([factors[:, 0], np.sin(17.0 * factors @ [1, 2, 3])], 1)

        sampler = make(encode)
        first, again, other = (score(function, sampler, seed=seed, batch=4) for seed in (1, 1, 2))
        assert first == again and first != other


@pytest.mark.parametrize("function", SCORES)
def test_units_do_not_count(function):
    """Noisy codes, of which none is constant in any batch."""

    def encode(factors):
        return factors + np.random.default_rng(len(factors)).normal(size=factors.shape)

    plain = score(function, grid(encode))
    other = score(function, grid(lambda factors: encode(factors) * [1e-5, 1e5, 1]))
    assert plain.test > 0.9 and other == pytest.approx(plain, abs=1e-9)


def test_majority_vote_by_hand():
    """One code of three factors: it casts every vote, and the majority is the factor drawn most often."""
    result = score(factorvae_score, grid(lambda factors: factors[:, :1] * 1.0), train=900)
    assert 1 / 3 <= result.train < 0.4 and 0.25 < result.test < 0.42


def test_beta_vae_reads_differences():
    """Two codes for two factors each: sums and differences, which the variance within a batch cannot tell."""
    sampler = GridSampler(lambda f: np.stack([f[:, 0] + f[:, 1], f[:, 0] - f[:, 1], f[:, 2]], 1), (5, 5, 5))
    assert score(beta_vae_score, sampler).test < 0.8
    assert score(factorvae_score, sampler).test < 0.8


@pytest.mark.parametrize("function", SCORES)
class TestDegenerate:
    def test_no_active_code(self, function):
        assert score(function, grid(lambda factors: np.ones((len(factors), 2)))) == (1 / 3, 1 / 3)

    def test_a_constant_code_does_not_vote(self, function):
        sampler = grid(lambda factors: np.insert(factors.astype(float), 0, 3, axis=1))
        assert score(function, sampler) == (1, 1)

    def test_one_code(self, function):
        result = score(function, grid(lambda factors: factors[:, :1]))
        assert 0.25 < result.test <= 0.75

    def test_a_constant_factor_is_never_fixed(self, function):
        sampler = GridSampler(lambda factors: factors, (5, 1, 4))
        assert score(function, sampler) == (1, 1)

    def test_one_factor(self, function):
        assert score(function, GridSampler(lambda factors: factors, (5, 1))) == (1, 1)

    def test_constant_factors_only(self, function):
        assert score(function, GridSampler(lambda factors: factors, (1, 1))) == (0, 0)

    def test_fewer_votes_than_factors(self, function):
        for seed in range(4):
            result = score(function, grid(lambda factors: factors), train=1, test=2, seed=seed)
            assert all(0 <= value <= 1 for value in result)

    def test_two_samples(self, function):
        sampler = TableSampler(np.array([[0.0], [1.0]]), np.array([[0, 1], [1, 0]]))
        assert all(0 <= value <= 1 for value in score(function, sampler))


def test_torch_gives_the_same():
    results = [score(factorvae_score, grid(encode)) for encode in (lambda f: f @ [[1], [2], [2]], to_torch)]
    assert results[0] == results[1]


def to_torch(factors):
    return torch.from_numpy(factors @ [[1], [2], [2]]).requires_grad_(False)


class TestRefused:
    @pytest.mark.parametrize("function", SCORES)
    @pytest.mark.parametrize("name", ["batch", "train", "test", "scale_samples", "seed"])
    def test_options(self, function, name):
        with pytest.raises(ValueError, match=f"{name} must be at least"):
            function(grid(lambda factors: factors), **{name: -1})
        with pytest.raises(TypeError, match=f"{name} must be an int, but was float"):
            function(grid(lambda factors: factors), **{name: 2.0})

    def test_sizes(self):
        with pytest.raises(ValueError, match="factor_sizes must be at least 1, but was 0"):
            GridSampler(lambda factors: factors, (3, 0))
        with pytest.raises(ValueError, match="factor_sizes must name at least one factor"):
            GridSampler(lambda factors: factors, ())

    def test_codes(self):
        with pytest.raises(ValueError, match=r"codes that encode gave must be finite .*nan"):
            score(factorvae_score, grid(lambda factors: factors * np.nan))
        with pytest.raises(ValueError, match="encode must give 500 samples, but gave 499"):
            score(factorvae_score, grid(lambda factors: factors[1:]))
        with pytest.raises(ValueError, match=r"codes that encode gave must be of shape .*\(500,\)"):
            score(factorvae_score, grid(lambda factors: factors[:, 0]))
