"""InfoMEC: against the definitions, closed forms, and chance."""

import math

import metric_truth as truth
import numpy as np
import pytest

from fqvae.metrics import infomec


def measure(codes, factors, *, discrete=True, **options):
    return infomec(codes, factors, discrete=discrete, **{"jobs": 1, "shuffles": 0, **options})


def noisy(factors, sizes, seed=0):
    """Codes of several factors each, (samples, latents), no column perfect and none without information."""
    generator = np.random.default_rng(seed)
    sums = factors @ generator.integers(0, 3, size=(factors.shape[1], len(sizes))) + factors[:, :1]
    return (sums + generator.integers(0, 3, size=sums.shape)) % np.array(sizes)


class TestDefinitions:
    def test_discrete(self):
        factors = truth.uniform(300, 4, 3, 2)
        codes = noisy(factors, (7, 5, 4, 6))
        result = measure(codes, factors)
        expected = [
            [truth.information(factor, code) / truth.entropy(factor) for code in codes.T.tolist()]
            for factor in factors.T.tolist()
        ]
        np.testing.assert_allclose(result.nmi, expected, atol=1e-12)
        assert (result.infom, result.infoc) == pytest.approx(truth.infom_infoc(expected), abs=1e-6)
        assert result.active.tolist() == [True] * 4

    @pytest.mark.parametrize("neighbors", [10, 3])
    def test_continuous(self, neighbors):
        factors = truth.uniform(150, 3, 2)
        generator = np.random.default_rng(0)
        codes = factors @ generator.normal(size=(2, 3)) * 5 + generator.normal(size=(150, 3)) + 7
        options = {"neighbors": neighbors} if neighbors != 10 else {}  # 10 is the default
        result = measure(codes, factors, discrete=False, **options)
        expected = [
            [truth.ross(factor, code, neighbors) / truth.entropy(factor) for code in codes.T]
            for factor in factors.T.tolist()
        ]
        np.testing.assert_allclose(result.nmi, expected, atol=1e-6)
        assert (result.infom, result.infoc) == pytest.approx(truth.infom_infoc(expected), abs=1e-6)

    def test_a_value_that_occurs_once_has_no_neighbour(self):
        factors = np.repeat([[0], [1], [2]], [40, 50, 1], axis=0)
        codes = np.random.default_rng(0).normal(size=(91, 1)) + factors
        expected = truth.ross(factors[:, 0].tolist(), codes[:, 0], 10) / truth.entropy(factors[:, 0].tolist())
        assert measure(codes, factors, discrete=False).nmi[0, 0] == pytest.approx(expected, abs=1e-6)

    def test_hand_computed(self):
        """Codes 0 0 1 1 and 0 1 0 0 of the factor 0 0 1 1; codes 0 0 1 1 of a second one, 0 1 1 1."""
        codes = np.array([[0, 0], [0, 1], [1, 0], [1, 0]])
        factors = np.array([[0, 0], [0, 1], [1, 1], [1, 1]])
        quarter = math.log(4) - 0.75 * math.log(3)  # the entropy of (1/4, 3/4)
        partial = quarter - 0.5 * math.log(2)  # the information of a half and a quarter that overlap
        expected = [
            [1, partial / math.log(2)],
            [partial / quarter, (2 * quarter - 1.5 * math.log(2)) / quarter],
        ]
        np.testing.assert_allclose(measure(codes, factors).nmi, expected, atol=1e-12)

    def test_explicitness_of_a_single_discrete_code(self):
        """One-hot codes and a constant let the regression fit any table of probabilities: n(c, f)/n(f)."""
        factors = truth.uniform(2000, 3) ** 2  # values 0, 1, 4
        factors = factors[(factors[:, 0] != 1) | (np.arange(2000) % 4 == 0)]  # of different sizes
        codes = (factors + np.random.default_rng(1).integers(0, 3, size=factors.shape)) // 2
        pairs = list(zip(codes[:, 0].tolist(), factors[:, 0].tolist(), strict=True))
        sizes = {value: sum(f == value for _, f in pairs) for value in (0, 1, 4)}
        weight = {pair: pairs.count(pair) / sizes[pair[1]] for pair in set(pairs)}
        cost = 0.0
        for code, factor in pairs:
            every = sum(weight.get((code, value), 0.0) for value in sizes)
            cost -= math.log(weight[code, factor] / every) / len(pairs)
        assert 0.1 < 1 - cost / math.log(3) < 0.9
        assert measure(codes, factors).infoe == pytest.approx(1 - cost / math.log(3), abs=1e-3)

    def test_continuous_explicitness_does_not_depend_on_units(self):
        factors = truth.uniform(500, 3, 2)
        codes = factors + 0.5 * np.random.default_rng(0).normal(size=factors.shape)
        first = measure(codes, factors, discrete=False)
        second = measure(codes * [1e3, 1e3] - 5, factors, discrete=False)
        assert 0.3 < first.infoe < 0.9
        assert second.infoe == pytest.approx(first.infoe, abs=1e-6)
        np.testing.assert_allclose(second.nmi, first.nmi, atol=1e-6)

    def test_iterations(self):
        factors = truth.uniform(300, 5)
        codes = noisy(factors, (6, 6, 6))
        few, many = (measure(codes, factors, iterations=count).infoe for count in (2, 500))
        assert few < many - 0.01

    def test_active_share(self):
        factors = truth.uniform(200, 3)
        codes = np.random.default_rng(0).uniform(size=(200, 3))
        codes[0], codes[1] = 0, 1  # the range is exactly 1
        codes *= [1, 0.06, 0.04]
        assert measure(codes, factors, discrete=False).active.tolist() == [True, True, False]
        assert measure(codes, factors, discrete=False, active_share=0.0).active.all()


