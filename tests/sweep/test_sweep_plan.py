"""How far the runs of a sweep are, told from their folders."""

import shutil

import pytest

from fqvae.cli import main
from fqvae.models import ConfigError
from fqvae.runs import to_flat
from fqvae.runs.checkpoint import FORMAT, CheckpointError, write_plain
from fqvae.sweep import plan, read_sweep
from fqvae.sweep.plan import check_unchanged, clear_leftovers, evaluate_words, steps_logged, train_words

TEXT = """
preset: smoke
seeds: [0, 1]
settings: {steps: 40}
evaluate: {train: 300, order: index}
runs:
  a: {model: vae}
  b: {model: ae}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pair.yaml"
    path.write_text(TEXT)
    return path


def checkpoint(job, step, picture=False):
    """What a run leaves; without weights, which a plan does not look at."""
    job.folder.mkdir(parents=True, exist_ok=True)
    header = {"format": FORMAT, "config": to_flat(job.config), "step": step}
    write_plain({"fqvae": header, "state_dict": {}}, job.folder / "last.ckpt")
    if picture:
        (job.folder / "reconstructions.png").write_bytes(b"")


def test_words(file, tmp_path):
    job = plan(read_sweep(file), tmp_path / "out")[0]
    words = ["train", "smoke", "--model", "vae", "steps=40", "seed=0"]
    folder = str(tmp_path / "out" / "a" / "seed-0")
    assert train_words(job) == [*words, "--out", folder]
    checkpoint(job, 20)
    assert train_words(job) == [*words, "--resume", folder]
    checkpoint(job, 40)  # killed before its picture was there
    assert train_words(job) == [*words, "--resume", folder]
    checkpoint(job, 40, picture=True)
    assert train_words(job) is None
    assert evaluate_words(job, read_sweep(file).evaluate) == [
        *["evaluate", folder, "--train=300", "--seed=0", "--classifier=boosting"],
        *["--order=index", "--protocol=held-out"],
    ]


@pytest.mark.parametrize("step", [20, 40])
def test_another_configuration(step, file, tmp_path, capsys):
    jobs = plan(read_sweep(file), tmp_path / "out")
    checkpoint(jobs[3], step, picture=step == 40)
    check_unchanged(jobs)
    before = (jobs[3].folder / "last.ckpt").read_bytes()
    file.write_text(TEXT.replace("{model: ae}", "{model: ae, batch_size: 32}"))
    with pytest.raises(ConfigError, match="batch_size is 64 there and 32 here; change it back, name another"):
        check_unchanged(plan(read_sweep(file), tmp_path / "out"))
    # The command stops before it has done anything.
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert f"{jobs[3].folder} was trained with another configuration than b, seed 1 has now: batch" in error
    assert (jobs[3].folder / "last.ckpt").read_bytes() == before
    assert sorted(each.name for each in (tmp_path / "out").rglob("*") if each.is_file()) == [
        "last.ckpt",
        *(["reconstructions.png"] if step == 40 else []),
    ]


def test_a_damaged_checkpoint_stops_only_its_own_run(file, tmp_path, capsys):
    jobs = plan(read_sweep(file), tmp_path / "out")
    checkpoint(jobs[0], 20)
    whole = (jobs[0].folder / "last.ckpt").read_bytes()
    (jobs[0].folder / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    check_unchanged(jobs)
    with pytest.raises(CheckpointError, match="is damaged"):
        train_words(jobs[0])
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a, seed 0: cannot go on: ") and lines[1].startswith("b, seed 0: new: fqvae ")


def test_leftovers(file, tmp_path):
    job = plan(read_sweep(file), tmp_path / "out")[0]
    clear_leftovers(job)
    assert not job.folder.exists()
    job.folder.mkdir(parents=True)
    names = ("config.yaml", "config.tmp", "events.out.tfevents.12.host.3.0", "hparams.yaml", "metrics.csv")
    for name in (*names, "last.ckpt.77.tmp"):
        (job.folder / name).write_text("x")
    clear_leftovers(job)
    assert not list(job.folder.iterdir())

    for name in ("config.yaml", "thesis.tex"):
        (job.folder / name).write_text("x")
    with pytest.raises(FileExistsError, match=r"seed-0 is in use by something else: there is thesis\.tex"):
        clear_leftovers(job)
    assert sorted(each.name for each in job.folder.iterdir()) == ["config.yaml", "thesis.tex"]
    (job.folder / "thesis.tex").unlink()
    (job.folder / "config.old").mkdir()
    with pytest.raises(FileExistsError, match=r"config\.old"):
        clear_leftovers(job)
    shutil.rmtree(job.folder)
    job.folder.write_text("a file")
    with pytest.raises(FileExistsError, match="seed-0"):
        clear_leftovers(job)
    assert job.folder.read_text() == "a file"

    job.folder.unlink()
    checkpoint(job, 20)
    (job.folder / "config.yaml").write_text("x")
    clear_leftovers(job)  # a run with a checkpoint stays as it is
    assert sorted(each.name for each in job.folder.iterdir()) == ["config.yaml", "last.ckpt"]


def test_steps_logged(file, tmp_path):
    job = plan(read_sweep(file), tmp_path / "out")[0]
    assert steps_logged(job) == 0
    job.folder.mkdir(parents=True)
    for text, steps in (("", 0), ("step,loss\n", 0), ("step,loss\n1,0.5\n20,0.4\n", 20)):
        (job.folder / "metrics.csv").write_text(text)
        assert steps_logged(job) == steps


def test_a_dry_run_does_nothing(file, tmp_path, capsys):
    jobs = plan(read_sweep(file), tmp_path / "out")
    checkpoint(jobs[1], 20)
    checkpoint(jobs[2], 40, picture=True)
    before = sorted(tmp_path.rglob("*"))
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a, seed 0: new: fqvae train smoke --model vae steps=40 seed=0 --out ")
    assert lines[1].startswith("b, seed 0: step 20 of 40: fqvae train smoke --model ae steps=40 seed=0 --res")
    assert lines[2:3] == ["a, seed 1: trained"] and len(lines) == 4
