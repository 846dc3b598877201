"""DCI: against the definitions, scikit-learn's own importances, closed forms."""

import math
from types import SimpleNamespace

import metric_truth as truth
import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier

from fqvae.metrics import dci
from fqvae.metrics._histogram import histogram_boosting, impurity_importance

CLASSIFIERS = ("boosting", "histogram")


def split(codes, factors, classifier="boosting", **options):
    """The even rows train, the odd ones test."""
    return dci(codes[::2], factors[::2], codes[1::2], factors[1::2], classifier=classifier, jobs=1, **options)


def tangled(count, sizes=(4, 3, 2), latents=5, tangle=0.5, codes=16, seed=0):
    """Factors, and ranks of noisy mixtures of them."""
    generator = np.random.default_rng(seed)
    factors = generator.integers(sizes, size=(count, len(sizes)))
    mixing = np.eye(len(sizes), latents) + tangle * generator.normal(size=(len(sizes), latents))
    values = factors / np.array(sizes) @ mixing + 0.05 * generator.normal(size=(count, latents))
    edges = np.quantile(values, np.linspace(0, 1, codes + 1)[1:-1], axis=0)
    return np.stack([np.searchsorted(*pair) for pair in zip(edges.T, values.T, strict=True)], 1), factors


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_scores_follow_from_the_importances(classifier):
    codes, factors = tangled(240)
    result = split(codes, factors, classifier)
    assert result.importance.shape == (5, 3)
    np.testing.assert_allclose(result.importance.sum(0), 1, rtol=1e-12)
    expected = truth.dci_scores(result.importance)
    assert (result.disentanglement, result.completeness) == pytest.approx(expected, abs=1e-6)
    assert 0.2 < result.disentanglement < 0.95  # neither of the trivial answers


def test_default_is_scikit_learns_boosting():
    codes, factors = tangled(160)
    result = split(codes, factors, seed=3)
    train, test = [], []
    for j in range(3):
        model = GradientBoostingClassifier(random_state=3).fit(codes[::2], factors[::2, j])
        np.testing.assert_array_equal(result.importance[:, j], model.feature_importances_)
        train.append(model.score(codes[::2], factors[::2, j]))
        test.append(model.score(codes[1::2], factors[1::2, j]))
    assert result.informativeness_train == pytest.approx(np.mean(train), abs=1e-12)
    assert result.informativeness_test == pytest.approx(np.mean(test), abs=1e-12)
    assert result.informativeness_test < result.informativeness_train


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_permuted_identity_scores_one(classifier):
    factors = truth.uniform(400, 4, 3, 2)
    result = split(factors[:, [2, 0, 1]], factors, classifier)
    assert result[:4] == pytest.approx((1, 1, 1, 1), abs=1e-6)
    np.testing.assert_allclose(result.importance, np.eye(3)[[2, 0, 1]], atol=1e-6)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_one_code_for_two_factors(classifier):
    factors = truth.uniform(400, 3, 2, 4)
    codes = np.stack([factors[:, 0] * 2 + factors[:, 1], factors[:, 2]], 1)
    result = split(codes, factors, classifier)
    # Two thirds of the importance lie in a row (1, 1, 0), one third in a row (0, 0, 1).
    assert result.disentanglement == pytest.approx(1 - 2 / 3 * math.log(2, 3), abs=1e-6)
    assert result.completeness == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_noise_scores_nothing(classifier):
    codes = np.random.default_rng(1).normal(size=(600, 4))
    result = split(codes, truth.uniform(600, 2, 3), classifier)
    assert result.disentanglement < 0.05 and result.completeness < 0.05
    assert abs(result.informativeness_test - (1 / 2 + 1 / 3) / 2) < 0.1


def test_histogram_importance_is_that_of_boosting():
    """Trees of `GradientBoostingClassifier` in the other's form give its own `feature_importances_`."""
    codes, factors = tangled(200)
    for j in range(3):
        model = GradientBoostingClassifier(n_estimators=20, random_state=0).fit(codes, factors[:, j])
        other = SimpleNamespace(
            _predictors=[[as_nodes(tree.tree_) for tree in trees] for trees in model.estimators_],
            staged_predict_proba=model.staged_predict_proba,
        )
        found = impurity_importance(other, codes.astype(float), factors[:, j])
        np.testing.assert_allclose(found, model.feature_importances_, atol=1e-9)


