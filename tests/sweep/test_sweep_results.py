"""What a sweep tabulates, with a stand-in for the commands that leaves what each of them would leave."""

import json
import sys

import pytest

from fqvae.cli import main
from fqvae.runs import to_flat
from fqvae.runs.checkpoint import FORMAT, write_plain
from fqvae.sweep import plan, read_sweep, results
from fqvae.sweep.file import Changes
from fqvae.sweep.work import Work

TEXT = """
preset: smoke
seeds: [0, 1]
settings: {steps: 3000, model.latent.size: 2, model.latent.codebook_size: 8}
runs:
  a: {model: vae}
  b: {model: qvae}
"""
SCORES = ("disentanglement", "completeness", "informativeness", "infom", "infoc", "infoe", "mse")


def leave_checkpoint(job, step):
    job.folder.mkdir(parents=True, exist_ok=True)
    header = {"format": FORMAT, "config": to_flat(job.config), "step": step}
    write_plain({"fqvae": header, "state_dict": {}}, job.folder / "last.ckpt")
    (job.folder / "reconstructions.png").write_bytes(b"")


def leave_scores(job, value, step=None):
    content = {
        "format": 2,
        "versions": {},
        "model": job.words[3],
        "config": to_flat(job.config),
        "checkpoint": {"file": "last.ckpt", "sha256": "", "step": step or job.config.steps},
        "data": {
            "name": "rayshapes",
            "size": 32,
            "factor_names": ["hue"],
            "factor_sizes": [4],
            "grid": True,
            "available": 1000,
        },
        "options": {
            "train": 100,
            "test": 50,
            "seed": 0,
            "classifier": "boosting",
            "order": "rank",
            "protocol": "held-out",
        },
        "measures": {name: {"value": value, "version": 1} for name in SCORES},
        "tables": {"nmi": {"value": [[1.0, 0.0]], "version": 1}},
        "cautions": {},
        "seconds": {"encoding": 1.0, "dci": 1.0},
    }
    (job.folder / "metrics.json").write_text(json.dumps(content))


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """What the page is asked to show; it cannot open checkpoints without weights."""
    calls = []

    def build_comparison(runs, out, *, title):
        calls.append([(each.folder, each.label, each.group, each.traversal) for each in runs])
        if any(each.folder.parent.name == "too large" for each in runs):
            raise ValueError("the page would be too large")
        out.write_text(title)
        return out

    monkeypatch.setattr(results, "build_comparison", build_comparison)
    return calls


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pair.yaml"
    path.write_text(TEXT)
    return path


def rows(markdown):
    lines = [line.split("|") for line in markdown.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line[1:4]] for line in lines]


@pytest.mark.parametrize(("status", "line"), [(0, None), (143, "ended by SIGTERM at step 100 of 3000")])
def test_only_runs_with_all_their_steps(status, line, file, tmp_path, shown, monkeypatch, capsys):
    """b, seed 0 is ended at step 100; whatever its training says about that, it is not in the table."""
    out = tmp_path / "out"
    jobs = {job.title: job for job in plan(read_sweep(file), out)}
    evaluated = []

    def stages(self, job):
        early = job.title == "b, seed 0"
        leave_checkpoint(job, 100 if early else 3000)
        (job.folder / "metrics.csv").write_text(f"step,loss\n{100 if early else 3000},0.5\n")
        code = f"print({line!r}); raise SystemExit({status})" if early and line else ""
        yield from _first(Work.original(self, job), job, [sys.executable, "-S", "-c", code])
        evaluated.append(job.title)
        leave_scores(job, 0.25 if job.seed == 0 else 0.75)

    def _first(stages, job, command):
        """The original stages up to the evaluation, with another command for the training."""
        (job.folder / "reconstructions.png").unlink()  # else it would count as trained
        assert next(stages)[0] == "training"
        yield "training", command
        leave_checkpoint(job, 100 if job.title == "b, seed 0" else 3000)
        assert next(stages)[0] == "evaluating"

    monkeypatch.setattr(Work, "original", Work.stages, raising=False)
    monkeypatch.setattr(Work, "stages", stages)
    assert main(["sweep", str(file), "--out", str(out)]) == 1
    printed, errors = capsys.readouterr()
    assert evaluated == ["a, seed 0", "a, seed 1", "b, seed 1"]
    text = (out / "comparison.md").read_text()
    assert text in printed
    assert rows(text) == [["a", "2", "0.500 ± 0.354"], ["b", "1", "0.750"]]
    reason = f"step 100 of 3,000: {line}" if line else "training ended early: step 100 of 3,000"
    assert text.splitlines()[-1] == f"Left out: b, seed 0: {reason}"
    failure = line or reason
    log = jobs["b, seed 0"].log
    assert errors.splitlines()[-1] == f"fqvae: error: b, seed 0: {failure} ({log})"
    assert shown == [
        [
            (out / "a" / "seed-0", "a, seed 0", "a", True),
            (out / "a" / "seed-1", "a, seed 1", "a", False),
            (out / "b" / "seed-1", "b, seed 1", "b", True),
        ]
    ]
    assert (out / "comparison.html").read_text() == "Sweep pair"


