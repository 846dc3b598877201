"""The page of runs side by side: what is in it, and in a real Chromium."""

import base64
import io
import re

import chromium
import numpy as np
import pytest
import torch
from PIL import Image
from reportruns import BlobSet, make_run
from test_report_page import Page

from fqvae.cli import main
from fqvae.evaluation import Evaluation, Options, write_evaluation
from fqvae.report.build import LIMIT
from fqvae.report.compare import Compared, build_comparison
from fqvae.report.explorer import TooLargeError

NAMES = ("disentanglement", "completeness", "informativeness", "infom", "infoc", "infoe", "mse")


@pytest.fixture(autouse=True)
def blobs(monkeypatch):
    monkeypatch.setattr("fqvae.runs.run.open_data", lambda *_: BlobSet())


def evaluated(run, value, train=20):
    """Write the same value for all scores."""
    tables = {"nmi": np.full((4, 4), 0.5)}
    options = Options(train, 5, 5, "histogram")
    values = dict.fromkeys(NAMES, value)
    write_evaluation(run, Evaluation(options, train + 5, values, tables, {}, {"dci": 1.0}))


@pytest.fixture
def runs(tmp_path):
    """Two configurations, one with two seeds and an odd name, and one without scores or curves."""
    first = make_run(tmp_path / "<b>&amp;" / "seed-0")
    second = make_run(tmp_path / "<b>&amp;" / "seed-1", "factorqvae", "seed=1")
    third = make_run(tmp_path / "vae", "vae")
    (third.folder / "metrics.csv").unlink()
    evaluated(first, 0.25)
    evaluated(second, 0.75)
    group = "<b>&amp;"
    return [
        Compared(first.folder, f"{group}, seed 0", group),
        Compared(second.folder, f"{group}, seed 1", group, traversal=False),
        Compared(third.folder, "vae", "vae"),
    ]


def test_what_the_page_shows(runs, tmp_path):
    page = Page(build_comparison(runs, tmp_path / "new" / "page.html", title="A <i>sweep</i>"))
    assert len(page.source.encode()) < LIMIT and page.named("script") == []
    assert not re.search(r"url\(|@import|https?://|javascript|onerror", page.source)
    assert page.named("meta")[3]["content"].startswith("default-src 'none'; img-src data:")
    for _, attributes in page.tags:
        for key in ("src", "href", "srcset"):
            assert attributes.get(key, "data:").startswith("data:")
    assert "3 runs side by side A <i>sweep</i>" in page.text

    # Mean and sample standard deviation of 0.25 and 0.75, then each run.
    spread = "0.500 ± 0.354 " * 6 + "0.5 ± 0.354 "
    assert f"<b>&amp;, mean of 2 {spread}<b>&amp;, seed 0 " in page.text
    assert f"seed 0 {'0.250 ' * 6}0.25 <b>&amp;, seed 1 {'0.750 ' * 6}0.75 vae \u2013" in page.text
    assert "vae has no measures: there is no" in page.text and "vae has no curves: " in page.text
    assert "model.latent.kind scalar gaussian" in page.text and "steps 12" not in page.text
    # Curves of the two that have some, in one colour.
    lines = page.named("polyline")
    assert len(lines) == 2 * 6 and {each["class"] for each in lines} == {"c0"}
    # Traversals of two, and of which image.
    assert page.text.count("step 12, image ") == 2 and "the first one is shown" in page.text
    assert sum("--step" in each.get("style", "") for each in page.named("i")) == 2 * 4


def test_the_traversal_is_the_models(tmp_path):
    run = make_run(tmp_path / "run", "vae")
    other = make_run(tmp_path / "other", "vae", "seed=1")
    runs = [Compared(run.folder, "a", "a"), Compared(other.folder, "b", "a")]
    page = Page(build_comparison(runs, tmp_path / "page.html", title="t"))
    sheet = next(each["src"] for each in page.named("img") if each["alt"] == "Traversals of a")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.partition(",")[2]))).convert("RGB"))
    assert picture.shape == (4 * 16, 8 * 16, 3)
    number = int(re.search(r"a step 12, image (\d+)", page.text)[1])
    with torch.no_grad():
        codes = run.model.encode(BlobSet().images([number]))
        decoded = run.model.decode(codes)[0].numpy().transpose(1, 2, 0)
    marks = [dict(re.findall(r"--(\w+):(\d+)", each["style"])) for each in page.named("i")][:4]
    for mark in marks:  # the framed picture of each row is the image's own reconstruction
        row, step = 16 * int(mark["row"]), 16 * int(mark["step"])
        found = picture[row : row + 16, step : step + 16].astype(int)
        assert np.abs(found - np.clip(np.rint((decoded + 0.5) * 255), 0, 255)).max() <= 1


def test_scores_that_cannot_be_compared(tmp_path):
    runs = [make_run(tmp_path / name, "vae", f"seed={seed}") for seed, name in enumerate("ab")]
    evaluated(runs[0], 0.25)
    evaluated(runs[1], 0.75, train=15)
    compared = [Compared(run.folder, run.folder.name, "vae") for run in runs]
    text = Page(build_comparison(compared, tmp_path / "page.html", title="t")).text
    assert (
        "cannot be compared with each other:" in text and "options.train was 20 for the first and 15" in text
    )
    assert "mean of" not in text and "a 0.250" in text and "b 0.750" in text


