"""Figures hold the data that they were given, whatever the caller's settings, and are saved whole or not."""

import itertools
import os
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
image_module = pytest.importorskip("PIL.Image")

from fqvae import figures  # noqa: E402
from fqvae.figures.style import SEQUENTIAL  # noqa: E402
from fqvae.runs import read_columns  # noqa: E402

GENERATOR = np.random.default_rng(0)


def pictures(count, size=32):
    return GENERATOR.integers(256, size=(count, 3, size, size), dtype=np.uint8)


def texts(axes):
    return [each.get_text() for each in axes.texts if each.get_text()]


def saved_pixels(figure, path):
    with image_module.open(figures.save(figure, path)[0]) as image:
        return np.asarray(image.convert("RGB"))


def cells(figure, path):
    """Of each image in a figure of images: what was given, and what stands in the PNG file in its place."""
    pixels = saved_pixels(figure, path)
    for image in figure.axes[0].images:
        left, right, bottom, top = map(int, image.get_extent())
        yield image.get_array(), pixels[top:bottom, left:right]


@pytest.mark.parametrize("size", [16, 32, 64, 150])
def test_images_stay_pixel_for_pixel(size, tmp_path):
    rows = [pictures(3, size), pictures(2, size)]
    figure = figures.traversals(rows, ["a", "b"], values=[["1", "2", "3"], ["4", "5"]], current=[0, 1])
    found = list(cells(figure, tmp_path / "rows"))
    assert len(found) == 5
    for given, (held, shown) in zip(np.concatenate(rows).transpose(0, 2, 3, 1), found, strict=True):
        scale = max(1, 128 // size)
        assert (held == given).all()
        assert (shown == given.repeat(scale, 0).repeat(scale, 1)).all()


def test_grey_images_stay_so(tmp_path):
    grey = pictures(3, 16)[:, :1]
    figure = figures.traversals([grey], ["a"], original=grey[0])
    for given, (held, shown) in zip([grey[0], *grey], cells(figure, tmp_path / "grey"), strict=True):
        assert (held == given[0][..., None]).all() and held.shape == (16, 16, 3)
        assert (shown == held.repeat(8, 0).repeat(8, 1)).all()


def test_traversals_are_labelled_and_marked():
    figure = figures.traversals(
        [pictures(3), pictures(2)],
        ["latent 0", "latent 1"],
        details=["hue 0.50\n3 codes", ""],
        values=[["-1.00", "0.50", "2.00"], ["0.10", "0.20"]],
        current=[2, 0],
        original=pictures(1)[0],
        caption="an image",
        title="Title",
        note="a note " * 40,
    )
    (axes,) = figure.axes
    assert len(axes.images) == 6
    found = texts(axes)
    for text in (
        "latent 0",
        "latent 1",
        "hue 0.50",
        "3 codes",
        "-1.00",
        "0.20",
        "an image",
        "Title",
        "image",
    ):
        assert found.count(text) == 1
    framed = [(patch.get_x() + 2, patch.get_y() + 2) for patch in axes.patches]
    corners = [(image.get_extent()[0], image.get_extent()[3]) for image in axes.images[1:]]
    assert framed == [corners[2], corners[3]]
    # Nothing that is written reaches beyond the paper.
    box = figure.bbox
    for text in axes.texts:
        extent = text.get_window_extent()
        assert box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 and extent.y1 <= box.y1


def test_code_usage_is_in_the_order_of_values():
    counts = np.array([[6, 0, 2, 2], [0, 4, 0, 0]])
    figure = figures.code_usage(counts, [0.5, -1, 3, -2.004], labels=["first", "second"], title="T", note="N")
    first, second = figure.axes
    assert [bar.get_height() for bar in first.patches] == [0.2, 0, 0.6, 0.2]
    assert [bar.get_height() for bar in second.patches] == [0, 1, 0, 0]
    assert [tick.get_text().replace("\N{MINUS SIGN}", "-") for tick in first.get_xticklabels()] == [
        "-2.00",
        "-1.00",
        "0.50",
        "3.00",
    ]
    assert first.get_title("left") == "first" and second.get_title("left") == "second"
    assert texts(first) == ["3 of 4 codes, perplexity 2.6"]  # exp(-(0.6 ln 0.6 + 0.4 ln 0.2)) = 2.59
    assert texts(second) == ["1 of 4 codes, perplexity 1.0"]
    assert figure.get_suptitle() == "T" and figure.get_supxlabel().endswith("\nN")

    own = figures.code_usage(counts, [[1, 2, 3, 4], [4, 3, 2, 1]])
    assert [bar.get_height() for bar in own.axes[0].patches] == [0.6, 0, 0.2, 0.2]
    assert [bar.get_height() for bar in own.axes[1].patches] == [0, 0, 1, 0]

    by_index = figures.code_usage(counts)
    assert [bar.get_height() for bar in by_index.axes[0].patches] == [0.6, 0, 0.2, 0.2]
    assert [tick.get_text() for tick in by_index.axes[0].get_xticklabels()] == ["0", "1", "2", "3"]
    assert "no order" in by_index.get_supxlabel()


def test_value_histograms():
    values = np.stack([np.arange(200) / 199 * 4 - 2, np.zeros(200)], 1)
    moving, still = figures.value_histograms(values, bins=4).axes
    assert [bar.get_height() for bar in moving.patches[1:]] == pytest.approx([0.25] * 4)
    assert [bar.get_height() for bar in still.patches[1:]] == [0, 0, 1, 0]
    assert moving.get_xlim() == still.get_xlim() == (-2, 2)
    band = moving.patches[0]
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((-1.96, 1.96))
    assert texts(still) == ["mean 0.00, standard deviation 0.00"]


def test_heatmap():
    matrix = np.array([[0.0, 0.254, 1.0], [0.5, np.nan, 0.9]])
    figure = figures.heatmap(
        matrix, ["hue", "size"], ["0", "1", "2"], title="T", column_axis="latent", scale="S"
    )
    axes, bar = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), matrix)
    assert axes.images[0].get_clim() == (0, 1)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["hue", "size"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1", "2"]
    assert texts(axes) == [".00", ".25", "1.00", ".50", "n/a", ".90"]
    places = [text.get_position() for text in axes.texts]
    assert places == [(column, row) for row in range(2) for column in range(3)]
    assert figure.get_suptitle() == "T" and axes.get_xlabel() == "latent" and bar.get_ylabel() == "S"


FACTORS = ["floor hue", "wall hue", "object hue", "scale", "shape", "orientation"]


@pytest.mark.parametrize("names", [list("012345"), FACTORS])
def test_names_of_columns_stand_beside_each_other(names):
    figure = figures.heatmap([[0.2] * 6] * 12, list("abcdefghijkl"), names)
    figure.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in figure.axes[0].get_xticklabels()]
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))
    assert min(box.y0 for box in boxes) > 0


