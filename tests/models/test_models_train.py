"""The models on the images they are made for: the first 200 steps of the smoke preset.

pytest -m slow -s tests/models/test_models_train.py    # prints the table
"""

import csv
import math

import pytest

from fqvae.data import RayShapes, split
from fqvae.models import to_float
from fqvae.runs import load_preset, model_names

pytest.importorskip("lightning")

STEPS, WINDOW = 200, 20


@pytest.fixture(scope="module")
def images():
    return RayShapes(32)


@pytest.fixture(scope="module")
def blind_error(images):
    """The least error without a look at the image: the variance of each pixel over the training images."""
    sample = to_float(images.images(split(images).train[:4000]))
    return (sample - sample.mean(0)).square().mean().item()


@pytest.fixture(scope="module")
def table():
    """Lines of a table, printed at the end."""
    head = ("model", "reconstruction 1-20", "181-200", "loss 1-20", "181-200")
    lines = [head, ("---",) * len(head)]
    yield lines
    print("\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def first_steps(config, dataset, path):
    """The metrics of the first steps, by name; the schedules are those of the whole run."""
    from lightning.pytorch import Trainer

    from fqvae.training.loggers import CsvFile
    from fqvae.training.module import Training

    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=STEPS,
        logger=CsvFile(path),
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    module = Training(config, dataset, split(dataset).train)
    trainer.fit(module)
    assert module.step == STEPS and config.steps == 3000
    with open(path, encoding="utf-8") as file:
        return {
            name: [float(value) for value in column] for name, *column in zip(*csv.reader(file), strict=True)
        }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated")
@pytest.mark.parametrize("name", model_names())
def test_losses_are_finite_and_fall(name, images, blind_error, table, tmp_path):
    """By a fifth at least, and to a tenth below the blind error.

    The loss is compared as it is: whatever a model's penalties, nearly all of it is the reconstruction error.
    But a network that ignores the image comes down from its random start as well, to the blind error. Only
    what passes through the latents goes below it. The two with logits are the slowest: they come to 0.7 of
    it, and with seeds 1 to 3 to between 0.50 and 0.85.
    """
    columns = first_steps(load_preset("smoke", name, ["log_every=1"]), images, tmp_path / "metrics.csv")
    assert columns["step"] == list(range(1, STEPS + 1))
    assert all(math.isfinite(value) for column in columns.values() for value in column)
    (error, last_error), (loss, last_loss) = (
        [sum(part) / WINDOW for part in (columns[key][:WINDOW], columns[key][-WINDOW:])]
        for key in ("reconstruction", "loss")
    )
    table.append((name, *(f"{value:.4f}" for value in (error, last_error, loss, last_loss))))
    assert last_error < 0.8 * error and last_loss < 0.8 * loss
    assert last_error < 0.9 * blind_error
