"""Tiny runs, trained once for all tests of evaluation; `copy_of` gives a test one of its own."""

import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "training"))

# Enough for codes that say something of the images.
LONGER = ("steps=80", "log_every=40", "checkpoint_every=80", "optimizer.learning_rate=5e-3")
# Runs of a QVAE that go by another name.
SETTINGS = {
    "vector": ("model.latent.kind=vector", "model.latent.dimension=2"),
    "sorted": ("model.latent.sorted=true",),
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A function from a model's name to the folder of a run."""
    pytest.importorskip("lightning")
    from blobruns import run, tiny

    folders = {}

    def train(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name) / "run"
            model = "qvae" if name in SETTINGS else name
            run(folders[name], tiny(model, *LONGER, *SETTINGS.get(name, ())))
        return folders[name]

    return train


@pytest.fixture
def copy_of(trained, tmp_path):
    """A function that copies such a run into the test's folder."""

    def copy(name, to="run"):
        return shutil.copytree(trained(name), tmp_path / to)

    return copy
