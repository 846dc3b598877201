"""benchmarks/rayshapes.py run: what is kept of runs, what is trained, and what git gets of it."""

import csv
import os
import shutil
import subprocess
import sys

import pytest
import rayshapes
from rayshapes import main
from rayshapes_runs import training
from rayshapes_runs.reading import read_results
from rayshapes_runs.store import Store, thinned
from rayshapes_runs.training import commit_folder
from storedruns import leave

from fqvae.evaluation import Options
from fqvae.sweep import plan, read_sweep
from fqvae.sweep.work import Work

TEXT = """
preset: smoke
seeds: [100, 101]
runs:
  vae: {model: vae}
  ae: {model: ae}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pair.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def trained(monkeypatch):
    """Stand-ins for training and evaluation, which leave scores; the titles of the runs, as they begin."""
    titles = []

    def stages(self, job):
        titles.append(job.title)
        assert self.threads == 1 and self.device == "cpu"
        yield "training", [sys.executable, "-S", "-c", f"raise SystemExit({'fails' in job.name:d})"]
        leave(job.folder, job, {"mse": len(titles)})

    monkeypatch.setattr(Work, "stages", stages)
    return titles


def run(file, tmp_path, *words):
    return main(
        [
            "--results",
            str(tmp_path / "results"),
            "run",
            str(file),
            "--scratch",
            str(tmp_path / "scratch"),
            *words,
        ]
    )


def git(folder, *words):
    return subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "somebody")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "somebody@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    git(tmp_path, "init", "-q")
    return tmp_path


def test_curves_keep_thirty_rows_with_both_ends():
    """Of rows 0 to 58 every second: 59 rows have 30 even numbers."""
    text = thinned({"step": list(range(59)), "loss": [each / 3 for each in range(59)]})
    rows = list(csv.reader(text.splitlines()))
    assert rows[0] == ["step", "loss"] and [int(row[0]) for row in rows[1:]] == list(range(0, 59, 2))
    assert rows[3] == ["4", "1.3333"]
    assert [row[0] for row in csv.reader(thinned({"step": [7, 8]}).splitlines())] == ["step", "7", "8"]
    assert thinned({"step": [5]}) == "step\n5\n"


def test_what_is_kept_is_not_trained_again(file, tmp_path, trained, capsys):
    assert run(file, tmp_path) == 0
    assert trained == ["vae, seed 100", "ae, seed 100", "vae, seed 101", "ae, seed 101"]
    assert "pair: 4 of 4 runs are there, 0 failed" in capsys.readouterr().out
    kept = sorted(each.relative_to(tmp_path / "results") for each in (tmp_path / "results").rglob("*.*"))
    assert [str(each) for each in kept][:3] == [
        f"pair/ae/seed-100/{name}" for name in ("config.yaml", "metrics.csv", "metrics.json")
    ]
    assert len(kept) == 12 and sum(each.stat().st_size for each in (tmp_path / "results").rglob("*.*")) < 12e4
    # One that is gone is trained, and it alone.
    (tmp_path / "results/pair/ae/seed-101/metrics.json").unlink()
    assert run(file, tmp_path) == 0 and trained[4:] == ["ae, seed 101"]
    assert run(file, tmp_path) == 0 and len(trained) == 5


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("model: vae}", "model: vae, beta: 1e-3}", "model.weights.kl is 0.0001 there and 0.001 here"),
        ("preset: smoke", "preset: smoke\nsettings: {steps: 9}", "steps is 3000 there and 9 here"),
        (
            "preset: smoke",
            "preset: smoke\nevaluate: {classifier: histogram}",
            "evaluate.classifier is 'boosting' there and 'histogram' here",
        ),
    ],
)
def test_results_of_another_configuration_are_refused(old, new, words, file, tmp_path, trained, capsys):
    assert run(file, tmp_path) == 0
    file.write_text(TEXT.replace(old, new))
    assert run(file, tmp_path) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "results/pair/vae/seed-100 has the results of another run than vae, seed 100" in error
    assert words in error and len(trained) == 4


def test_an_edited_configuration_file_is_found_out(file, tmp_path, trained):
    assert run(file, tmp_path) == 0
    store, options = Store(tmp_path / "results" / "pair"), Options()
    jobs = plan(read_sweep(file), tmp_path)
    assert all(store.has(job, options) for job in jobs)
    path = store.place(jobs[0]) / "metrics.json"
    path.write_text(path.read_text().replace('"steps": 3000', '"steps": 30'))
    with pytest.raises(ValueError, match="steps is 30 there and 3000 here"):
        store.has(jobs[0], options)
    path.write_text(path.read_text().replace('"step": 3000', '"step": 1500').replace("30,", "3000,"))
    with pytest.raises(ValueError, match="it was evaluated at step 1500"):
        store.has(jobs[0], options)


def test_the_same_run_of_another_experiment_is_copied(file, tmp_path, trained, capsys):
    assert run(file, tmp_path) == 0
    other = tmp_path / "other.yaml"
    more = "  again: {model: vae}\n  new: {model: vae, beta: 1e-3}\n"
    other.write_text(TEXT.split("  vae")[0].replace("[100, 101]", "[101, 102]") + more)
    assert run(other, tmp_path) == 0
    assert trained[4:] == ["new, seed 101", "again, seed 102", "new, seed 102"]
    results = tmp_path / "results"
    for name in ("metrics.json", "metrics.csv", "config.yaml"):
        one, two = results / "pair/vae/seed-101" / name, results / "other/again/seed-101" / name
        assert one.read_bytes() == two.read_bytes()
    assert "again, seed 101: as " in capsys.readouterr().out
    # Not one that was evaluated otherwise.
    third = tmp_path / "third.yaml"
    third.write_text(TEXT.replace("preset", "evaluate: {classifier: histogram}\npreset"))
    assert run(third, tmp_path) == 0 and len(trained) == 11


def test_codes_are_also_measured_by_index_where_that_is_asked_for(file, tmp_path, trained, monkeypatch):
    """Of the two models one has codes. The command is that of `fqvae evaluate`, into a folder of its own."""
    monkeypatch.setattr(rayshapes, "BY_INDEX", ("pair",))
    file.write_text(TEXT.replace("ae: {model: ae}", "dvae: {model: dvae}").replace("[100, 101]", "[7]"))
    commands = []

    class Remembers(training.Local):
        def __init__(self, stages, threads, note):
            def quick(job):
                for what, words in stages(job):
                    if "--order=index" in words:
                        commands.append(words)
                        leave(job.folder / "index", job, {"mse": 2}, options={"order": "index"})
                        words = [sys.executable, "-S", "-c", ""]
                    yield what, words

            super().__init__(quick, threads, note)

    monkeypatch.setattr(training, "Local", Remembers)
    assert run(file, tmp_path) == 0
    (words,) = commands
    assert words[1:5] == ["-m", "fqvae.sweep.child", "evaluate", str(tmp_path / "scratch/pair/dvae/seed-7")]
    assert words[words.index("--out") + 1] == str(tmp_path / "scratch/pair/dvae/seed-7/index")
    kept = tmp_path / "results" / "pair"
    assert (kept / "dvae/seed-7/index/metrics.json").is_file() and not (kept / "vae/seed-7/index").exists()
    found = read_results(tmp_path / "results", str(file))
    values = found.contents["dvae"][7]["scores"]
    assert found.by_index["dvae"][7]["mse"] == 2 and values["disentanglement_by_index"] == 0.5
    # Another experiment takes both, if it wants both.
    other = tmp_path / "other.yaml"
    other.write_text(file.read_text())
    monkeypatch.setattr(rayshapes, "BY_INDEX", ("pair", "other"))
    assert run(other, tmp_path) == 0 and len(trained) == 2
    assert read_results(tmp_path / "results", str(other)).by_index == found.by_index
    shutil.rmtree(tmp_path / "results" / "other")
    # What is of another checkpoint is refused.
    path = kept / "dvae/seed-7/index/metrics.json"
    path.write_text((text := path.read_text()).replace('"sha256": ""', '"sha256": "1"'))
    with pytest.raises(ValueError, match="another checkpoint"):
        read_results(tmp_path / "results", str(file))
    path.write_text(text)
    # Without it the run is not complete.
    (kept / "dvae/seed-7/index/metrics.json").unlink()
    assert run(file, tmp_path) == 0 and trained[2:] == ["dvae, seed 7"]


def test_a_failure_leaves_nothing_and_does_not_stop_the_others(file, tmp_path, trained, capsys):
    file.write_text(TEXT.replace("  vae:", "  fails:"))
    assert run(file, tmp_path, "--jobs", "2") == 1
    assert not (tmp_path / "results/pair/fails").exists()
    assert len(list((tmp_path / "results/pair/ae").iterdir())) == 2
    printed, errors = capsys.readouterr()
    assert "pair: 2 of 4 runs are there, 2 failed" in printed and errors.count("\nerror: fails, seed ") == 2


def test_after_the_minutes_no_run_begins(file, tmp_path, trained, monkeypatch, capsys):
    """The clock stands at 0 until two runs have begun, then at 61 seconds."""
    monkeypatch.setattr(training.time, "monotonic", lambda: 61.0 if len(trained) >= 2 else 0.0)
    assert run(file, tmp_path, "--minutes", "1") == 0
    assert trained == ["vae, seed 100", "ae, seed 100"]
    assert "pair: 2 of 4 runs are there, 0 failed" in capsys.readouterr().out


def test_each_run_is_a_commit_of_its_folder_alone(file, repository, trained):
    (repository / "mine.txt").write_text("not for this commit")
    git(repository, "add", "mine.txt")
    assert run(file, repository, "--commit") == 0
    assert git(repository, "log", "--format=%s", "--reverse").splitlines() == [
        f"RayShapes run: pair, {name}, seed {seed}" for seed in (100, 101) for name in ("vae", "ae")
    ]
    assert git(repository, "status", "--short", "mine.txt") == "A  mine.txt"
    assert len(git(repository, "show", "--format=", "--name-only").splitlines()) == 3
    # What an interruption has left uncommitted is committed by the next call, which trains nothing.
    git(repository, "reset", "-q", "HEAD~1")
    assert run(file, repository, "--commit") == 0 and len(trained) == 4
    assert git(repository, "log", "-1", "--format=%s") == "RayShapes runs: pair"
    assert run(file, repository, "--commit") == 0
    assert git(repository, "rev-list", "--count", "HEAD") == "4"


def test_a_commit_that_fails_is_told(tmp_path, monkeypatch):
    """Outside of a repository; five tries."""
    waited, notes = [], []
    monkeypatch.setattr(training.time, "sleep", waited.append)
    (tmp_path / "a").write_text("")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert not commit_folder(tmp_path, "a message", notes.append)
    assert len(waited) == 5 and "not a git repository" in notes[0]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--jobs", "0"], "--jobs must be at least 1, but was 0"),
        (["--minutes", "-1"], "--minutes must be positive, but was -1.0"),
    ],
)
def test_bad_options(words, error, file, tmp_path, capsys):
    assert run(file, tmp_path, *words) == 1
    assert error in capsys.readouterr().err
