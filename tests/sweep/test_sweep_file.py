"""Sweep files: what they say, and every way to say it wrongly."""

import dataclasses
import pathlib
import subprocess
import sys

import pytest
import yaml

from fqvae.cli import main
from fqvae.models import ConfigError
from fqvae.runs import load_preset, model_names, preset_names
from fqvae.sweep import plan, read_sweep, sweep_names
from fqvae.sweep.file import Changes

GOOD = {
    "preset": "smoke",
    "seeds": [0, 3],
    "settings": {"steps": 40, "model.weights.kl": 1e-5, "temperature_steps": None},
    "evaluate": {"train": 200, "classifier": "histogram"},
    "runs": {
        "factorqvae": {},
        "gamma 0": {"model.weights.total_correlation": 0, "steps": "50", "model.latent.hard": True},
        "vae": {"model": "vae"},
    },
}


def written(folder, **changes):
    """A file of the good content with other keys; a key that is None is left out."""
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def test_what_a_file_says(tmp_path):
    sweep = read_sweep(written(tmp_path))
    assert (sweep.name, sweep.preset, sweep.seeds) == ("mine", "smoke", (0, 3))
    assert vars(sweep.evaluate) == {
        "train": 200,
        "test": None,
        "seed": 0,
        "classifier": "histogram",
        "order": "rank",
        "protocol": "held-out",
    }
    assert {name: entry.model for name, entry in sweep.runs.items()} == {
        "factorqvae": "factorqvae",
        "gamma 0": "factorqvae",
        "vae": "vae",
    }
    jobs = plan(sweep, pathlib.Path("out"))
    assert [(job.name, job.seed) for job in jobs] == [(name, seed) for seed in (0, 3) for name in sweep.runs]
    gamma = jobs[4]
    assert gamma.folder == pathlib.Path("out/gamma 0/seed-3") and gamma.log.name == "seed-3.log"
    # The run's own value wins over that for all.
    assert (gamma.config.seed, gamma.config.steps) == (3, 50) and jobs[0].config.steps == 40
    assert gamma.config.model.weights.total_correlation == 0 and gamma.config.model.latent.hard is True
    assert gamma.config.model.weights.kl == 1e-5 and gamma.config.temperature_steps is None
    # The words for the command line mean the same run.
    assert gamma.words[:4] == ("train", "smoke", "--model", "factorqvae")
    assert load_preset("smoke", "factorqvae", gamma.words[4:]) == gamma.config


def test_the_shortest_file(tmp_path):
    sweep = read_sweep(written(tmp_path, settings=None, evaluate=None, runs={"a": {}}))
    (job, _) = plan(sweep, tmp_path)
    assert job.config == load_preset("smoke", "factorqvae", ["seed=0"])
    assert (sweep.evaluate.train, sweep.evaluate.classifier) == (None, "boosting")


def test_a_grid(tmp_path):
    grid = {
        "model": ["vae", "qvae"],
        "optimizer.learning_rate": [0.001, "1e-4"],
        "data.correlated": [None, "object_hue:wall_hue"],
    }
    sweep = read_sweep(written(tmp_path, runs=None, grid=grid))
    learning = "learning_rate"
    assert list(sweep.runs) == [
        f"{model} {learning} {rate} correlated {pair}"
        for model in ("vae", "qvae")
        for rate in ("0.001", "1e-4")
        for pair in ("none", "object_hue-wall_hue")
    ]
    jobs = plan(sweep, tmp_path)
    assert [job.config.optimizer.learning_rate for job in jobs[:4]] == [1e-3, 1e-3, 1e-4, 1e-4]
    assert [job.config.data.correlated for job in jobs[:2]] == [None, "object_hue:wall_hue"]
    assert (
        jobs[4].config.model == load_preset("smoke", "qvae", ["model.weights.kl=1e-5"]).model
        and jobs[0].config.steps == 40
    )
    # Besides runs, after them; keys whose last parts are equal are named whole.
    grid = {"model.latent.init": ["linspace"], "model.network.init": ["normal", "fan_in"]}
    assert list(read_sweep(written(tmp_path, grid=grid)).runs) == [
        "factorqvae",
        "gamma 0",
        "vae",
        "model.latent.init linspace model.network.init normal",
        "model.latent.init linspace model.network.init fan_in",
    ]


