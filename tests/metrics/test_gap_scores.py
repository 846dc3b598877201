"""MIG and SAP, modularity and explicitness: hand-computed tables, closed forms, degenerate input."""

import math

import metric_truth as truth
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC

from fqvae.metrics import explicitness, mig, modularity, sap

SPLIT_SCORES = {
    "sap svm": lambda *arrays: sap(*arrays).score,
    "sap tree": lambda *arrays: sap(*arrays, classifier="tree").score,
    "explicitness": lambda *arrays: explicitness(*arrays, discrete=True).test,
}


def noisy_copy(factors, seed=0, share=0.3):
    """Factors with a share of the values drawn anew."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, factors.max(0) + 1, size=factors.shape)
    return np.where(generator.random(factors.shape) < share, drawn, factors)


class TestMIG:
    def test_permuted_identity(self):
        factors = truth.grid(4, 3, 2)
        result = mig(factors[:, [2, 0, 1]], factors, discrete=True)
        assert result.score == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(result.matrix, np.eye(3)[:, [2, 0, 1]], atol=1e-12)

    def test_independent_columns(self):
        factors = truth.grid(4, 3, 2)
        assert mig(factors[:, :1], factors[:, 1:], discrete=True).score == 0

    def test_two_codes_for_one_factor_leave_no_gap(self):
        factors = truth.grid(4, 3)
        result = mig(factors[:, [0, 0, 1]], factors, discrete=True)
        np.testing.assert_allclose(result.gaps, [0, 1], atol=1e-12)
        assert result.score == pytest.approx(0.5)

    def test_definition(self):
        factors = truth.uniform(200, 4, 3)
        codes = noisy_copy(factors[:, [0, 1, 0]])
        result = mig(codes, factors, discrete=True)
        gaps = []
        for factor in factors.T.tolist():
            known = sorted(truth.information(factor, code) for code in codes.T.tolist())
            gaps.append((known[-1] - known[-2]) / truth.entropy(factor))
        np.testing.assert_allclose(result.gaps, gaps, atol=1e-12)
        assert result.score == pytest.approx(sum(gaps) / 2, abs=1e-12)

    def test_continuous_codes_are_cut_into_equal_intervals(self):
        """Intervals of [0, 8] at 2, 4, 6: the values fall into 0 0 1 1 3 3, as the factor has them."""
        codes = np.array([[0.0], [1.9], [2.0], [3.0], [6.5], [8.0]])
        factors = np.array([[0], [0], [1], [1], [2], [2]])
        assert mig(codes, factors, discrete=False, bins=4).score == pytest.approx(1)
        halves = mig(codes, factors, discrete=False, bins=2).score  # 0 0 0 0 1 1
        assert halves == pytest.approx(truth.entropy([0, 0, 1]) / math.log(3))

    def test_degenerate(self):
        factors = truth.grid(4, 3)
        assert mig(np.zeros((12, 3), dtype=int), factors, discrete=True).score == 0
        assert mig(np.zeros((12, 3)), factors, discrete=False).score == 0
        assert mig(factors[:, :1], factors, discrete=True).gaps == pytest.approx([1, 0])
        assert mig(factors, np.zeros((12, 2), dtype=int), discrete=True).score == 0
        padded = np.insert(factors, 0, 5, axis=1)
        assert mig(factors, padded, discrete=True).score == pytest.approx(1)
        numbers = np.arange(12).reshape(-1, 1)
        assert mig(numbers, numbers, discrete=True).score == pytest.approx(1)
        assert mig(factors[:2], factors[:2], discrete=True).score == pytest.approx(1)


class TestSAP:
    def test_permuted_identity(self):
        """Independent codes guess: accuracies of 1/2 of two values, 1/4 of four."""
        factors = np.tile(truth.grid(2, 4), (20, 1))
        result = sap(factors[:, ::-1], factors, factors[:, ::-1], factors, classifier="tree")
        np.testing.assert_allclose(result.matrix, [[1 / 2, 1], [1, 1 / 4]], atol=1e-12)
        assert result.score == pytest.approx((1 / 2 + 3 / 4) / 2)

    def test_svm_is_scikit_learns(self):
        factors = truth.uniform(300, 3, 2)
        codes = noisy_copy(factors[:, [0, 1, 0]]) * [1, 50, 1] + 7
        result = sap(codes[:200], factors[:200], codes[200:], factors[200:])
        for i in range(2):
            for j in range(3):
                mean, deviation = codes[:200, j].mean(), codes[:200, j].std()
                train, test = ((part[:, [j]] - mean) / deviation for part in (codes[:200], codes[200:]))
                model = LinearSVC(C=0.01, class_weight="balanced", dual=False).fit(train, factors[:200, i])
                expected = np.mean(model.predict(test) == factors[200:, i])
                assert result.matrix[i, j] == pytest.approx(expected, abs=1e-9)
        ordered = np.sort(result.matrix, 1)
        np.testing.assert_allclose(result.gaps, ordered[:, -1] - ordered[:, -2])
        assert result.score == pytest.approx(result.gaps.mean()) and result.score > 0.01

    @pytest.mark.parametrize("classifier", ["svm", "tree"])
    def test_noise(self, classifier):
        codes, factors = np.random.default_rng(0).normal(size=(2000, 4)), truth.uniform(2000, 2, 3)
        assert (
            sap(codes[:1000], factors[:1000], codes[1000:], factors[1000:], classifier=classifier).score
            < 0.05
        )

    def test_balanced_accuracy(self):
        """Of the test values 0 0 0 1 the classifier gets 2/3 and 1 right."""
        train = np.array([[0], [0], [1], [1]])
        result = sap(
            train, train, np.array([[0], [0], [1], [1]]), np.array([[0], [0], [0], [1]]), classifier="tree"
        )
        assert result.score == pytest.approx((2 / 3 + 1) / 2)

    def test_balanced_classes(self):
        """Code 1 has 4 of 12 zeros and all 3 ones: it is read as one, though zeros are in the majority."""
        codes, factors = np.repeat([[0, 0], [1, 0], [1, 1]], [8, 4, 3], axis=0).T[..., None]
        result = sap(codes, factors, codes, factors, classifier="tree")
        assert result.score == pytest.approx((8 / 12 + 1) / 2)

    def test_constant_codes(self):
        factors = np.array([[0], [0], [1]])
        arrays = (np.zeros((3, 2)), factors, np.ones((3, 2)), factors)
        np.testing.assert_allclose(sap(*arrays).matrix, 2 / 3)
        np.testing.assert_allclose(sap(*arrays, classifier="tree").matrix, 1 / 2)
        assert sap(*arrays).score == 0


class TestModularity:
    def test_hand_computed(self):
        """A code that is two factors of 4 and 2 values: informations ln 4 and ln 2, F = 3."""
        factors = truth.grid(4, 2, 3)
        codes = np.stack([factors[:, 0] * 2 + factors[:, 1], factors[:, 2], np.zeros(24, dtype=int)], 1)
        result = modularity(codes, factors, discrete=True)
        expected = 1 - math.log(2) ** 2 / (math.log(4) ** 2 * 2)
        np.testing.assert_allclose(result.codes, [expected, 1, 0], atol=1e-12)
        assert result.score == pytest.approx((expected + 1) / 3)

    def test_permuted_identity(self):
        factors = truth.grid(4, 3, 2)
        assert modularity(factors[:, [2, 0, 1]], factors, discrete=True).score == pytest.approx(1)
        continuous = np.sin(factors[:, [2, 0, 1]])
        assert modularity(continuous, factors, discrete=False).score == pytest.approx(1)

    def test_one_code_for_two_equal_factors(self):
        factors = truth.grid(3, 3)
        assert modularity(factors @ [[3], [1]], factors, discrete=True).score == pytest.approx(0)

    def test_degenerate(self):
        factors = truth.grid(4, 3)
        assert modularity(np.zeros((12, 3), dtype=int), factors, discrete=True).score == 0
        assert modularity(factors, factors[:, :1], discrete=True).score == 0
        assert modularity(factors, np.zeros((12, 2), dtype=int), discrete=True).score == 0
        padded = np.insert(factors, 0, 5, axis=1)
        assert modularity(factors, padded, discrete=True).score == pytest.approx(1)
        assert modularity(factors[:2], factors[:2], discrete=True).score == 0  # only one of them varies
        numbers = np.arange(12).reshape(-1, 1)
        assert modularity(numbers, np.hstack([numbers] * 2), discrete=True).score == pytest.approx(0)


class TestExplicitness:
    @pytest.mark.parametrize("discrete", [True, False])
    def test_definition(self, discrete):
        factors = truth.uniform(300, 3, 2)
        codes = noisy_copy(factors[:, [0, 1, 0]], share=0.6)
        if discrete:
            inputs = np.concatenate([np.eye(3)[column] for column in codes.T], 1)
            inputs = inputs[:, inputs.any(0)]
        else:
            inputs = (codes - codes[:200].mean(0)) / codes[:200].std(0)
        expected = []
        for part in (slice(200), slice(200, None)):
            areas = []
            for factor in factors.T:
                model = LogisticRegression().fit(inputs[:200], factor[:200])
                probability = model.predict_proba(inputs[part])
                areas.append(
                    np.mean(
                        [roc_auc_score(factor[part] == value, probability[:, value]) for value in set(factor)]
                    )
                )
            expected.append(np.mean(areas))
        result = explicitness(codes[:200], factors[:200], codes[200:], factors[200:], discrete=discrete)
        assert result == pytest.approx(expected, abs=1e-6) and 0.6 < result.test < 0.95

    def test_closed_forms(self):
        factors = truth.uniform(600, 4, 3)
        arrays = (factors[:300, ::-1], factors[:300], factors[300:, ::-1], factors[300:])
        assert explicitness(*arrays, discrete=True) == pytest.approx((1, 1))
        noise = np.random.default_rng(0).normal(size=(600, 2))
        result = explicitness(noise[:300], factors[:300], noise[300:], factors[300:], discrete=False)
        assert abs(result.test - 0.5) < 0.05

    def test_a_value_that_training_lacks_is_guessed(self):
        train, test = np.array([[0], [1]] * 5), np.array([[0], [1], [2]] * 4)
        result = explicitness(train, train, test, test, discrete=True)
        # The unknown code lies between the two others, both of which are told from the rest.
        assert result.test == pytest.approx((1 + 1 + 0.5) / 3)


@pytest.mark.parametrize("name", SPLIT_SCORES)
class TestDegenerateSplits:
    """What guesses: 0 for SAP, 1/2 for explicitness."""

    def score(self, name, *arrays):
        return SPLIT_SCORES[name](*arrays), (0.5 if name == "explicitness" else 0)

    def test_no_active_code(self, name):
        factors, codes = truth.grid(4, 3), np.zeros((12, 2), dtype=int)
        score, guess = self.score(name, codes, factors, codes, factors)
        assert score == guess

    def test_constant_factors(self, name):
        codes, factors = truth.grid(4, 3), np.zeros((12, 2), dtype=int)
        score, guess = self.score(name, codes, factors, codes, factors)
        assert score == guess

    def test_a_constant_factor_changes_nothing(self, name):
        factors = truth.uniform(60, 3, 2)
        codes, padded = noisy_copy(factors), np.insert(factors, 0, 4, axis=1)
        assert self.score(name, codes, padded, codes, padded) == self.score(
            name, codes, factors, codes, factors
        )

    def test_one_code(self, name):
        factors = truth.uniform(60, 3, 2)
        assert 0.3 < self.score(name, factors[:, :1], factors, factors[:, :1], factors)[0] <= 1

    def test_every_sample_its_own_class(self, name):
        numbers = np.arange(30).reshape(-1, 1)
        assert 0 <= self.score(name, numbers, numbers, numbers, numbers)[0] <= 1

    def test_fewest_samples(self, name):
        codes = np.array([[0, 1], [1, 0]])
        assert 0 <= self.score(name, codes, codes, codes[:1], codes[:1])[0] <= 1