def luminance(color):
    """Relative luminance of WCAG 2."""
    channels = np.asarray(matplotlib.colors.to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_colours_have_an_order_and_letters_a_contrast():
    levels = [luminance(SEQUENTIAL(place)) for place in np.linspace(0, 1, 101)]
    assert (np.diff(levels) < 0).all()
    matrix = np.linspace(0, 1, 41)[None]
    axes = figures.heatmap(matrix, ["row"], [""] * 41).axes[0]
    for number, text in zip(matrix[0], axes.texts, strict=True):
        low, high = sorted((luminance(SEQUENTIAL(number)), luminance(text.get_color())))
        assert (high + 0.05) / (low + 0.05) > 3.5


def test_training_curves():
    columns = {
        "step": [1, 2, 3],
        "loss": [0.3, 0.2, 0.1],
        "reconstruction": [0.2, 0.1, 0.05],
        "discriminator_accuracy": [0.5, 0.6, 0.8],
        "perplexity/00": [3, 2, 1],
        "perplexity/01": [4, 4, 4],
        "perplexity/pooled": [5, 5, 6],
        "images_per_second": [1, 1, 1],
    }
    figure = figures.training_curves(columns, title="run")
    lines = {axes.get_title("left"): axes.get_lines() for axes in figure.axes}
    assert list(lines) == ["loss", "discriminator's accuracy", "perplexity of codes"]
    drawn = [list(line.get_ydata()) for each in lines.values() for line in each]
    names = ["loss", "reconstruction", "discriminator_accuracy", "", "perplexity/00", "perplexity/01"]
    expected = [columns[name] if name else [0.5, 0.5] for name in [*names, "perplexity/pooled"]]
    assert drawn == expected
    assert all(list(line.get_xdata()) == [1, 2, 3] for line in lines["loss"])
    assert figure.axes[0].get_yscale() == "log" and figure.axes[1].get_yscale() == "linear"
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["loss", "reconstruction"]
    guessing = figure.axes[1].get_legend()
    assert [text.get_text() for text in guessing.get_texts()] == ["discriminator", "guessing: 0.5"]


def test_the_discriminator_beside_one_that_guesses():
    columns = {"step": [1, 2], "discriminator": [0.3, 0.2], "total_correlation": [1, 2]}
    estimate, loss = figures.training_curves(columns).axes
    assert estimate.get_title("left") == "total correlation,\nestimated by the discriminator (nats)"
    drawn, level = loss.get_lines()
    assert list(drawn.get_ydata()) == [0.3, 0.2]
    # Right or wrong with even odds: the cross-entropy is -ln(1/2).
    assert list(level.get_ydata()) == pytest.approx([-np.log(0.5)] * 2)
    assert loss.get_ylim()[0] < 0.2 and loss.get_ylim()[1] > 0.6931
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["discriminator", "guessing: 0.693"]


def test_read_columns(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,0.5\n2,0.25\n")
    assert read_columns(path) == {"step": [1, 2], "loss": [0.5, 0.25]}
    path.write_text("step,loss\n1,0.5\n2,0.25\n3,0.1")  # a kill: it may have been 0.125
    assert read_columns(path) == {"step": [1, 2], "loss": [0.5, 0.25]}
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv"):
        read_columns(tmp_path / "nothing.csv")
    for damaged in ("", "step,loss\n", "step,loss\n1,x\n", "step,loss\n1\n2,3\n"):
        path.write_text(damaged)
        with pytest.raises(ValueError, match=r"metrics\.csv is no table of numbers: "):
            read_columns(path)


@pytest.mark.parametrize(
    ("draw", "error", "words"),
    [
        (lambda: figures.traversals([pictures(2) / 255], ["a"]), TypeError, "images must be uint8"),
        (lambda: figures.traversals([pictures(0)], ["a"]), ValueError, r"but were \(0, 3, 32, 32\)"),
        (lambda: figures.traversals([pictures(2)[:, :2]], ["a"]), ValueError, "images, 1 or 3, S, S"),
        (lambda: figures.traversals([], []), ValueError, "rows of one image size, but were"),
        (
            lambda: figures.traversals([pictures(1), pictures(1, 16)], ["a", "b"]),
            ValueError,
            "one image size",
        ),
        (
            lambda: figures.traversals([pictures(1)], ["a", "b"]),
            ValueError,
            "labels must be given for each of 1",
        ),
        (lambda: figures.traversals([pictures(1)], ["a"], current=[]), ValueError, "current must be given"),
        (
            lambda: figures.traversals([pictures(2)], ["a"], values=[["1"]]),
            ValueError,
            "values must be given",
        ),
        (lambda: figures.code_usage([1, 2]), ValueError, "counts must be of shape"),
        (lambda: figures.code_usage([[1, 2], [0, 0]]), ValueError, r"with the sums \[3, 0\]"),
        (lambda: figures.code_usage([[1, 2]], [1]), ValueError, "values must be of shape"),
        (lambda: figures.value_histograms([1.0]), ValueError, "values must be of shape"),
        (lambda: figures.heatmap([[1]], ["a"], ["b", "c"]), ValueError, r"of shape \(1, 2\)"),
        (lambda: figures.heatmap([[1.1]], ["a"], ["b"]), ValueError, r"in \[0, 1\], but ran from 1.1 to 1.1"),
        (lambda: figures.training_curves({"step": [1], "x": [1]}), ValueError, "but held step, x"),
        (lambda: figures.training_curves({"step": [], "loss": []}), ValueError, "must hold step"),
        (lambda: figures.training_curves({"step": [1], "loss": []}), ValueError, "loss must have the length"),
    ],
)
def test_errors(draw, error, words):
    with pytest.raises(error, match=words):
        draw()


def test_saved_files_are_whole_and_the_same_again(tmp_path):
    figure = figures.heatmap([[0.2, 0.8]], ["a"], ["b", "c"])
    png, svg = figures.save(figure, tmp_path / "new" / "map.v1")
    assert (png.name, svg.name) == ("map.v1.png", "map.v1.svg")
    with image_module.open(png) as image:
        image.load()
        assert image.format == "PNG" and image.size == tuple((figure.get_size_inches() * 200).astype(int))
    root = ElementTree.parse(svg).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and len(list(root.iter())) > 50
    first = png.read_bytes(), svg.read_bytes()
    figures.save(figures.heatmap([[0.2, 0.8]], ["a"], ["b", "c"]), tmp_path / "new" / "map.v1")
    assert (png.read_bytes(), svg.read_bytes()) == first
    assert {each.name for each in (tmp_path / "new").iterdir()} == {"map.v1.png", "map.v1.svg"}


@pytest.mark.parametrize("fails", ["svg", "png", "rename"])
def test_a_failed_save_leaves_the_old_files(fails, tmp_path, monkeypatch):
    for suffix in ("png", "svg"):
        (tmp_path / f"map.{suffix}").write_text("old")
    figure = figures.heatmap([[0.2]], ["a"], ["b"])
    write, replace = figure.savefig, os.replace

    def savefig(path, *, format, **options):
        write(path, format=format, **options)
        if format == fails:
            raise OSError("no space left on device")

    def rename(source, target):
        if fails == "rename":
            raise OSError("no space left on device")
        replace(source, target)

    monkeypatch.setattr(figure, "savefig", savefig)
    monkeypatch.setattr(os, "replace", rename)
    with pytest.raises(
        OSError, match=r"could not write .*map\.(png|svg), what was there is kept: no space left"
    ):
        figures.save(figure, tmp_path / "map")
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {
        "map.png": "old",
        "map.svg": "old",
    }


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not write"):
        figures.save(figures.heatmap([[0.2]], ["a"], ["b"]), tmp_path / "file" / "map")


def test_the_callers_settings_change_nothing_and_are_left_alone(tmp_path):
    def draw(name):
        return saved_pixels(figures.code_usage([[1, 2, 3]], [1, 2, 3], title="T"), tmp_path / name)

    plain = draw("plain")
    with matplotlib.rc_context({"font.size": 20, "savefig.bbox": "tight", "axes.facecolor": "red"}):
        before = matplotlib.rcParams.copy()
        np.testing.assert_array_equal(draw("other"), plain)
        assert matplotlib.rcParams.copy() == before


def test_pyplot_is_not_even_imported(tmp_path):
    code = f"""
import sys
import numpy as np
import matplotlib
before = matplotlib.rcParams.copy()  # dict(matplotlib.rcParams) would look for a backend, with pyplot
from fqvae import figures
images = np.zeros((2, 3, 8, 8), np.uint8)
drawn = [
    figures.traversals([images], ["a"], current=[0]),
    figures.code_usage([[1, 2]], [1.0, 2.0]),
    figures.value_histograms([[1.0], [2.0]]),
    figures.heatmap([[0.5]], ["a"], ["b"]),
    figures.training_curves({{"step": [1], "loss": [0.5]}}),
]
for number, figure in enumerate(drawn):
    figures.save(figure, {str(tmp_path)!r} + f"/{{number}}")
import matplotlib._pylab_helpers
assert "matplotlib.pyplot" not in sys.modules
assert not matplotlib._pylab_helpers.Gcf.figs
assert matplotlib.rcParams.copy() == before
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
