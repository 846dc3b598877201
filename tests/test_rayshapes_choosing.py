"""benchmarks/rayshapes.py choose, and the sweeps that take what was chosen."""

import importlib.resources
import pathlib

import pytest
import yaml
from rayshapes import RESULTS, main
from rayshapes_runs.choosing import GRIDS, preset_text, read_chosen
from storedruns import leave

from fqvae.runs import load_preset, model_names
from fqvae.sweep import plan, read_sweep
from fqvae.sweep.work import Work

PACKAGE = importlib.resources.files("fqvae") / "configs"
TEXT = """
preset: smoke
seeds: [100, 101]
evaluate: {classifier: histogram}
runs:
  vae low: {model: vae, beta: 1e-4}
  vae high: {model: vae, beta: 1e-3}
  vae higher: {model: vae, beta: 1e-2}
  qvae: {model: qvae, beta: 3e-3, optimizer.codebook_learning_rate: 2e-2}
  hfsvae: {model: hfsvae, model.weights.hausdorff: 7e-4}
  ae: {model: ae}
"""
# D and InfoM of the two seeds. Of the VAEs the middle one is best by (.4 + .6 + .5 + .5)/4 = .5, though the
# first is by D, (.9 + .0 + .9 + .1)/4 = .475, and the last by InfoM, (.1 + .8 + .1 + .9)/4 = .475.
SCORES = {
    "vae low": ((0.9, 0.0), (0.9, 0.1)),
    "vae high": ((0.4, 0.6), (0.5, 0.5)),
    "vae higher": ((0.1, 0.8), (0.1, 0.9)),
}


@pytest.fixture
def results(tmp_path):
    (tmp_path / "few.yaml").write_text(TEXT)
    for job in plan(read_sweep(tmp_path / "few.yaml"), tmp_path / "results" / "few"):
        values = SCORES.get(job.name, ((0.25, 0.25), (0.25, 0.25)))[job.seed - 100]
        named = {"disentanglement": values[0], "infom": values[1], "mse": 0.01}
        leave(job.folder, job, named, options={"classifier": "histogram"})
    return tmp_path / "results"


def choose(results):
    preset = results.parent / "preset.yaml"
    words = ["--results", str(results), "choose", "--sweep", str(results.parent / "few.yaml")]
    return main([*words, "--preset", str(preset)]), preset


def test_the_best_mean_of_both_measures_over_the_seeds(results, capsys):
    status, preset = choose(results)
    assert status == 0
    content = yaml.safe_load((results / GRIDS["choose"].file).read_text())
    assert content["vae"]["chosen"] == "vae high"
    assert {name: each["score"] for name, each in content["vae"]["grid"].items()} == {
        "vae high": 0.5,
        "vae low": 0.475,
        "vae higher": 0.475,
    }
    low = content["vae"]["grid"]["vae low"]
    assert low == {"score": 0.475, "deviation": 0.03536, "disentanglement": 0.9, "infom": 0.05, "mse": 0.01}
    assert "vae: vae high 0.500, vae low 0.475, vae higher 0.475\n" in capsys.readouterr().out
    # The preset, as text and as it was written: each model's own keys.
    models = yaml.safe_load(preset.read_text())["models"]
    rate = "optimizer.codebook_learning_rate"
    assert {model: {key: float(each) for key, each in keys.items()} for model, keys in models.items()} == {
        "ae": {},
        "vae": {"model.weights.kl": 1e-3},
        "qvae": {"model.weights.kl": 3e-3, rate: 2e-2},
        "hfsvae": {"model.weights.hausdorff": 7e-4},
    }
    assert preset_text(read_chosen(results / GRIDS["choose"].file)) == preset.read_text()


def test_nothing_is_chosen_of_a_grid_with_gaps(results, capsys):
    (results / "few" / "qvae" / "seed-101" / "metrics.json").unlink()
    assert choose(results)[0] == 1
    assert "1 runs of few are missing" in (error := capsys.readouterr().err) and "qvae, seed 101" in error
    assert not list(results.glob("*.yaml"))