def test_short_names_are_their_keys(tmp_path):
    runs = {"a": {"gamma": 1e-3}, "b": {"K": 8}}
    sweep = read_sweep(written(tmp_path, settings={"beta": 1e-2}, runs=runs))
    configs = {job.name: job.config for job in plan(sweep, tmp_path)}
    assert configs["a"].model.weights.total_correlation == 1e-3
    assert configs["b"].model.latent.codebook_size == 8
    assert {each.model.weights.kl for each in configs.values()} == {1e-2}
    # A run's own value is not lost because the command line names it otherwise, nor the other way round.
    for text in ("gamma=1", "model.weights.total_correlation=1"):
        with pytest.raises(ConfigError, match=r"cannot be for all runs: 'a' has a model\.weights\.total"):
            read_sweep(written(tmp_path, settings=None, runs=runs), Changes(settings=(text,)))
    twice = {"a": {"K": 8, "model.latent.codebook_size": 16}}
    with pytest.raises(ConfigError, match=r"runs, 'a': model.latent.codebook_size is there twice"):
        read_sweep(written(tmp_path, settings=None, runs=twice))


def test_the_protocol_is_that_of_training_and_of_evaluation(tmp_path):
    path = written(
        tmp_path, settings=None, evaluate={"train": 100, "test": 50}, runs={"a": {"model": "qlae"}}
    )
    sweep = read_sweep(path, Changes(protocol="authors"))
    assert (sweep.evaluate.protocol, sweep.evaluate.order) == ("authors", "index")
    (job, _) = plan(sweep, tmp_path)
    assert job.config == load_preset("smoke", "qlae", ["protocol=authors", "seed=0"])
    assert job.config.protocol == "authors" and job.config.model.latent.init == "normal"
    assert read_sweep(path, Changes(protocol="ours")) == read_sweep(
        path, Changes(settings=("protocol=ours",))
    )


def test_what_the_command_line_changes(tmp_path):
    path = written(tmp_path, runs={"a": {}, "b": {"model.latent.size": 3}})
    settings = ("steps=7", "optimizer.learning_rate=1e-4", "temperature_steps=none")
    sweep = read_sweep(path, Changes("small", "qvae", (5,), settings))
    first, second = plan(sweep, tmp_path)
    assert (first.seed, first.name, second.name) == (5, "a", "b")
    for job, size in ((first, 12), (second, 3)):
        wanted = [*settings, "model.weights.kl=1e-5", "seed=5", f"model.latent.size={size}"]
        assert job.config == load_preset("small", "qvae", wanted)
    # A setting that one run has for itself is not for all.
    with pytest.raises(
        ConfigError, match=r"mine\.yaml: model\.latent\.size=4 cannot be for all runs: 'b' has a"
    ):
        read_sweep(path, Changes(settings=("model.latent.size=4",)))


def test_those_that_come_along():
    """How many runs each has is asked in tests/test_rayshapes_choosing.py."""
    assert sweep_names() == [
        *("beyond", "choose", "choose_long", "codebook", "codebooks", "correlated", "estimators", "first"),
        *("gamma", "hues", "length", "models", "models_long", "orientation", "stability"),
    ]
    assert not set(sweep_names()) & set(preset_names())
    runs = {name: plan(read_sweep(name), pathlib.Path("out")) for name in sweep_names()}
    configs = {name: {job.name: job.config for job in jobs} for name, jobs in runs.items()}
    assert list(configs["models"]) == model_names()[:12]  # the paper's nine first
    assert configs["models"]["qlae"].model == load_preset("rayshapes", "qlae").model
    codebook = configs["codebook"].values()
    assert [config.model.latent.codebook_size for config in codebook] == [16, 32, 64, 128, 64, 64, 64, 64, 64]
    rates = [config.optimizer.codebook_learning_rate for config in codebook][4:7]
    assert rates == [2e-3, 6e-3, 6e-2]
    precisions = [(config.model.latent.precision, config.model.latent.learn_precision) for config in codebook]
    assert precisions[7:] == [(4, False), (1, True)] and set(precisions[:7]) == {(1, False)}
    without, *others = configs["gamma"].values()
    assert without.model.weights.total_correlation == 0
    assert [each.model.weights.total_correlation for each in others] == [
        *(2e-4, 5e-4, 2e-3, 8e-3),
        *(0, 5e-4),  # of FactorVAE
    ]
    # A discriminator has half of the images to itself.
    assert all(
        each.batch_size == (2 if each.model.has_discriminator else 1) * without.batch_size for each in others
    )
    assert [each.model.has_discriminator for each in others] == [True] * 4 + [False, True]
    strengths = [config.data.strength for config in configs["correlated"].values()]
    assert strengths == [0, 0.5, 0.9] * 5
    books = [config.model.latent for config in configs["codebooks"].values()]
    assert [(each.kind, each.codebooks, each.dimension) for each in books] == [
        *[("scalar", "shared", 1)] * 2,
        *[("scalar", "per_latent", 1)] * 2,
        *[("vector", "shared", 4)] * 2,
        *[("vector", "shared", 16)] * 2,
    ]
    latents = [config.model.latent for config in configs["estimators"].values()]
    assert [(each.estimator, each.hard) for each in latents] == [
        *(("gumbel", False), ("gumbel", True)),
        *(("straight_through", False), ("reinmax", False), ("reinmax", False)),
        *[("nearest", False)] * 2,
    ]
    nearest = configs["estimators"]["nearest"]
    assert nearest.batch_size == without.batch_size and not nearest.model.has_discriminator
    assert {each.model.name for each in configs["beyond"].values()} == {"factorqvae"}
    assert configs["beyond"]["as chosen"] == dataclasses.replace(configs["models"]["factorqvae"], seed=101)
    lengths = [(config.steps, config.model.weights.kl) for config in configs["length"].values()]
    assert lengths == 2 * [(steps, beta) for steps in (3000, 6000, 12000) for beta in (3e-3, 1e-2, 3e-2)]
    assert [(job.name, job.seed) for job in runs["first"]] == [
        (name, seed) for seed in (0, 1) for name in ("factorqvae", "qvae", "vae", "ae")
    ]
    assert {job.config.steps for job in runs["first"]} == {3000}