class TestClosedForms:
    @pytest.mark.parametrize("discrete", [True, False])
    def test_permuted_identity(self, discrete):
        factors = np.tile(truth.grid(4, 3, 2), (30, 1))
        codes = factors[:, [2, 0, 1]]
        if not discrete:
            codes = codes + 0.01 * np.random.default_rng(0).normal(size=codes.shape)
        result = measure(codes, factors, discrete=discrete, shuffles=10)
        # By nearest neighbours the independent pairs have noise.
        assert result[:2] == pytest.approx((1, 1), abs=1e-9 if discrete else 0.03)
        assert result.infoe > 0.99
        assert result[3:5] == pytest.approx((1, 1), abs=1e-9)

    def test_independent_columns(self):
        factors = truth.grid(4, 3, 2, 5)
        result = measure(factors[:, [3, 3]], factors[:, :3])
        assert not result.nmi.any() and result[:2] == (0, 0) and result.infoe < 1e-3

    @pytest.mark.parametrize("others", [0, 1])
    def test_one_code_for_two_factors(self, others):
        factors = truth.grid(4, 3, *[2] * others)
        codes = np.stack([factors[:, 0] * 3 + factors[:, 1], *factors[:, 2:].T], 1)
        result = measure(codes, factors)
        # The first code's share of its best factor is 1/2, the other's 1.
        expected = [0, ((1 / 2 + 1) / 2 - 1 / 3) / (2 / 3)][others]
        assert result.infom == pytest.approx(expected, abs=1e-9)
        # With one code only there is nothing for compactness to tell.
        assert result.infoc == pytest.approx(others, abs=1e-9)

    def test_two_codes_for_one_factor(self):
        factors = truth.grid(4, 3)
        codes = np.stack([factors[:, 0] // 2, factors[:, 0] % 2, factors[:, 1]], 1)
        result = measure(codes, factors)
        assert result.infom == pytest.approx(1)
        assert result.infoc == pytest.approx(((1 / 2 + 1) / 2 - 1 / 3) / (2 / 3))


class TestChance:
    def test_miller_madow(self):
        factors = truth.uniform(400, 6, 4)
        codes = (factors[:, :1] * 3 + np.random.default_rng(1).integers(0, 12, size=(400, 3))) % 30
        result = measure(codes, factors, shuffles=20)
        factor = factors[:, 0].tolist()
        for j, code in enumerate(codes.T.tolist()):
            pairs = list(zip(factor, code, strict=True))
            extra = [(len(set(values)) - 1) / 800 for values in (factor, code, pairs)]
            information = truth.information(factor, code) + extra[0] + extra[1] - extra[2]
            expected = information / (truth.entropy(factor) + extra[0])
            assert result.nmi[0, j] - expected > 0.02
            assert result.nmi_corrected[0, j] == pytest.approx(expected, abs=1e-9)
        # The second factor is independent of the codes.
        assert result.nmi[1].min() > 0.05 and not result.nmi_corrected[1].any()

    @pytest.mark.parametrize(("discrete", "latents"), [(True, 100), (False, 10)])
    def test_noise_scores_nothing(self, discrete, latents):
        factors = truth.uniform(300, 10, 8, 4)
        generator = np.random.default_rng(7)
        codes = (
            generator.integers(0, 20, (300, latents)) if discrete else generator.normal(size=(300, latents))
        )
        result = measure(codes, factors, discrete=discrete, shuffles=20)
        assert result.nmi.mean() > 0.1 if discrete else result.infom > 0.3
        assert (result.nmi_corrected > 0).mean() < 0.01
        # One false alarm would be a whole code of 100.
        assert result.infom_corrected < 0.025 and result.infoc_corrected < 0.35

    def test_sample_size_matters_less(self):
        """Codes of 64 values each, with noise in them: plug-in information is biased."""
        scores = {}
        for count in (500, 8000):
            factors = truth.uniform(count, 8, 8, 8, seed=count)
            generator = np.random.default_rng(count)
            codes = np.where(generator.random(factors.shape) < 0.7, factors * 8, 0)
            codes = codes + generator.integers(0, 8, factors.shape)
            result = measure(codes, factors, shuffles=20)
            scores[count] = result
        large, small = scores[8000], scores[500]
        assert large.infom - small.infom > 0.3
        assert small.infom_corrected == large.infom_corrected == 1
        assert small.infoc_corrected == large.infoc_corrected == 1
        np.testing.assert_allclose(small.nmi_corrected.diagonal(), large.nmi_corrected.diagonal(), atol=0.05)

    def test_none_asked_for(self):
        factors = truth.uniform(50, 3, 2)
        result = measure(factors, factors, shuffles=0)
        assert result[3:5] == (0, 0) and not result.nmi_corrected.any()


class TestRepeatable:
    @pytest.mark.parametrize("discrete", [True, False])
    def test_same_call_same_numbers_for_any_number_of_jobs(self, discrete):
        factors = truth.uniform(60, 3, 2)
        codes = (
            noisy(factors, (4, 5)) if discrete else np.round(np.random.default_rng(0).normal(size=(60, 2)), 1)
        )
        results = [measure(codes, factors, discrete=discrete, shuffles=10, jobs=jobs) for jobs in (1, 1, 2)]
        for result in results[1:]:
            for value, first in zip(result, results[0], strict=True):
                np.testing.assert_array_equal(value, first)

    def test_seed(self):
        """It decides nothing but what is at the edge of chance, as much of this is."""
        factors = truth.uniform(100, 3)
        generator = np.random.default_rng(0)
        codes = np.where(generator.random((100, 200)) < 0.3, factors, generator.integers(0, 3, (100, 200)))
        first, second = (measure(codes, factors, shuffles=10, seed=seed) for seed in (0, 1))
        assert first.nmi.tolist() == second.nmi.tolist()
        differ = (first.nmi_corrected > 0) != (second.nmi_corrected > 0)
        assert differ.any() and not differ.all()

    def test_names_of_values_do_not_count(self):
        factors = truth.uniform(200, 4, 3)
        codes = noisy(factors, (6, 5))
        renamed = np.array([100, 3, 77, 12, 9, 10**12])[codes]
        first, second = measure(codes, factors), measure(renamed, factors[:, ::-1] * 5 + 1)
        np.testing.assert_allclose(second.nmi, first.nmi[::-1], atol=1e-12)
        assert second[:2] == pytest.approx(first[:2], abs=1e-12)


@pytest.mark.parametrize("discrete", [True, False])
class TestDegenerate:
    """Shuffled too, so that the corrected scores are seen."""

    def measure(self, codes, factors, discrete):
        codes = np.asarray(codes)
        result = measure(codes if discrete else codes.astype(float), factors, discrete=discrete, shuffles=10)
        for value in result:
            assert np.isfinite(value).all()
        for score in result[:5]:
            assert type(score) is float and 0 <= score <= 1
        return result

    def test_no_active_code(self, discrete):
        result = self.measure(np.ones((12, 3), dtype=int), truth.uniform(12, 3, 2), discrete)
        assert result[:5] == (0, 0, 0, 0, 0) and not result.active.any() and not result.nmi.any()

    def test_one_active_code(self, discrete):
        factors = np.tile(truth.grid(3, 2), (20, 1))
        codes = np.stack([factors[:, 0], np.full(120, 5)], 1)
        result = self.measure(codes, factors, discrete)
        assert result.active.tolist() == [True, False]
        assert result.infom == pytest.approx(1, abs=1e-9 if discrete else 0.1) and result.infoc == 0

    def test_code_that_carries_nothing(self, discrete):
        factors = np.tile(truth.grid(3, 2, 4), (10, 1))
        result = self.measure(factors[:, [0, 2]], factors[:, :2], discrete)
        # One code has all of one factor; the other, which has nothing, counts as 0.
        assert result.infom_corrected == pytest.approx(0.5)
        assert result.infoc_corrected == pytest.approx(0.5)

    def test_one_factor(self, discrete):
        factors = np.tile(truth.grid(3, 2), (20, 1))
        result = self.measure(factors, factors[:, :1], discrete)
        assert result.infom == 0 and result.infoc_corrected == pytest.approx(1, abs=0.02)

    def test_constant_factor_changes_nothing(self, discrete):
        factors = truth.uniform(100, 3, 2)
        result = self.measure(factors, np.insert(factors, 1, 9, axis=1), discrete)
        assert result[:5] == self.measure(factors, factors, discrete)[:5]
        assert not result.nmi[1].any()

    def test_constant_factors_only(self, discrete):
        result = self.measure(truth.grid(3, 2), np.zeros((6, 2), dtype=int), discrete)
        assert result[:5] == (0, 0, 0, 0, 0) and result.active.all()

    def test_every_sample_its_own_class(self, discrete):
        numbers = np.arange(30).reshape(-1, 1)
        result = self.measure(np.hstack([numbers, numbers[::-1]]), np.hstack([numbers] * 2), discrete)
        # The plug-in estimate is complete, and so it is for shuffled factors: nothing beyond chance.
        assert result.nmi == pytest.approx(1.0 if discrete else 0.0)
        assert result[3:5] == (0, 0)

    def test_two_samples(self, discrete):
        self.measure([[0, 1], [1, 1]], np.array([[0, 1], [1, 0]]), discrete)

    def test_tiny_and_huge_codes(self, discrete):
        factors = np.tile(truth.grid(3, 2), (20, 1))
        codes = factors * ([1, 2**40] if discrete else [1e-300, 1e38])
        assert self.measure(codes, factors, discrete).infoe > 0.99
