"""The command line: a run from beginning to end, and errors of one line."""

import subprocess
import sys

import pytest

import fqvae
from fqvae.cli import main
from fqvae.runs.presets import preset_names

SMALL = ["model.network.channels=4", "model.discriminator.width=16", "batch_size=8", "steps=3"]


def test_train_and_resume(tmp_path, monkeypatch, capsys):
    pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "smoke", *SMALL, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("step 3 of 3: loss 0.") and "held_out 0." in printed
    assert printed.endswith("checkpoint and pictures are in runs/smoke-factorqvae\n")
    assert {"last.ckpt", "config.yaml", "metrics.csv", "reconstructions.png"} <= {
        each.name for each in (tmp_path / "runs" / "smoke-factorqvae").iterdir()
    }
    assert fqvae.load("runs/smoke-factorqvae").sample(1).shape == (1, 12)

    assert main(["train", "--resume", "runs/smoke-factorqvae", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("step 3 of 3: held_out 0.")
    assert main(["train", "smoke", "--model", "ae", *SMALL, "--out", "there", "--device", "cpu"]) == 0
    assert main(["train", "--device", "cpu", "smoke", *SMALL]) == 0
    assert (tmp_path / "runs" / "smoke-factorqvae-2" / "last.ckpt").exists()
    capsys.readouterr()

    assert main(["train", "smoke", *SMALL, "--out", "there"]) == 1
    assert capsys.readouterr().err.startswith("fqvae: error: there is in use;")
    assert main(["train", "smoke", *SMALL, "--resume", "there"]) == 1
    assert "belongs to another configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["smok"], "there is no preset 'smok'; did you mean 'smoke'? There are isaac3d,"),
        (["smoke", "--model", "vqvae"], "there is no model 'vqvae'; did you mean 'qvae'?"),
        (["smoke", "step=5"], "unknown key 'step'; did you mean 'steps'?"),
        ([], f"name a preset ({', '.join(preset_names())}), a file or a run to --resume"),
        (["--resume", "nothing"], "there is no run or checkpoint nothing"),
        (["--resume", "nothing", "--out", "new"], "--out does not go with --resume"),
        (["--resume", "nothing", "--model", "ae"], "--model, --protocol and settings need a preset"),
        (["--resume", "nothing", "--protocol", "ours"], "--model, --protocol and settings need a preset"),
        (["--resume", "nothing", "steps=4"], "--model, --protocol and settings need a preset"),
        (["shapes3d"], "shapes3d"),
        (["smoke", "data.name=cifar", "--out", "new"], "cifar"),
        (["smoke", "--out", "file/run"], "file/run"),
    ],
)
def test_errors_are_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["train", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("fqvae: error: ") and words in error and error.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_help_and_the_module(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--help"])
    assert exit_.value.code == 0
    assert "factorqvae" in capsys.readouterr().out
    result = subprocess.run(
        [sys.executable, "-m", "fqvae", "train", "x"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1 and result.stderr.startswith("fqvae: error: there is no preset 'x'")


def test_what_is_missing_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["train", "smoke", "--device", "cuda"]) == 1
    assert "device was 'cuda', but PyTorch finds no CUDA device here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_unknown_options(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["train", "smoke", "--steps", "3"])
    assert exit_.value.code == 2 and "unknown option --steps" in capsys.readouterr().err


def test_importing_needs_no_lightning():
    code = (
        "import fqvae, fqvae.cli, sys; "
        "sys.exit(any(m in sys.modules for m in ('lightning', 'yaml', 'PIL', 'matplotlib', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nobody_reads_what_is_printed(tmp_path):
    """Into a pipe whose reader is gone: no traceback, no word. A broken pipe elsewhere is still an error."""
    words = [sys.executable, "-m", "fqvae", "train", "smoke", "--keys"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(100) == 141
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "import fqvae.cli\n"
        "def run(arguments): raise BrokenPipeError('of a worker')\n"
        "fqvae.cli._run = run\n"
        "sys.exit(fqvae.cli.main([]))\n"
    )
    result = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "fqvae: error: of a worker\n")