def test_they_are_shipped():
    pyproject = pathlib.Path(__file__).parents[2] / "pyproject.toml"
    if not pyproject.exists():
        pytest.skip("this is not the source tree")
    assert '"configs/sweeps/*.yaml"' in pyproject.read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": [1]}, "unknown key 'seed'; did you mean 'seeds'?"),
        ({"Runs": {}}, "unknown key 'Runs'; did you mean 'runs'?"),
        ({"preset": None}, "the key 'preset' is missing"),
        ({"seeds": None}, "the key 'seeds' is missing"),
        ({"runs": None}, "the key 'runs' is missing"),
        ({"preset": "smok"}, "runs, 'factorqvae': there is no preset 'smok'; did you mean 'smoke'?"),
        ({"seeds": 3}, "seeds must be a list of whole numbers, at least 0, but was 3"),
        ({"seeds": []}, "seeds must be a list of whole numbers, at least 0, but was []"),
        ({"seeds": [0, -1]}, "at least 0, but was [0, -1]"),
        ({"seeds": [0, True]}, "at least 0, but was [0, True]"),
        ({"seeds": [0, 1, 0]}, "seeds must be different ones, but were [0, 1, 0]"),
        ({"settings": [1]}, "settings must be a mapping of keys to values, but was [1]"),
        ({"settings": {"step": 1}}, "runs, 'factorqvae': unknown key 'step'; did you mean 'steps'?"),
        ({"settings": {"steps": [1, 2]}}, "runs, 'factorqvae': steps must be a single value, but was [1, 2]"),
        ({"settings": {3: 4}}, "settings: the key 3 is not a text; write it in quotes"),
        ({"settings": {"seed": 4}}, "'seed' is no setting of a sweep; its seeds stand under 'seeds'"),
        ({"evaluate": {"tran": 1}}, "unknown key 'evaluate.tran'; did you mean 'train'?"),
        ({"evaluate": {"train": "many"}}, "evaluate.train must be a whole number, but was 'many'"),
        ({"evaluate": {"train": 0}}, "evaluate.train must be at least"),
        ({"evaluate": {"classifier": "forest"}}, "evaluate.classifier must be"),
        ({"grid": [1]}, "grid must be a mapping of keys to values, but was [1]"),
        ({"grid": {"steps": 3}}, "grid: steps must be a list of values, but was 3"),
        ({"grid": {"steps": []}}, "grid: steps must be a list of values, but was []"),
        ({"grid": {"steps": [3, 3]}}, "grid: steps must have different values, but had [3, 3]"),
        ({"grid": {"data.root": ["a/b", "a:b"]}}, "would both be named 'root a-b'; list them as runs"),
        ({"grid": {"step": [3]}}, "runs, 'step 3': unknown key 'step'; did you mean 'steps'?"),
        ({"grid": {"seed": [3, 4]}}, "runs, 'seed 3': 'seed' is no setting of a sweep"),
        ({"grid": {"model": ["vae"]}}, "runs and grid both have a run 'vae'"),
        ({"runs": {}}, "runs must name at least one run"),
        ({"runs": ["ae"]}, "runs must be a mapping of keys to values, but was ['ae']"),
        ({"runs": {"a": None}}, "runs, 'a' must be a mapping of keys to values, but was None"),
        ({"runs": {32: {}}}, "runs: the key 32 is not a text; write it in quotes"),
        ({"runs": {"a": {"seed": 1}}}, "runs, 'a': 'seed' is no setting of a sweep"),
        ({"runs": {"a": {"model": "vqvae"}}}, "runs, 'a': there is no model 'vqvae'; did you mean 'qvae'?"),
        ({"runs": {"a": {"kl": 1}}}, "runs, 'a': unknown key 'kl'; did you mean 'model.weights.kl'?"),
        ({"runs": {"a": {"steps": 0}}}, "runs, 'a': steps must be finite and at least 1, but was 0"),
        ({"runs": {"a": {"data.strength": 2}}}, "runs, 'a': data.strength was 2.0, but correlated names no"),
        ({"runs": {"a": {}, "b": {"model": "factorqvae"}}}, "runs: 'a' and 'b' are the same configuration"),
        ({"runs": {"vae": {}, "VAE": {"model": "vae"}}}, "'vae' and 'VAE' differ only in capital letters"),
        (
            {"runs": {"a": {}, "b": {"data.size": 64}}},
            "runs: 'a' and 'b' cannot be compared: their images are rayshapes, size 32 and",
        ),
        *(
            ({"runs": {name: {}}}, f"runs: {name!r} cannot be the name of a folder here")
            for name in (
                "",
                ".",
                "..",
                "a/b",
                "a\\b",
                "../up",
                " a",
                "a ",
                "a.",
                "-a",
                "K=3",
                "a\nb",
                "\u03b3",
                "a" * 65,
                "Comparison.md",
                "sweep.yaml",
                "comparison-kl.png",
                "sweep.lock",
            )
        ),
    ],
)
def test_errors(changes, words, tmp_path):
    path = written(tmp_path, **changes)
    with pytest.raises(ConfigError) as error:
        read_sweep(path)
    assert str(error.value).startswith(f"{path}: ") and words in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a sweep file must be a mapping of keys to values, but was None"),
        ("smoke", "a sweep file must be a mapping of keys to values, but was 'smoke'"),
        ("preset: [", "it is not YAML: while parsing"),
        ("preset: smoke\nseeds: [0]\nruns:\n  a: {}\n  a: {model: vae}\n", "line 4: 'a' is there twice"),
        ("a: !!python/object/apply:os.getcwd []", "it is not YAML: could not determine a constructor"),
        ("{[1]: 2}", "it is not YAML: while constructing a mapping"),
    ],
)
def test_texts_that_are_no_sweep(text, words, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        read_sweep(tmp_path / "bad.yaml")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"preset: \xff\xfe")
    with pytest.raises(ConfigError, match=r"bad\.yaml: it is not YAML: unacceptable character"):
        read_sweep(tmp_path / "bad.yaml")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["modles"],
            "there is no sweep 'modles'; did you mean 'models'? There are beyond, choose, choose_long,",
        ),
        (["other.yaml"], "there is no sweep file other.yaml"),
        (["folder/x"], "there is no sweep file folder/x"),
        (["folder"], "there is no sweep 'folder'. There are beyond, choose, choose_long,"),
        (
            [],
            "name one sweep (beyond, choose, choose_long, codebook, codebooks, correlated, estimators,",
        ),
        (["steps=3"], "or the path of one file, but was 'nothing'"),
        (
            ["first", "--seeds", "0,x"],
            "--seeds must be whole numbers with commas between them, but was '0,x'",
        ),
        (["first", "--seeds", "1,1"], "first: seeds must be different ones, but were (1, 1)"),
        (["first", "--preset", "smal"], "there is no preset 'smal'; did you mean 'small'?"),
        (
            ["first", "--model", "vae"],
            "model=vae cannot be for all runs: 'factorqvae' has a model of its own",
        ),
        (["first", "step=3"], "unknown key 'step'; did you mean 'steps'?"),
        (["first", "seed=3"], "first: 'seed' is no setting of a sweep; give its seeds as --seeds 0,1,2"),
        (
            ["codebook", "model.latent.codebook_size=16"],
            "model.latent.codebook_size=16 cannot be for all runs: 'K 16' has a model.latent.codebook_size",
        ),
        (["first", "models"], "or the path of one file, but was 'first models'"),
        (["first", "--jobs", "0"], "--jobs must be at least 1, but was 0"),
        (["bad.yaml"], "bad.yaml: the key 'preset' is missing"),
        (["first", "--out", "bad.yaml"], "bad.yaml"),
    ],
)
def test_errors_of_the_command_are_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("seeds: [1]")
    (tmp_path / "folder").mkdir()
    assert main(["sweep", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("fqvae: error: ") and words in error and error.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bad.yaml", "folder"]


def test_help_shows_the_format(capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    printed = capsys.readouterr().out
    assert "orientation, stability." in " ".join(printed.split())
    # The example in the help is a sweep file.
    example = printed[printed.index("    preset: smoke") : printed.index("Every run is trained")]
    assert yaml.safe_load(example)["runs"]["gamma 0"] == {
        "model": "factorqvae",
        "model.weights.total_correlation": 0,
    }


def test_a_list_of_commands_needs_no_yaml():
    code = "import fqvae.cli, fqvae.sweep, sys; sys.exit(any(m in sys.modules for m in ('yaml', 'sklearn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
