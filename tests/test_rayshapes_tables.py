"""benchmarks/rayshapes.py table: its numbers against SciPy and by hand, its parts, and the page."""

import math
import pathlib
import random

import numpy
import pytest
from rayshapes import PAGE
from rayshapes_runs import page, plots, tables
from rayshapes_runs.cells import MINUS, NONE
from rayshapes_runs.choosing import GRIDS, Choice, chosen_text
from rayshapes_runs.numbers import paired, spearman, spread
from rayshapes_runs.questions import EXPERIMENTS, ORDERED, QUESTIONS
from rayshapes_runs.reading import Results, read_results
from scipy import stats
from storedruns import leave
from test_rayshapes_runs import TEXT

from fqvae.metrics import dci
from fqvae.runs import to_flat
from fqvae.sweep import plan, read_sweep

BY_NAME = {question.name: question for question in QUESTIONS}


def cells(table):
    """The rows of a table in Markdown, by their first cells."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert set(rows[1][0]) == {"-"} and len({len(row) for row in rows}) == 1
    return {row[0]: row[1:] for row in rows if row is not rows[1]}


def made(runs, **configs):
    """Results of runs that are given as {name: {seed: {measure: value}}}."""
    found = Results(sum(map(len, runs.values())))
    found.scores = runs
    base = to_flat(plan(read_sweep("first"), pathlib.Path())[0].config)
    for name, seeds in runs.items():
        found.configs[name] = {**base, **configs.get(name, {})}
        found.contents[name] = {
            seed: {"scores": scores, "config": {**found.configs[name], "name": name, "seed": seed}}
            for seed, scores in seeds.items()
        }
    return found


def test_paired_intervals_are_those_of_scipy():
    random.seed(0)
    one = {seed: random.gauss(0.5, 0.1) for seed in range(5)}
    other = {seed: random.gauss(0.4, 0.1) for seed in range(1, 7)}  # seeds 1 to 4 are in both
    found = paired(one, other)
    test = stats.ttest_rel([one[seed] for seed in range(1, 5)], [other[seed] for seed in range(1, 5)])
    low, high = test.confidence_interval(0.95)
    assert found.count == 4 and found.mean == pytest.approx((low + high) / 2)
    assert found.half == pytest.approx((high - low) / 2)
    assert found.decided == (test.pvalue < 0.05)
    # By hand: differences 1, 2, 3 have the deviation 1, and t(.975, 2) = 4.3027.
    hand = paired({0: 1.0, 1: 3.0, 2: 6.0}, {0: 0.0, 1: 1.0, 2: 3.0})
    assert (hand.mean, hand.deviation) == (2.0, 1.0)
    assert hand.half == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5) and not hand.decided
    assert paired({0: 1.0}, {1: 1.0}) is None
    assert spread([2.5]).half is None and not spread([2.5]).decided


def test_rank_correlations_are_those_of_scipy():
    random.seed(1)
    for _ in range(20):
        ones, others = ([random.randrange(6) for _ in range(12)] for _ in range(2))  # with ties
        assert spearman(ones, others) == pytest.approx(stats.spearmanr(ones, others).statistic)
    # By hand, without ties: 1 - 6 sum(d**2)/(n (n**2 - 1)), here with d of 0, 1, 1, 2, 2.
    assert spearman([1, 2, 3, 4, 5], [1.0, 3.0, 2.0, 6.0, 4.0]) == pytest.approx(1 - 6 * 4 / 120)
    assert spearman([1, 2], [1, 2]) is None and spearman([1, 1, 1], [1, 2, 3]) is None


def scores(d, infom=0.5, mse=0.004, **more):
    return {"disentanglement": d, "infom": infom, "mse": mse, **more}


def test_means_and_differences():
    """gamma 5e-4 lacks a seed: its difference is that of the two others."""
    runs = {
        "gamma 0": {0: scores(0.1), 1: scores(0.2), 2: scores(0.3)},
        "gamma 2e-4": {0: scores(0.3, mse=0.003), 1: scores(0.41, mse=0.005), 2: scores(0.49)},
        "gamma 5e-4": {1: scores(0.2), 2: scores(0.5)},
    }
    found = made(runs)
    rows = cells(tables.means(BY_NAME["gamma"], found))
    assert rows["run"][:3] == ["seeds", "1000 MSE", "D"] and rows["run"][5:7] == ["InfoM", "InfoM, corrected"]
    assert rows["gamma 0"][:3] == ["3", "4.00 ± .00", ".200 ± .100"] and rows["gamma 5e-4"][0] == "2"
    assert rows["gamma 0"][3] == NONE  # there is no completeness
    rows = cells(tables.differences(BY_NAME["gamma"], found))
    assert list(rows) == ["difference from gamma 0", "gamma 2e-4", "gamma 5e-4"]
    # Differences of .2, .21, .19: mean .2, deviation .01.
    assert rows["gamma 2e-4"][:3] == ["3", "**+.200 ± .025**", "+.000 ± .000"]
    assert rows["gamma 2e-4"][3:] == [NONE, "+.00 ± 2.48"]  # there is no corrected InfoM
    # 0 and .2: mean .1, deviation .1414, t(.975, 1) = 12.71.
    assert rows["gamma 5e-4"][:2] == ["2", "+.100 ± 1.271"]
    # From several each is named.
    runs = {
        f"{model} {strength}": {0: scores(0.1)} for model in ("factorqvae", "qvae") for strength in (0, 0.9)
    }
    rows = cells(tables.differences(BY_NAME["correlated"], made(runs)))
    assert list(rows)[:2] == ["difference", f"factorqvae 0.9 {MINUS} factorqvae 0"] and len(rows) == 5


def test_longer_runs_are_compared_with_their_model():
    """By hand: differences .2 and .1, mean .15, deviation .0707, t(.975, 1) = 12.71."""
    short = made({"vae": {0: scores(0.1), 1: scores(0.2), 2: scores(0.3)}, "ae": {0: scores(0.5)}})
    long = made(
        {"vae": {0: scores(0.3), 1: scores(0.3)}, "vae beta 1": {2: scores(0.4)}, "qvae": {0: scores(1)}}
    )
    rows = cells(tables.longer(short, long))
    assert list(rows) == ["longer less shorter", "vae", "vae beta 1"]
    assert rows["vae"][:2] == ["2", "+.150 ± .635"] and rows["vae beta 1"][:2] == ["1", "+.100"]
    assert tables.longer(made({}), long) == ""


def test_which_runs_are_compared():
    names = {question.name: list(read_sweep(question.name).runs) for question in QUESTIONS}
    for question in QUESTIONS:
        pairs = [(name, other) for name in names[question.name] for other in question.references(name)]
        assert {other for _, other in pairs} & set(names[question.name]), question.name
        assert all(other in names[question.name] for _, other in pairs), question.name
    correlated = BY_NAME["correlated"].references
    assert correlated("hfsqvae 0.9") == ("factorqvae 0.9", "hfsqvae 0")
    assert BY_NAME["hues"].references("qvae arc") == ("qvae circle", "factorqvae arc")
    assert BY_NAME["length"].references("qvae steps 6000 beta 1e-2") == (
        "qvae steps 3000 beta 1e-2",
        "factorqvae steps 6000 beta 1e-2",
    )
    assert BY_NAME["gamma"].references("factorvae gamma 5e-4") == ("factorvae gamma 0",)


def test_codes_by_rank_and_by_index():
    """The seed that was not measured by index is in none of the three; differences of .2 and .1."""
    found = made({"qvae": {seed: scores(d, completeness=0.5) for seed, d in enumerate((0.5, 0.6, 0.9))}})
    found.by_index = {"qvae": {0: scores(0.3, completeness=0.5), 1: scores(0.5, completeness=0.5)}}
    rows = cells(tables.by_order(found))
    assert rows["run"][1:4] == ["D, by rank", "D, by index", "D, difference"]
    assert rows["qvae"][:4] == ["2", ".550 ± .071", ".400 ± .141", f"{MINUS}.150 ± .635"]
    assert rows["qvae"][4:] == [".500 ± .000", ".500 ± .000", "+.000 ± .000"]
    assert tables.by_order(made({"ae": {0: scores(0.5)}})) == ""


def test_infom_by_factor():
    """Latent 0 tells of size alone: 1. Latent 1 has .6 and .2: (.75 - .5)/.5. The others do not count."""
    found = made({"qvae": {0: scores(0.1)}})
    found.contents["qvae"][0] |= {
        "data": {"factor_names": ["floor_hue", "size"]},
        "nmi": [[0.0, 0.6, 0.9, 0.0], [0.5, 0.2, 0.0, 0.0]],
        "codes_used": [2, 3, 1, 5],
    }
    rows = cells(tables.by_factor(found, ("factorqvae", "qvae")))
    assert rows == {"run": ["floor hue", "size"], "qvae": [".500 (1.0 latents)", "1.000 (1.0 latents)"]}
    assert tables.by_factor(found, ("vae",)) == ""


def test_what_is_told_of_each_factor():
    """D of the hues: latents of weight 1.2, .5 and .3, with entropies 0, 1 and 0 of two. D of all: of weight
    1.6, .6 and .8, with entropies .5119, .9360 and .6022 of three."""
    found = made({"qvae": {0: scores(0.25)}, "ae": {0: scores(0.5)}})
    found.contents["qvae"][0] |= {
        "data": {"factor_names": ["floor_hue", "size", "wall_hue"]},
        "nmi": [[0.5, 0.1, 0.0], [0.02, 0.04, 0.0], [0.0, 0.25, 0.0]],
        "importance": [[1.2, 0.4, 0.0], [0.25, 0.1, 0.25], [0.0, 0.5, 0.3], [0.0, 0.0, 0.0]],
    }
    rows = cells(tables.told(found))
    assert rows == {
        "run": ["floor hue", "size", "wall hue", "D", "D of the hues"],
        "qvae": [".50", ".04", ".25", ".379", ".750"],
    }
    found.contents["qvae"][0]["data"] = {"factor_names": ["floor_hue", "orientation", "scale"]}
    rows = cells(tables.told(found))
    # The second of these is D of rows 0 and 2 without 1: of the hues above. One hue has no D of its own.
    assert rows["run"][3:] == ["D", "D without orientation"] and rows["qvae"][3:] == [".379", ".750"]
    found.contents["qvae"][0]["data"] = {"factor_names": ["floor_hue", "size", "wall_hue"]}
    assert tables.told(made({"ae": {0: scores(0.5)}})) == ""
    figure = plots.told(found)
    assert numpy.allclose(figure.axes[0].images[0].get_array(), [[0.5, 0.04, 0.25]])


def test_d_of_all_factors_is_that_of_the_metrics():
    factors = numpy.random.default_rng(0).integers(0, 3, (400, 3))
    codes = factors @ numpy.random.default_rng(1).normal(size=(3, 4)) + 0.1
    found = dci(codes[:300], factors[:300], codes[300:], factors[300:], classifier="histogram")
    content = {"importance": found.importance.tolist()}
    assert tables._d_of(content, [0, 1, 2]) == pytest.approx(found.disentanglement, abs=1e-6)
    assert 0.05 < found.disentanglement < 0.95


def test_correlations_without_labels():
    """A run that two experiments share counts once among all; a measure that a run lacks leaves it out."""
    one = {
        "a": {0: scores(0.1, mse=3.0, total_correlation=1.0), 1: scores(0.2, mse=2.0, total_correlation=2.0)},
        "b": {0: scores(0.3, mse=1.0)},
    }
    found = {"models": made(one), "gamma": made({"a": one["a"], "c": {0: scores(0.4, mse=9.0)}})}
    rows = cells(tables.unlabelled(found))
    assert rows["runs of"] == ["straight-through gap", "information of pairs", "total correlation", "MSE"]
    assert rows["models"] == [NONE, NONE, NONE, "-1.00 (3 runs)"]
    assert rows["gamma"][3] == "+0.50 (3 runs)" and rows["all"][3] == "+0.20 (4 runs)"
    assert [len(runs) for runs in tables.pooled(found).values()] == [3, 3, 4]
    # The total correlation of codes is left out.
    one["b"][0] |= {"pair_information": 0.5, "total_correlation": 30.0}
    assert [run.get("total_correlation") for run in tables.pooled(found)["models"]] == [1.0, 2.0, None]
    assert tables.pooled({}) == {} and set(ORDERED) < set(EXPERIMENTS)
    # The same run under another name, as QVAE is FactorQVAE with gamma = 0.
    content = found["gamma"].contents["c"][0]
    found["models"].contents["b"][1] = {**content, "config": {**content["config"], "model.name": "other"}}
    assert len(tables.pooled(found)["all"]) == 4
    rows = cells(tables.counts(found))
    assert (rows["all"][0], rows["without copies"][0]) == ("6", "4")


def test_results_are_read_in_the_order_of_the_sweep(tmp_path):
    (tmp_path / "pair.yaml").write_text(TEXT)
    for job in plan(read_sweep(tmp_path / "pair.yaml"), tmp_path / "results" / "pair"):
        if job.title != "ae, seed 100":
            leave(job.folder, job, {"mse": job.seed / 1000})
    found = read_results(tmp_path / "results", str(tmp_path / "pair.yaml"))
    assert (found.count, found.planned, list(found.scores)) == (3, 4, ["vae", "ae"])
    assert found.values("vae", "mse") == {100: 0.1, 101: 0.101} and found.values("ae", "mse") == {101: 0.101}
    assert found.values("qvae", "mse") == {}
    assert found.configs["ae"]["model.name"] == "ae"


def test_plots():
    runs = {f"{name} {strength}": {0: scores(0.1), 1: scores(0.2)} for name in "ab" for strength in (0, 0.5)}
    configs = {name: {"model.name": name[0], "data.strength": float(name[2:])} for name in runs}
    figure = plots.against(BY_NAME["correlated"], made(runs, **configs))
    (first, *_) = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["D", "InfoM", "1000 MSE"]
    assert [container.get_label() for container in first.containers] == ["a", "b"]
    np_x, np_y = first.containers[0][0].get_data()
    assert list(np_x) == [0.0, 0.5] and list(np_y) == pytest.approx([0.15, 0.15])
    # Long names leave the axes their place.
    longest = "beta 3e-3 decay 1 precision learned"
    figure = plots.against(
        BY_NAME["beyond"], made({longest: {0: scores(0.1)}, "as chosen": {0: scores(0.2)}})
    )
    figure.canvas.draw()
    assert min(axes.get_window_extent().height for axes in figure.axes) > 0.7 * figure.dpi
    figure = plots.unlabelled({"all": [scores(0.3, mse=0.01), scores(0.4, mse=0.02, total_correlation=1.0)]})
    assert [len(axes.collections[0].get_offsets()) for axes in figure.axes] == [0, 0, 1, 2]


def test_the_page(tmp_path):
    """Each part is between its own markers; pictures are linked from where the page is."""
    copy = tmp_path / "docs" / "results.md"
    copy.parent.mkdir()
    copy.write_text(PAGE.read_text())
    found = {name: Results(7) for name in EXPERIMENTS}
    texts = page.parts(tmp_path, found, copy.parent / "results", copy)
    assert set(texts.values()) == {texts["runs"], texts["claims"], page.NOTHING}
    assert "| all | 0 | 98 |" in texts["runs"] and "not decided" in texts["claims"]
    found["gamma"] = made({"gamma 0": {0: scores(0.25)}, "gamma 2e-4": {0: scores(0.5)}})
    found["gamma"].planned = 15
    choice = Choice("b", {}, {"b": dict.fromkeys(("score", "deviation", *tables.SHOWN), 0.5)})
    (tmp_path / GRIDS["choose_long"].file).write_text(chosen_text({"vae": choice}))
    texts = page.parts(tmp_path, found, copy.parent / "results", copy)
    page.write(copy, texts)
    text = copy.read_text()
    part = text.split("<!-- gamma:begin -->")[1].split("<!-- gamma:end -->")[0]
    assert "Only 2 of 15 runs are there." in part and "| gamma 2e-4 | +.250 |" in part
    assert "](results/gamma.svg)" in part and (copy.parent / "results" / "gamma.svg").is_file()
    assert "| vae | **b** | .500 ± .500 |" in text and "| gamma | 2 | 15 |" in text
    assert "](results/unlabelled.svg)" in text
    # What is told of each factor stands where it is asked.
    seen = {"data": {"factor_names": ["a", "b"]}, "nmi": [[0.25], [0.5]], "importance": [[1.0, 1.0]]}
    found["hues"] = made({"qvae arc": {0: scores(0.25)}})
    found["hues"].contents["qvae arc"][0] |= seen
    found["gamma"].contents["gamma 0"][0] |= seen
    texts = page.parts(tmp_path, found, copy.parent / "results", copy)
    assert page.TOLD in texts["hues"] and "| qvae arc | .25 | .50 |" in texts["hues"]
    assert page.TOLD not in texts["gamma"]
    # A page that lacks a place is left as it is.
    copy.write_text(text.replace("<!-- hues:end -->", ""))
    with pytest.raises(ValueError, match="hues:begin"):
        page.write(copy, {**texts, "models": "other runs"})
    assert "other runs" not in copy.read_text()


def test_the_page_that_is_there_has_a_place_for_every_part():
    names = ["runs", "claims", "told", "longer", "by_order", "by_factor", "unlabelled", *BY_NAME]
    names += [f"{name}{length}" for name in ("goals", "chosen") for length in ("", "_long")]
    text = PAGE.read_text()
    assert all(
        text.count(f"<!-- {name}:begin -->") == 1 == text.count(f"<!-- {name}:end -->") for name in names
    )