def test_long_curves_and_a_model_without_codes(tmp_path):
    """Curves are thinned, from their first point to their last; a model with nothing to show is named."""

    def zero(model):
        for weight in model.encoder.parameters():
            weight.data.zero_()

    runs = [make_run(tmp_path / "good"), make_run(tmp_path / "bad", change=zero)]
    rows = "".join(f"{step},{1 - step / 2000}\n" for step in range(1, 1001))
    (runs[0].folder / "metrics.csv").write_text(f"step,reconstruction\n{rows}")
    compared = [Compared(run.folder, run.folder.name, run.folder.name) for run in runs]
    page = Page(build_comparison(compared, tmp_path / "page.html", title="t"))
    assert "the model has no codes" in page.text and page.text.count("latent 0") == 1
    line = next(each["points"].split() for each in page.named("polyline") if each["class"] == "c0")
    across = [float(point.split(",")[0]) for point in line]
    # Of a chart that is 340 wide, with 44 and 8 at the sides: step 1 to step 1,000 of 1,000.
    assert len(line) == 200 and across == sorted(across)
    assert (across[0], across[-1]) == (pytest.approx(44 + 288 / 1000, abs=0.06), 332)


def test_errors(runs, tmp_path, monkeypatch):
    for change, words in (({"steps": 1}, "steps must be at least 2"), ({"samples": 1}, "samples must be at")):
        with pytest.raises(ValueError, match=words):
            build_comparison(runs, tmp_path / "page.html", title="t", **change)
    for wrong in ([], [runs[0], runs[0]]):
        with pytest.raises(ValueError, match="runs must be at least one, with different labels"):
            build_comparison(wrong, tmp_path / "page.html", title="t")
    monkeypatch.setattr("fqvae.report.compare.LIMIT", 1_500_010)
    with pytest.raises(TooLargeError):
        build_comparison(runs, tmp_path / "page.html", title="t")
    assert not (tmp_path / "page.html").exists()


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("one/seed-0", "one/seed-1", "two/seed-0"):
        model = "vae" if name.startswith("two") else "factorqvae"
        # Where images lie makes no other configuration.
        make_run(tmp_path / name, model, f"seed={name[-1]}", f"data.root=images-{name[-1]}")
    assert main(["compare", "one/seed-0", "two/seed-0", "one/seed-1", "--steps", "4"]) == 0
    assert capsys.readouterr().out == "the comparison is comparison.html\n"
    page = Page(tmp_path / "comparison.html")
    # Runs that differ in their seed alone stand together, under the first one's name.
    assert re.findall(r"(\w+/seed-\d) step 12", page.text) == ["one/seed-0", "one/seed-1", "two/seed-0"]
    assert "3 runs" in page.text and len({each["class"] for each in page.named("polyline")}) == 2
    for arguments, words in (
        ([], "name at least two runs' folders, but was 'nothing'"),
        (["one/seed-0"], "name at least two runs' folders, but was 'one/seed-0'"),
        (["one/seed-0", "one/seed-0"], "name each run once, but one/seed-0 was named twice"),
        (["one/seed-0", "none"], "there is no run or checkpoint none"),
        (["one/seed-0", "one"], "there is no checkpoint last.ckpt in the folder one"),
        (["one/seed-0", "one/seed-1/last.ckpt"], "a run is named by its folder, but one/seed-1/last.ckpt is"),
    ):
        assert main(["compare", *arguments, "--out", "other.html"]) == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "other.html").exists()


def test_in_a_browser(runs, tmp_path):
    """Nothing is loaded, nothing complains, nothing is wider than the window; light and dark."""
    file = build_comparison(runs, tmp_path / "page.html", title="A sweep")
    with chromium.browser() as running:
        for width in (1280, 375):
            for scheme in ("light", "dark"):
                page = running.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
                problems, requests = [], []
                page.on("console", lambda message, all_=problems: all_.append(message.text))
                page.on("request", lambda request, all_=requests: all_.append(request.url))
                page.goto(file.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert (sum(map(int, re.findall(r"\d+", ground))) > 600) == (scheme == "light")
                # Pictures are decoded, and a row's name stands beside its pictures.
                assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
                for place in range(4):
                    name = page.locator(".names").first.locator("li").nth(place).bounding_box()
                    mark = page.locator(".sheet").first.locator("i").nth(place).bounding_box()
                    assert mark["y"] <= name["y"] + name["height"] / 2 <= mark["y"] + mark["height"]
                    assert name["x"] + name["width"] <= mark["x"] + 1
                # A table that is too wide is scrolled by itself, and by keyboard.
                table = page.locator(".wide").first
                assert table.evaluate("(e) => e.tabIndex") == 0
                strokes = page.evaluate(
                    "[...document.querySelectorAll('polyline')].map((e) => getComputedStyle(e).stroke)"
                )
                assert len(set(strokes)) == 1 and "none" not in strokes
                assert problems == [] and all(each.startswith(("file:", "data:")) for each in requests)
                page.close()
