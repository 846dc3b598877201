"""The report as a file: what is in it, for every model and for bad input."""

import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
import reportruns  # it knows where blobset is
import torch
from blobset import BlobSet
from PIL import Image
from sklearn.metrics import mutual_info_score

from fqvae.cli import main
from fqvae.evaluation import MEASURES, Evaluation, Options, evaluate, write_evaluation
from fqvae.report import build_report
from fqvae.report.explorer import TooLargeError, explorer_data
from fqvae.report.html import curve, json_block
from fqvae.report.sample import draw_sample
from fqvae.runs.presets import model_names


class Page(html.parser.HTMLParser):
    """A page's text, its tags with their attributes, and the content of its data block."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.data = None
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "input", "img", "rect", "line", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.data = self.data or json.loads(data)
        elif not self.open or self.open[-1] != "style":
            self.words.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def report(run, tmp_path, **options):
    return Page(build_report(run, tmp_path / "out" / "page.html", **options))


@pytest.mark.parametrize(
    ("model", "overrides"),
    [(name, ()) for name in model_names()]
    + [("factorqvae", ("model.latent.kind=vector", "model.latent.dimension=3"))]
    + [("factorqvae", ("model.latent.sorted=true",))],
)
def test_every_model_has_one(model, overrides, tmp_path):
    run = reportruns.make_run(tmp_path / "run", model, *overrides)
    page = report(run, tmp_path)
    identifiers = [each["id"] for _, each in page.tags if "id" in each]
    assert len(identifiers) == len(set(identifiers))
    assert len(page.source.encode()) < 5_000_000
    for _, attributes in page.tags:
        for key in ("src", "href", "srcset", "action", "xlink:href", "data"):
            assert attributes.get(key, "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?://|fetch|XMLHttp", page.source)
    assert "default-src 'none'" in page.named("meta")[3]["content"]

    sliders = [each for each in page.named("input") if each["type"] == "range"]
    assert len(sliders) == 4 and len(page.data["bases"]) == 8
    assert all(each["alt"] for each in page.named("img"))
    base = page.data["bases"][0]
    for slider in sliders:
        latent = int(slider["id"].removeprefix("latent-"))
        assert len(base["texts"][latent]) == int(slider["max"]) + 1 <= 12
        assert int(slider["value"]) == base["own"][latent]
        if "vector" not in overrides and run.discrete:
            values = [float(each.replace("\u2212", "-")) for each in base["texts"][latent] if "c" not in each]
            assert values == sorted(values)
    assert "fqvae evaluate" in page.text and "3.000" not in page.text
    levels = [each for each in page.named("line") if each.get("class") == "guessing"]
    assert len(levels) == 2 and [each["y1"] == each["y2"] for each in levels] == [True, True]
    assert page.text.count("discriminator guessing: 0.693") == page.text.count("guessing: 0.5") == 1
    assert "total correlation, estimated by the discriminator (nats) 0.2 at the end" in page.text
    # Of metrics.csv, with its NaN left out.
    assert "KL divergence (nats) 0.75 at the end" in page.text
    assert "reconstruction error 0.002 at the end, logarithmic scale" in page.text


def test_scores_of_this_checkpoint_alone(tmp_path):
    run = reportruns.make_run(tmp_path / "run")
    values = {each.name: 0.101 + place / 100 for place, each in enumerate(MEASURES)}
    values |= {"perplexity": 7.25, "codes_used": 7.75, "capacity": 8.25, "straight_through_gap": 0.000123}
    nmi = np.full((4, 4), 0.04)
    nmi[[3, 1, 0], [0, 1, 3]] = (
        0.91,
        0.82,
        0.73,
    )  # latent 0 tells of the ground, 1 of the row, 3 of the colour
    tables = {
        "importance": np.arange(16).reshape(4, 4) / 16,
        "nmi": nmi,
        "nmi_latents": np.eye(4),
        "usage": np.ones((4, 8), np.int64),
        "perplexity": np.full(4, 7.25),
        "codes_used": np.full(4, 8),
    }
    options = Options(20_000, 5_000, 5, "histogram")
    cautions = {"infoe": "infoe is <too high>"}
    write_evaluation(run, Evaluation(options, 25_000, values, tables, cautions, {"dci": 1.0}))
    page = report(run, tmp_path)
    assert "fqvae evaluate" not in page.text
    for name, value in values.items():
        small = name == "straight_through_gap"
        shown = f"{value:.5f}" if name == "mse" else f"{value:.1f}" if value > 7 else f"{value:.3f}"
        assert (f"{value:.3g}" if small else shown) in page.text
    assert all(each.label in page.text and each.meaning in page.text for each in MEASURES)
    assert "Caution: infoe is <too high>." in page.text
    # The factor "column" is the one that no latent tells of.
    assert "A factor in no latent. No latent tells of these factors" in page.text
    assert "column (0.0" in page.text
    assert "20,000 to fit and 5,000 to test, seed 5" in page.text and "histogram" in page.text
    labels = re.findall(r"(colour|row|column|ground) latent (\d), NMI ([\d.]+)", page.text)
    assert labels == [("colour", "3", "0.73"), ("row", "1", "0.82"), ("ground", "0", "0.91")]
    assert "latent 2 no single factor" in page.text
    # Latents as rows, in the same order; importance is theirs already.
    cells = [float(each["style"].removeprefix("--v:")) for each in page.named("td") if "style" in each]
    rows = [3, 1, 0, 2]
    expected = np.concatenate([nmi.T[rows].ravel(), tables["importance"][rows].ravel()])
    np.testing.assert_allclose(cells, expected, atol=6e-4)

    changed = reportruns.make_run(
        tmp_path / "run", change=lambda model: model.decoder[-1].bias.data.add_(0.01)
    )
    page = report(changed, tmp_path)
    assert "is of another checkpoint, of step 12" in page.text and "0.820" not in page.text
    (tmp_path / "run" / "metrics.json").write_text("{")
    assert "metrics.json is damaged" in report(changed, tmp_path).text


def test_without_evaluation_labels_come_from_the_sample(tmp_path):
    run = reportruns.make_run(tmp_path / "run")
    sample = draw_sample(run, 25, 0, None, False)
    codes = run.model.encode(BlobSet().images(sample.index)).numpy()
    factors = BlobSet().factors(sample.index).numpy()
    for factor in range(4):
        entropy = mutual_info_score(factors[:, factor], factors[:, factor])
        for latent in range(4):
            information = mutual_info_score(factors[:, factor], codes[:, latent])
            values, used = len(set(factors[:, factor])), len(set(codes[:, latent]))
            chance = (values - 1) * (used - 1) / (2 * 25 * np.log(values))
            assert sample.nmi[factor, latent] == pytest.approx(max(0, information / entropy - chance))
    assert sample.nmi.max() > 0


def test_few_images_name_no_latent(tmp_path):
    """Codes and factors drawn independently: in 120 images 64 codes seem to tell of ten values."""
    from fqvae.report.sample import _shares

    rng = np.random.default_rng(0)
    factors, codes = rng.integers(0, 10, (120, 1)), rng.integers(0, 64, (120, 12))
    assert mutual_info_score(factors[:, 0], codes[:, 0]) / np.log(10) > 0.5
    assert _shares(factors, codes, True).max() == 0
    # Of 20,000 images the correction is small, and a latent that is the factor keeps its name.
    factors = rng.integers(0, 10, (20_000, 1))
    codes = np.concatenate([factors, rng.integers(0, 64, (20_000, 1))], 1)
    np.testing.assert_allclose(_shares(factors, codes, True), [[1, 0]], atol=2e-3)


def test_names_cannot_break_out(tmp_path, monkeypatch):
    monkeypatch.setattr("fqvae.report.sample._shares", lambda *_: np.eye(4))  # every latent has a name

    class Named(BlobSet):
        factor_names = tuple(f"</script><b>\"'_&amp;{number}" for number in range(4))

    run = reportruns.make_run(tmp_path / "<i>&amp;", dataset=Named())
    page = report(run, tmp_path)
    assert page.text.count("<i>&amp;") >= 2 and "</script><b>\"' &amp;" in page.text
    assert len(page.named("script")) == 2 and page.named("i") == []

    block = json_block({"text": "</script><!--"})
    assert "<" not in block and json.loads(block) == {"text": "</script><!--"}


@pytest.mark.parametrize("model", ["factorqvae", "vae"])
@pytest.mark.parametrize("evaluated", [False, True])
def test_grey_images_without_labels(model, evaluated, tmp_path, monkeypatch):
    run = reportruns.make_run(tmp_path / "run", model, "data.channels=1", dataset=reportruns.GreySet())
    content = {
        "data": {"factor_names": []},
        "options": {"train": 20, "test": 5, "seed": 0, "classifier": "histogram", "protocol": "held-out"},
        "scores": {"mse": 0.125},
        "cautions": {},
        "missing": [],
        "nmi": None,
        "importance": None,
    }
    if evaluated:
        monkeypatch.setattr("fqvae.report.build.find_evaluation", lambda *_: (content, ""))
    page = report(run, tmp_path)
    assert "The images have no labels, so that no latent is named after a factor." in page.text
    assert "factor" not in page.text.replace("named after a factor", "").lower().replace("factorqvae", "")
    assert "NMI" not in page.text and "matrix" not in [each.get("class") for each in page.named("table")]
    assert re.search(r"Latent 0 (\d of 8 codes used|values from)", page.text)
    sample = draw_sample(run, 25, 0, None, False)
    alternatives = [each["alt"] for each in page.named("img")[:8]]
    assert alternatives == [f"Image {number}" for number in sample.index[:8]]
    assert sample.nmi.shape == (0, 4) and {sample.label(latent) for latent in range(4)} == {""}
    for uri, number in zip([each["src"] for each in page.named("img")], sample.index[:8], strict=False):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
        assert picture.shape == (16, 16, 3)
        assert (picture == reportruns.GreySet().images([number])[0, 0].numpy()[..., None]).all()
    if evaluated:
        assert "0.12500" in page.text and "need none" in page.text and "DCI" not in page.text


def test_a_latent_that_never_changes(tmp_path):
    def freeze(model):
        head = list(model.encoder.parameters())[-2:]
        head[0].data[1] = 0
        head[1].data[1] = 0

    page = report(reportruns.make_run(tmp_path / "run", change=freeze), tmp_path)
    slider = next(each for each in page.named("input") if each.get("id") == "latent-1")
    assert "disabled" in slider and slider["max"] == "0" and "latent 1 not used" in page.text
    assert page.data["order"][-1] == 1 and "latent 1: 1 of 8 codes used" in page.source


def zero(model):
    for weight in model.encoder.parameters():
        weight.data.zero_()


def infinite(model):
    model.encoder[-1].bias.data.fill_(torch.inf)


@pytest.mark.parametrize(
    ("model", "change", "words"),
    [
        (
            "factorqvae",
            zero,
            "the model has no codes: each of its 4 latents has the same value for all of 25",
        ),
        ("ae", zero, "the model has no codes"),
        ("ae", infinite, "codes or reconstructions of the model are not finite"),
    ],
)
def test_a_model_without_codes(model, change, words, tmp_path, monkeypatch, capsys):
    run = reportruns.make_run(tmp_path / "run", model, change=change)
    monkeypatch.setattr("fqvae.runs.run.open_data", lambda *_: BlobSet())
    old = tmp_path / "page.html"
    old.write_text("old")
    assert main(["report", str(run.folder), "--out", str(old)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"fqvae: error: {run.checkpoint}: ") and words in error
    assert old.read_text() == "old" and sorted(each.name for each in tmp_path.iterdir()) == [
        "page.html",
        "run",
    ]


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fqvae.runs.run.open_data", lambda *_: BlobSet())
    monkeypatch.chdir(tmp_path)
    reportruns.make_run(tmp_path / "run")
    assert main(["report", "run", "--images", "3", "--steps", "4"]) == 0
    assert capsys.readouterr().out == "the report is run/report.html\n"
    page = Page(tmp_path / "run" / "report.html")
    assert len(page.data["bases"]) == 3
    assert max(len(texts) for base in page.data["bases"] for texts in base["texts"]) == 4
    (tmp_path / "run" / "metrics.csv").unlink()
    assert main(["report", "run/last.ckpt", "--out", "new/page.html"]) == 0
    assert "no metrics.csv" in Page(tmp_path / "new" / "page.html").text
    (tmp_path / "file").write_text("")
    assert main(["report", "run", "--samples", "4", "--out", "few.html"]) == 0
    assert len(Page(tmp_path / "few.html").data["bases"]) == 4
    capsys.readouterr()
    for arguments, words in (
        (["nothing"], "there is no run or checkpoint nothing"),
        (["new"], "there is no checkpoint last.ckpt in the folder new"),
        ([], "name one run's folder or checkpoint"),
        (["run", "new"], "name one run's folder or checkpoint, not 2: run new"),
        (["run", "--images", "0"], "images must be at least 1, but was 0"),
        (["run", "--samples", "4", "--images", "8"], "images must be at most 4, the held-out images"),
        (["run", "--images", "27"], "images must be at most 25, the held-out images encoded, but was 27"),
        (["run", "--out", "file/page.html"], "cannot write in file: "),
        (["run", "--out", "run"], "out must be a file, but run is a folder"),
    ):
        assert main(["report", *arguments]) == 1, arguments
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("fqvae: error: ") and words in error


def test_a_place_that_cannot_be_written_is_known_before_the_work(tmp_path, monkeypatch):
    def unexpected(*_, **__):
        raise AssertionError("the work has begun")

    run = reportruns.make_run(tmp_path / "run")
    monkeypatch.setattr("fqvae.report.build.draw_sample", unexpected)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write in .*file: "):
        build_report(run, tmp_path / "file" / "page.html")
    with pytest.raises(IsADirectoryError, match="out must be a file"):
        build_report(run, run.folder)


def test_the_page_stays_small(tmp_path):
    run = reportruns.make_run(tmp_path / "run")
    sample = draw_sample(run, 25, 0, None, False)
    live = explorer_data(run, sample, 2, 12, 10**6)
    assert live["decoder"]["bits"] == 16 and "sheet" not in live["bases"][0]
    weights = len(live["decoder"]["weights"])
    assert explorer_data(run, sample, 2, 12, weights)["decoder"] is not None
    with pytest.raises(TooLargeError):  # neither the decoder nor the sheets
        explorer_data(run, sample, 2, 12, 100)

    run = reportruns.make_run(tmp_path / "official", "factorqvae", "model.network.kind=official")
    sample = draw_sample(run, 25, 0, None, False)
    whole = explorer_data(run, sample, 2, 12, 10**6)
    size = sum(len(base["sheet"]) for base in whole["bases"])
    less = explorer_data(run, sample, 2, 12, size - 1)
    assert whole["decoder"] is None and "with the layer ResidualBlock" in whole["reason"]
    assert whole["lossless"] and not less["lossless"]
    assert sum(len(base["sheet"]) for base in less["bases"]) < size
    with pytest.raises(TooLargeError, match="take more than 100 bytes"):
        explorer_data(run, sample, 2, 12, 100)


@pytest.mark.parametrize("values", [[0.9, 0.6], [0.5, 0.5], [0.2, 0.1]])
def test_where_guessing_is_drawn(values):
    figure = curve([1, 2], values, "accuracy", 0.5)
    ticks = re.findall(r'<line x1="44" x2="332" y1="([\d.]+)"[^>]*/><text[^>]*>([\d.]+)</text>', figure)
    heights, numbers = np.array(ticks, float).T
    slope, offset = np.polyfit(numbers, heights, 1)
    (level,) = re.findall(r'class="guessing" x1="44" x2="332" y1="([\d.]+)"', figure)
    assert float(level) == pytest.approx(slope * 0.5 + offset, abs=0.2)
    assert 8 <= float(level) <= 128  # inside the frame


def test_a_set_without_labels(tmp_path):
    class Unlabelled(BlobSet):
        factor_names, factor_sizes, index = (), (), property()

        def __len__(self):
            return 256

        def factors(self, index):
            return BlobSet().factors(index)[:, :0]

    run = reportruns.make_run(tmp_path / "run", dataset=Unlabelled())
    assert "The images have no labels" in report(run, tmp_path).text
    write_evaluation(run, evaluate(run, classifier="histogram", jobs=1))
    page = report(run, tmp_path)
    assert "straight-through gap" in page.text and "Latents and factors" not in page.text
    assert "DCI" not in page.text and "17 to fit and 8 to test" in page.text