def test_a_page_that_cannot_be_written(file, tmp_path, monkeypatch, capsys):
    file.write_text(TEXT.replace("a: {", "too large: {"))

    def stages(self, job):
        leave_checkpoint(job, job.config.steps)
        leave_scores(job, 0.5)
        yield from ()

    monkeypatch.setattr(Work, "stages", stages)
    out = tmp_path / "out"
    assert main(["sweep", str(file), "--out", str(out)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"fqvae: error: {out / 'comparison.html'} was not written: the page would be too large"
    assert (out / "comparison.md").exists() and (out / "comparison-model.svg").exists()


def test_without_any_run_nothing_is_written(file, tmp_path, monkeypatch, capsys):
    def stages(self, job):
        raise ValueError("no")
        yield

    monkeypatch.setattr(Work, "stages", stages)
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 1
    printed, errors = capsys.readouterr()
    assert printed == "" and errors.count("fqvae: error: ") == 4
    assert not (tmp_path / "out" / "comparison.md").exists()


def test_another_sweep_in_the_folder_is_refused(file, tmp_path, monkeypatch, capsys):
    """The same command goes on, one with more seeds or runs too; another is refused, with the difference."""

    def stages(self, job):
        leave_checkpoint(job, job.config.steps)
        leave_scores(job, 0.5)
        yield from ()

    monkeypatch.setattr(Work, "stages", stages)
    monkeypatch.setattr(results, "plots", lambda *_: {})  # they take seconds

    def sweep(*words):
        status = main(["sweep", str(file), "--out", str(tmp_path / "out"), *words])
        return status, capsys.readouterr().err.splitlines()[-1:]

    same = ("batch_size=32", "--seeds", "0,1", "--preset", "smoke")
    for words in (same, same, ("batch_size=32.0", "--dry-run"), ("batch_size=32", "--seeds", "2,1,0")):
        assert sweep(*words)[0] == 0, words
    assert rows((tmp_path / "out" / "comparison.md").read_text()) == [
        [name, "3", "0.500 ± 0.000"] for name in ("a", "b")
    ]
    record = (tmp_path / "out" / "sweep.yaml").read_bytes()
    assert plan(read_sweep(tmp_path / "out" / "sweep.yaml"), tmp_path) == plan(
        read_sweep(file, Changes(seeds=(2, 1, 0), settings=("batch_size=32",))), tmp_path
    )
    text = file.read_text()
    for words, change, difference in (
        (("--seeds", "0,1,2"), None, "batch_size is 32 there and 64 here"),
        (("batch_size=16", "--seeds", "0,1,2"), None, "batch_size is 32 there and 16 here"),
        (("batch_size=32", "--seeds", "1,2"), None, "seed 0 is there and not here"),
        (("batch_size=32", "--seeds", "0,1,2", "--preset", "small"), None, "log_every is 50 there and 100"),
        (("batch_size=32", "--seeds", "0,1,2"), ("b: {", "c: {"), "the run 'b' is there and not here"),
        (("batch_size=32", "--seeds", "0,1,2"), ("qvae", "ae"), "model.latent.kind is 'scalar' there and"),
    ):
        file.write_text(text.replace(*change) if change else text)
        for more in ((), ("--dry-run",)):
            status, (error,) = sweep(*words, *more)
            assert status == 1 and f"out holds another sweep: {difference}" in error, error
            assert error.endswith("; take another --out")
    assert (tmp_path / "out" / "sweep.yaml").read_bytes() == record


def test_plots(tmp_path, monkeypatch, capsys):
    """One for each setting that is swept, with the mean over the seeds of those that are in the table."""
    (tmp_path / "grid.yaml").write_text(
        TEXT.partition("runs:")[0] + "grid: {model: [qvae, dvae], model.weights.kl: [0.1, 1]}"
    )

    def stages(self, job):
        if job.title == "dvae kl 1, seed 1":
            raise ValueError("no")
        leave_checkpoint(job, job.config.steps)
        leave_scores(job, job.config.model.weights.kl + job.seed)
        yield from ()

    drawn = {}

    def measures_against(setting, points, labels):
        drawn[setting] = [
            (each.setting, each.line, each.seeds, round(each.mean["mse"], 9)) for each in points
        ]
        return original(setting, points, labels)

    original = results.measures_against
    monkeypatch.setattr(results, "measures_against", measures_against)
    monkeypatch.setattr(Work, "stages", stages)
    assert main(["sweep", str(tmp_path / "grid.yaml"), "--out", str(tmp_path / "out")]) == 1
    expected = [("qvae", 0.1, 2, 0.6), ("qvae", 1, 2, 1.5), ("dvae", 0.1, 2, 0.6), ("dvae", 1, 1, 1)]
    assert drawn == {
        "model": [(model, f"kl {float(kl)}", *rest) for model, kl, *rest in expected],
        "model.weights.kl": [(kl, f"model {model}", *rest) for model, kl, *rest in expected],
    }
    names = {each.name for each in (tmp_path / "out").glob("comparison-*")}
    assert names == {f"comparison-{key}.{kind}" for key in ("model", "kl") for kind in ("png", "svg")}
    assert str(tmp_path / "out" / "comparison-kl.svg") in capsys.readouterr().out


def test_runs_on_other_images_of_one_set(tmp_path, monkeypatch, capsys):
    """As a sweep over data.arguments has them, with other digests; their texts are too long for ticks."""
    arguments = [
        json.dumps({"size": 32, "floor_hue": hues, "wall_hue": hues}) for hues in ([0, 2, 4], [0, 1, 2])
    ]
    runs = "".join(
        f"  {name}: {{model: qvae, data.arguments: '{each}'}}\n"
        for name, each in zip("ab", arguments, strict=True)
    )
    text = TEXT.partition("runs:")[0].replace("{steps", '{data.name: "fqvae.data.rooms:some_rooms", steps')
    (tmp_path / "sets.yaml").write_text(f"{text}runs:\n{runs}")

    def stages(self, job):
        leave_checkpoint(job, job.config.steps)
        leave_scores(job, 0.5)
        path = job.folder / "metrics.json"
        content = json.loads(path.read_text())
        content["data"]["images"] = job.config.data.arguments
        path.write_text(json.dumps(content))
        yield from ()

    monkeypatch.setattr(Work, "stages", stages)
    assert main(["sweep", str(tmp_path / "sets.yaml"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "Caution: runs of other data.arguments were measured on other images." in printed
    assert [row[0] for row in rows((tmp_path / "out" / "comparison.md").read_text())][-2:] == ["a", "b"]
    picture = (tmp_path / "out" / "comparison-arguments.svg").read_text()
    assert "<!-- a -->" in picture and "floor_hue" not in picture