def as_nodes(tree):
    """A tree as `HistGradientBoostingClassifier` keeps it."""
    names = ("is_leaf", "left", "right", "feature_idx", "num_threshold", "depth")
    nodes = np.zeros(
        tree.node_count, dtype=[(name, float if name == "num_threshold" else int) for name in names]
    )
    nodes["is_leaf"] = tree.children_left < 0
    nodes["left"], nodes["right"] = tree.children_left, tree.children_right
    nodes["feature_idx"], nodes["num_threshold"] = tree.feature, tree.threshold
    for parent in np.flatnonzero(nodes["is_leaf"] == 0):
        for child in (tree.children_left[parent], tree.children_right[parent]):
            nodes["depth"][child] = nodes["depth"][parent] + 1
    return SimpleNamespace(nodes=nodes)


def test_scikit_learn_keeps_the_trees_where_they_are_read():
    codes, factors = tangled(300)
    model = histogram_boosting(0).fit(codes, factors[:, 0])
    assert len(model._predictors) == 100 and len(model._predictors[0]) == 4
    nodes = model._predictors[0][0].nodes
    inner = nodes[nodes["is_leaf"] == 0]
    assert nodes["depth"].max() == 3 and nodes["count"][0] == 300
    assert np.array_equal(nodes["count"][inner["left"]] + nodes["count"][inner["right"]], inner["count"])
    root = codes[:, nodes["feature_idx"][0]] <= nodes["num_threshold"][0]
    assert root.sum() == nodes["count"][nodes["left"][0]]


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_same_call_same_numbers_for_any_number_of_jobs(classifier):
    codes, factors = tangled(120)
    results = [
        dci(codes, factors, codes, factors, classifier=classifier, seed=5, jobs=jobs) for jobs in (1, 1, 2)
    ]
    for other in results[1:]:
        assert other[:4] == results[0][:4]
        np.testing.assert_array_equal(other.importance, results[0].importance)


def test_progress_bar(capsys):
    codes, factors = tangled(40)
    split(codes, factors, "histogram")
    assert capsys.readouterr() == ("", "")
    split(codes, factors, "histogram", progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "3/3" in err


@pytest.mark.parametrize("classifier", CLASSIFIERS)
class TestDegenerate:
    def test_no_active_code(self, classifier):
        factors = truth.grid(3, 2)
        result = split(np.ones((6, 4)), factors, classifier)
        assert result[:2] == (0, 0) and not result.importance.any()
        assert 0 < result.informativeness_train <= 0.6

    def test_one_code(self, classifier):
        factors = np.repeat(truth.grid(3, 2), 2, axis=0)
        result = split(factors[:, :1], factors, classifier)
        assert result.completeness == 0 and 0 <= result.disentanglement <= 1

    def test_one_factor(self, classifier):
        factors = np.repeat(truth.grid(3, 2), 20, axis=0)
        result = split(factors, factors[:, :1], classifier)
        assert result.disentanglement == 0 and result.completeness == pytest.approx(1)

    def test_constant_factor_changes_nothing(self, classifier):
        factors = truth.uniform(80, 3, 2)
        padded = np.insert(factors, 1, 7, axis=1)
        result, plain = split(factors, padded, classifier), split(factors, factors, classifier)
        assert result[:4] == plain[:4] and not result.importance[:, 1].any()

    def test_constant_factors_only(self, classifier):
        result = split(truth.grid(3, 2), np.zeros((6, 2), dtype=int), classifier)
        assert result[:4] == (0, 0, 0, 0) and not result.importance.any()

    def test_every_sample_its_own_class(self, classifier):
        numbers = np.arange(12).reshape(-1, 1)
        result = dci(numbers, numbers, numbers, numbers + 100, classifier=classifier, jobs=1)
        assert result.informativeness_test == 0 and np.isfinite(result.importance).all()

    def test_two_samples(self, classifier):
        codes = np.array([[0.0, 1.0], [1.0, 1.0]])
        result = dci(codes, codes.astype(int), codes, codes.astype(int), classifier=classifier, jobs=1)
        assert np.isfinite(np.hstack([result[:4], result.importance.ravel()])).all()


@pytest.mark.slow
def test_histogram_stays_near_the_default():
    """How far apart the two are, from disentangled to tangled: pytest -m slow -s shows the table."""
    rows = []
    for tangle in (0.0, 0.15, 0.3, 0.5):
        codes, factors = tangled(3000, (6, 5, 4, 3), 6, tangle, 32, seed=1)
        both = [split(codes, factors, classifier)[:4] for classifier in CLASSIFIERS]
        rows.append(np.array(both))
        print(f"\ntangle {tangle}", *(np.round(row, 3) for row in both), sep="\n  ")
    distance = np.abs(np.array([first - second for first, second in rows]))
    assert distance[:, :2].max() < 0.05 and distance[:, 2:].max() < 0.02
    order = [[each[i, 0] for each in rows] for i in (0, 1)]
    assert np.array_equal(np.argsort(order[0]), np.argsort(order[1]))
