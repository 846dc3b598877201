"""The moving traversal, read back with Pillow."""

import io

import numpy as np
import pytest

pytest.importorskip("matplotlib")
image_module = pytest.importorskip("PIL.Image")

from fqvae.figures import animate  # noqa: E402


def plain(levels, size=32, channels=3):
    """An image of one grey level for each number: uint8 (steps, C, size, size)."""
    column = np.asarray(levels, np.uint8)[:, None, None, None]
    return np.broadcast_to(column, (len(levels), channels, size, size))


def frames(content):
    """uint8 (frames, H, W, 3)."""
    with image_module.open(io.BytesIO(content)) as file:
        assert file.format == "GIF" and file.info["loop"] == 0 and file.info["duration"] == 140
        found = []
        for number in range(file.n_frames):
            file.seek(number)
            found.append(np.asarray(file.convert("RGB")))
    return np.stack(found)


def test_all_latents_move_there_and_back():
    rows = [plain([0, 60, 120, 180, 240]), plain([200, 20]), plain([100]), plain([10, 90, 170])]
    found = frames(animate(rows, ["a", "b", "c", "d"]))
    assert len(found) == 8  # 0 1 2 3 4 3 2 1
    # Two rows of two images, 96 pixels each, 8 pixels apart and 16 for a label.
    centres = [(56, 56), (56, 160), (176, 56), (176, 160)]
    expected = [
        [0, 60, 120, 180, 240, 180, 120, 60],
        [200, 200, 20, 20, 20, 20, 20, 200],
        [100] * 8,
        [10, 90, 90, 170, 170, 170, 90, 90],
    ]
    for (y, x), levels in zip(centres, expected, strict=True):
        shown = found[:, y - 40 : y + 40, x - 40 : x + 40].astype(int)
        assert np.abs(shown - np.array(levels)[:, None, None, None]).max() <= 6
    # Labels: dark letters below each image.
    for y, x in centres:
        assert found[0, y + 48 : y + 66, x - 48 : x + 48].min() < 100


def test_large_ones_are_drawn_smaller():
    generator = np.random.default_rng(0)
    noise = [generator.integers(256, size=(10, 3, 32, 32), dtype=np.uint8) for _ in range(12)]
    content = animate(noise, [f"latent {number}" for number in range(12)])
    assert len(content) < 1_000_000 and frames(content).shape[2] < 8 + 4 * (96 + 8)


def test_grey_and_single_images():
    found = frames(animate([plain([77], channels=1)], ["a very long name that does not fit below it"]))
    assert found.shape == (1, 128, 112, 3)
    assert np.abs(found[0, 8:104, 8:104].astype(int) - 77).max() <= 2
    assert (found[0, :, 105:] > 240).all()  # the label is cut


@pytest.mark.parametrize(
    ("images", "labels", "options", "error", "words"),
    [
        ([], [], {}, ValueError, "rows of one image size"),
        ([plain([1]), plain([1], 16)], ["a", "b"], {}, ValueError, "rows of one image size"),
        ([plain([1])], ["a", "b"], {}, ValueError, "labels must be given for each of 1 rows"),
        ([plain([1]) / 255], ["a"], {}, TypeError, "images must be uint8"),
        ([plain([1], channels=2)], ["a"], {}, ValueError, r"\(images, 1 or 3, S, S\)"),
        ([plain([1])], ["a"], {"milliseconds": 5}, ValueError, "at least 20, but was 5"),
    ],
)
def test_errors(images, labels, options, error, words):
    with pytest.raises(error, match=words):
        animate(images, labels, **options)
