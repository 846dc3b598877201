"""Plots of measures against a setting: what is drawn, against numbers computed by hand."""

import math

import numpy as np
import pytest

from fqvae.figures import Point, measures_against, save, t_interval
from fqvae.sweep import read_sweep
from fqvae.sweep.settings import swept


@pytest.mark.parametrize(
    # The quantiles of Student's t at 0.975 for 1, 2 and 4 degrees of freedom, from its closed forms.
    ("count", "quantile"),
    [(2, math.tan(0.475 * math.pi)), (3, 0.95 * math.sqrt(2 / (1 - 0.95**2))), (5, 2.7764451051977934)],
)
def test_t_interval(count, quantile):
    assert t_interval(0.3, count) == pytest.approx(quantile * 0.3 / math.sqrt(count), rel=1e-9)


def test_a_single_seed_has_no_interval():
    assert t_interval(None, 1) == 0 and t_interval(0.3, 1) == 0


def point(setting, line, mean, deviation=0.1, seeds=3):
    return Point(setting, line, seeds, {"mse": mean, "infom": 2 * mean}, {"mse": deviation, "infom": None})


def drawn(axes):
    """Of each line its label, its points, and the lower and upper ends of its intervals."""
    found = {}
    for container in axes.containers:
        line, _, (bars,) = container
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        found[container.get_label()] = (line.get_xydata(), ends)
    return found


def test_bars_of_two_seeds_do_not_set_the_scale():
    """Deviation .1: half an interval is .898 for two seeds and .248 for three; there is room for .3."""
    two = measures_against("K", [point(1, "a", 0.5, seeds=2), point(2, "a", 0.8, seeds=2)], {}).axes[0]
    assert two.get_ylim() == pytest.approx((0.2 - 0.045, 1.1 + 0.045))
    _, ends = drawn(two)["a"]
    half = math.tan(0.475 * math.pi) * 0.1 / math.sqrt(2)
    np.testing.assert_allclose(ends, [(0.5 - half, 0.5 + half), (0.8 - half, 0.8 + half)])
    three = measures_against("K", [point(1, "a", 0.5), point(2, "a", 0.8)], {}).axes[0]
    low, high = three.get_ylim()
    assert low < 0.5 - 0.248 and high > 0.8 + 0.248


def test_numbers_are_lines(tmp_path):
    points = [point(128, "gamma 1", 0.5), point(32, "gamma 1", 0.3), point(64, "gamma 2", 0.4, None, 1)]
    figure = measures_against("K", points, {"mse": "MSE"})
    first, second = figure.axes
    assert [each.get_title("left") for each in figure.axes] == ["MSE", "infom"]
    lines = drawn(first)
    data, ends = lines["gamma 1"]
    np.testing.assert_allclose(data, [(32, 0.3), (128, 0.5)])
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    np.testing.assert_allclose(ends, [(0.3 - half, 0.3 + half), (0.5 - half, 0.5 + half)])
    data, ends = lines["gamma 2"]
    np.testing.assert_allclose(data, [(64, 0.4)])
    np.testing.assert_allclose(ends, [(0.4, 0.4)])
    np.testing.assert_allclose(drawn(second)["gamma 1"][0][:, 1], [0.6, 1.0])
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["32", "64", "128"]
    (legend,) = figure.legends
    assert "95 % t interval" in legend.get_title().get_text()
    assert [text.get_text() for text in legend.get_texts()] == ["gamma 1", "gamma 2"]
    files = save(figure, tmp_path / "plot")
    assert [file.suffix for file in files] == [".png", ".svg"] and all(f.stat().st_size > 5000 for f in files)


def test_categories_are_points_beside_each_other():
    points = [point(kind, line, 0.5) for line in ("a", "b") for kind in ("vae", None, True)]
    axes = measures_against("kind", points, {}).axes[0]
    (one, _), (other, _) = drawn(axes).values()
    np.testing.assert_allclose(one[:, 0], [-0.125, 0.875, 1.875])
    np.testing.assert_allclose(other[:, 0], [0.125, 1.125, 2.125])
    assert all(container[0].get_linestyle() == "None" for container in axes.containers)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["vae", "none", "true"]


def test_errors():
    for points in ([], [Point(1, "", 1, {"mse": 0.1}, {}), Point(2, "", 1, {"infom": 0.1}, {})]):
        with pytest.raises(ValueError, match="points must have a measure in common, but had none"):
            measures_against("K", points, {})


def test_settings_that_are_swept():
    keys = {}
    for name in ("models", "correlated", "gamma", "codebook", "codebooks", "length"):
        sweep = read_sweep(name)
        keys[name] = swept(sweep, list(sweep.runs))
    gamma, size = "model.weights.total_correlation", "model.latent.codebook_size"
    precision, learned = "model.latent.precision", "model.latent.learn_precision"
    assert {name: list(each) for name, each in keys.items()} == {
        "models": ["model"],
        "correlated": ["model", "data.strength"],  # what is tied follows from the strength
        "gamma": ["model", gamma],  # the batch size follows from them
        "codebook": [size, "optimizer.codebook_learning_rate", precision, learned],
        # The kind follows from the dimension.
        "codebooks": [
            "model.latent.codebooks",
            "optimizer.codebook_learning_rate",
            "model.latent.dimension",
            "model.weights.kl",
        ],
        "length": ["model", "steps", "model.weights.kl"],
    }
    weights = ("0", "2e-4", "5e-4", "2e-3", "8e-3")
    own = {name: value for name, value in keys["gamma"][gamma].items() if not name.startswith("factorvae")}
    assert own == {f"gamma {each}": float(each) for each in weights}
    # What a run does not name is the preset's value.
    assert keys["codebook"][size]["rate 6e-3"] == 64
    assert keys["correlated"]["data.strength"]["qvae 0"] == 0
    # Among fewer runs fewer settings differ.
    sweep = read_sweep("correlated")
    assert list(swept(sweep, ["qvae 0.5", "qvae 0.9"])) == ["data.strength"]