@pytest.mark.parametrize(("grid", "models"), [("choose", "models"), ("choose_long", "models_long")])
def test_before_the_choice_no_run_takes_it(tmp_path, monkeypatch, capsys, grid, models):
    monkeypatch.setattr(Work, "stages", lambda self, job: pytest.fail("it began"))
    words = ["--results", str(tmp_path), "run", models, "--scratch", str(tmp_path / "scratch")]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert f"run the experiment {grid}, then the command choose --sweep {grid}\n" in error


def test_each_grid_has_a_file_and_a_preset_of_its_own(tmp_path, monkeypatch):
    """That of the long runs is as long as they are."""
    results = tmp_path / "results"
    monkeypatch.setattr("rayshapes.PRESETS", tmp_path)
    for name, grid in GRIDS.items():
        for job in plan(read_sweep(name), results / name):
            named = {"disentanglement": 0.25, "infom": 0.25, "mse": 0.01}
            leave(job.folder, job, named, options={"classifier": "histogram"})
        assert main(["--results", str(results), "choose", "--sweep", name]) == 0
        written = yaml.safe_load((tmp_path / f"{grid.preset}.yaml").read_text())
        assert set(written["models"]) == set(read_chosen(results / grid.file))
        assert not any("steps" in keys for keys in written["models"].values())
        assert load_preset(grid.preset).steps == written.get("all", {"steps": 3000})["steps"]
    assert sorted(each.name for each in results.glob("*.yaml")) == ["chosen.yaml", "chosen_long.yaml"]


@pytest.mark.parametrize("name", GRIDS)
def test_the_preset_is_what_was_chosen(name):
    """What was chosen, the preset of the package and the sweep that was chosen from say the same."""
    grid, sweep = GRIDS[name], read_sweep(name)
    choices = read_chosen(RESULTS / grid.file)
    assert preset_text(choices, grid.steps) == (PACKAGE / f"{grid.preset}.yaml").read_text()
    for model, choice in choices.items():
        entry = sweep.runs[choice.name]
        assert load_preset(grid.preset, model) == load_preset("smoke", entry.model, entry.settings)
        assert set(choice.grid) == {name for name, each in sweep.runs.items() if each.model == model}


def jobs(name):
    return plan(read_sweep(name), pathlib.Path("out"))


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        *(("choose", 104), ("models", 60), ("gamma", 35), ("codebook", 27), ("codebooks", 40)),
        *(("correlated", 45), ("estimators", 35), ("stability", 15), ("hues", 12), ("orientation", 6)),
        *(("length", 36), ("beyond", 26), ("choose_long", 72), ("models_long", 55)),
    ],
)
def test_how_many_runs_an_experiment_has(name, runs):
    """All are configurations; but for the study of length they are as long as those they were chosen from."""
    planned = jobs(name)
    assert len(planned) == runs
    steps = {3000, 6000, 12000} if name == "length" else {12000 if name.endswith("_long") else 3000}
    assert {job.config.steps for job in planned} == steps
    assert {job.config.model.network.kind for job in planned} == {"light"}
    sweep = read_sweep(name)
    apart = name in ("choose", "choose_long", "beyond")
    assert sweep.evaluate.classifier == ("histogram" if apart else "boosting")
    assert {job.seed for job in planned} == {100, 101} if apart else max(job.seed for job in planned) < 5


def test_a_grid_of_four_for_each_of_thirteen_models():
    planned = [job for job in jobs("choose") if job.seed == 100]
    models = [job.config.model.name for job in planned]
    assert list(dict.fromkeys(models)) == model_names() and len(models) == 4 * 13
    assert all(models.count(each) == 4 for each in models)
    # A codebook of scalars is let out of N(0, 1).
    scalars = [job.config for job in planned if job.config.model.name in ("qvae", "factorqvae")]
    rates = {each.optimizer.codebook_learning_rate for each in scalars}
    assert rates == {10 * planned[0].config.optimizer.learning_rate}


def test_the_long_grid_is_the_short_one_of_the_papers_models():
    short, long = read_sweep("choose"), read_sweep("choose_long")
    models = model_names()[:9]
    assert {name: each.model for name, each in long.runs.items()} == {
        name: each.model for name, each in short.runs.items() if each.model in models
    }
    for job in jobs("choose_long"):
        entry = short.runs[job.name]
        assert job.config == load_preset(
            "smoke", entry.model, [*entry.settings, "steps=12000", f"seed={job.seed}"]
        )
