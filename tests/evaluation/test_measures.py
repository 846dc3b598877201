"""The table of measures: which apply to which set, their ranges, how many images, and what is old."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from blobset import BlobSet
from stubsets import NO_GRID, UNSUPERVISED, Constant, Labelled, OneFactor, Same, Unlabelled

import fqvae.evaluation.files as files_module
import fqvae.evaluation.inputs as inputs_module
import fqvae.evaluation.measuring as measuring_module
from fqvae.data import split
from fqvae.evaluation import (
    MEASURES,
    Options,
    contents,
    evaluate,
    find_evaluation,
    read_evaluation,
    write_evaluation,
)
from fqvae.evaluation.inputs import Inputs, present
from fqvae.evaluation.measures import GROUPS, Measure
from fqvae.evaluation.table import comparison, scores_text
from fqvae.models.config import LatentConfig
from fqvae.models.latents import build_latent
from fqvae.runs import open_run
from fqvae_kernels import ScalarQuantizer

FAST = {"classifier": "histogram", "jobs": 1}
ALL = {each.name for each in MEASURES}


def opened(folder, dataset):
    """The run as if it had been trained on this set."""
    return dataclasses.replace(open_run(folder, dataset=BlobSet()), dataset=dataset)


def test_the_table_is_consistent():
    assert len(ALL) == len(MEASURES)
    for each in MEASURES:
        assert each.group in GROUPS and each.label and each.meaning and each.version >= 1
        assert each.range[0] < each.range[1] and bool(each.short) == each.headline
    assert [each.short for each in MEASURES if each.headline] == [
        "D",
        "C",
        "I",
        "InfoM",
        "InfoC",
        "InfoE",
        "MSE",
    ]
    groups = [each.group for each in MEASURES]
    assert groups == sorted(groups, key=GROUPS.index)


@pytest.mark.parametrize("name", ["factorqvae", "vae", "vector", "sorted", "qlae", "dvae"])
@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (Labelled(), ALL - NO_GRID),
        (Constant(), ALL - NO_GRID),
        (OneFactor(), ALL - NO_GRID),
        (Unlabelled(), UNSUPERVISED),
        (Same(), UNSUPERVISED),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_a_set_lacks_is_left_out_and_the_rest_is_defined(name, dataset, expected, trained):
    if name == "vae":
        expected = expected - {"perplexity", "codes_used"}
    if name in ("vae", "vector"):
        expected = expected - {"capacity", "codes_at_ends"}
    if name in ("vae", "qlae"):
        expected = expected - {"straight_through_gap"}
    run = opened(trained(name), dataset)
    found = evaluate(run, **FAST)
    assert set(found.scores) == expected
    for each in MEASURES:
        if each.name in found.scores:
            value = found.scores[each.name]
            assert np.isfinite(value) and each.range[0] <= value <= each.range[1], each.name
    for table in found.tables.values():
        assert np.isfinite(table).all()
    # Two thirds and one third of the test split's 20 images.
    assert (found.options.train, found.options.test, found.available) == (14, 6, 20)


def test_a_set_without_labels_in_files_and_tables(copy_of):
    run = opened(copy_of("factorqvae"), Unlabelled())
    write_evaluation(run, evaluate(run, **FAST))
    assert not (run.folder / "importance.csv").exists() and not (run.folder / "nmi.csv").exists()
    found = read_evaluation(run.folder)
    assert found["missing"] == [] and found["nmi"] is None and set(found["scores"]) == UNSUPERVISED
    text = scores_text(found)
    assert "14 training and 6 test samples (all 20 images there are, fewer than 10,000 + 5,000)" in text
    assert "no labels, so only measures that need none" in text and "DCI" not in text
    header = comparison([run.folder]).markdown().splitlines()[0]
    assert {"straight_through_gap", "total_correlation", "MSE"} <= set(header.strip("| ").split(" | "))


def test_a_set_without_a_grid_says_so(copy_of):
    run = opened(copy_of("vae"), Labelled())
    write_evaluation(run, evaluate(run, **FAST))
    assert "no image for every combination of factors" in scores_text(read_evaluation(run.folder))


@pytest.mark.parametrize(
    ("options", "available", "expected"),
    [
        (Options(), 48_000, (10_000, 5_000)),
        (Options(), 15_000, (10_000, 5_000)),
        (Options(), 14_999, (10_000, 4_999)),
        (Options(), 900, (600, 300)),
        (Options(), 3, (2, 1)),
        (Options(train=300), 900, (300, 600)),
        (Options(train=300), 9_000, (300, 5_000)),
        (Options(test=300), 900, (600, 300)),
        (Options(7, 8), 900, (7, 8)),
    ],
)
def test_numbers_of_images(options, available, expected):
    found = options.resolved(available)
    assert (found.train, found.test) == expected
    assert found.resolved(available) == found


def test_too_few_images(trained):
    with pytest.raises(
        ValueError, match="labelled must have at least 3 test images to measure on, but has 2"
    ):
        evaluate(opened(trained("vae"), Labelled(20)), **FAST)
    with pytest.raises(ValueError, match=r"train \+ test must be at most 5, .* but were 5 \+ 0"):
        Options(train=5).resolved(5)


def test_the_authors_protocol(trained, monkeypatch):
    seen, original = {}, inputs_module.infomec

    def watched(*arguments, **options):
        seen.update(options)
        return original(*arguments, **options)

    monkeypatch.setattr(inputs_module, "infomec", watched)
    run = opened(trained("factorqvae"), Labelled())
    found = evaluate(run, **FAST, protocol="authors")
    assert found.options.order == "index" and (seen["neighbors"], seen["iterations"]) == (3, 500)
    assert (found.options.train, found.options.test, found.available) == (134, 66, 200)
    inputs = Inputs(run, found.options, jobs=1, progress=False)
    assert sorted(inputs.encoding.index) == list(range(200))
    assert np.array_equal(inputs.codes, inputs.encoding.codes)
    evaluate(run, **FAST)
    assert (seen["neighbors"], seen["iterations"]) == (10, 100)
    held = Inputs(run, Options().resolved(20), jobs=1, progress=False)
    assert set(held.encoding.index) == set(split(Labelled()).test)
    with pytest.raises(
        ValueError, match="order must be 'index' under the protocol 'authors', but was 'rank'"
    ):
        Options(order="rank", protocol="authors")


def test_only_what_is_missing_or_old_is_measured(copy_of, monkeypatch):
    run = opened(copy_of("factorqvae"), Labelled())
    write_evaluation(run, evaluate(run, **FAST))
    first = read_evaluation(run.folder)

    path = run.folder / "metrics.json"
    content = json.loads(path.read_text())
    del content["measures"]["mig"]
    content["measures"]["sap"] = {"value": 9.0, "version": 0}
    content["measures"]["infoe"]["value"] = 0.125  # a sign of not having been measured
    path.write_text(json.dumps(content))

    def fails(*arguments, **options):
        raise AssertionError("it is there")

    monkeypatch.setattr(inputs_module, "dci", fails)
    monkeypatch.setattr(inputs_module, "infomec", fails)
    known, _ = find_evaluation(run.folder, run.sha256)
    assert known["missing"] == ["mig", "sap"] and Options(classifier="histogram").same(known)
    found = evaluate(run, **FAST, known=known)
    assert found.measured == ("mig", "sap")
    assert found.scores == first["scores"] | {"infoe": 0.125}
    again = contents(run, found)
    assert again["missing"] == [] and again["cautions"] == first["cautions"]
    assert again["importance"] == first["importance"]


def test_a_new_measure_is_one_line(copy_of, monkeypatch):
    """A function and a line in the table: no file of these, no command and no page needs to know."""
    run = opened(copy_of("factorqvae"), Labelled())
    write_evaluation(run, evaluate(run, **FAST))
    largest = Measure("largest", "largest code", "of all", (0.0, 63.0), "Others", 1, lambda x: x.fit.max())
    for module in (measuring_module, files_module):
        monkeypatch.setattr(module, "MEASURES", (*MEASURES, largest), raising=False)
    monkeypatch.setattr("fqvae.evaluation.measures.MEASURES", (*MEASURES, largest))
    known = read_evaluation(run.folder)
    assert known["missing"] == ["largest"]
    found = evaluate(run, **FAST, known=known)
    write_evaluation(run, found)
    assert found.measured == ("largest",) and read_evaluation(run.folder)["scores"]["largest"] <= 7
    assert "  largest  " in scores_text(read_evaluation(run.folder))


def test_infoe_on_few_samples_is_warned_of(copy_of):
    run = opened(copy_of("factorqvae"), Labelled())
    found = evaluate(run, **FAST)
    columns = sum(len(set(column)) for column in Inputs(run, found.options, jobs=1, progress=False).fit.T)
    assert list(found.cautions) == ["infoe"]
    assert f"fits {columns} columns to 14 samples" in found.cautions["infoe"]
    write_evaluation(run, found)
    read = read_evaluation(run.folder)
    assert read["cautions"] == found.cautions and f"Caution: {found.cautions['infoe']}." in scores_text(read)
    assert found.cautions["infoe"] in comparison([run.folder]).markdown()


class Books:
    """What the caution reads: codes of two latents, with this many values each."""

    def __init__(self, samples, values):
        self.fit, self.discrete = np.arange(samples)[:, None].repeat(2, 1) % values, True


def test_where_the_warning_begins():
    caution = next(each for each in MEASURES if each.name == "infoe").caution
    assert caution(Books(200, 10)) == ""
    assert "20 columns to 199 samples" in caution(Books(199, 10))


def test_the_straight_through_gap(trained):
    """Against the definition, an image at a time."""
    from blobset import BlobSet

    from fqvae.models.latents import Noise

    run = opened(trained("factorqvae"), BlobSet())
    found = evaluate(run, **FAST, seed=5)
    index = Inputs(run, found.options, jobs=1, progress=False).encoding.index
    assert run.model.latent.config.hard is False
    gaps = []
    for place, number in enumerate(index):
        image = run.dataset.images([number]) / 255 - 0.5
        with torch.no_grad():
            soft = run.model.draw(image, Noise(5, place), temperature=np.exp(-80 / 80)).quantized
            nearest = run.model.latent.values(run.model.encode(image))
            errors = [(run.model.decoder(each) - image).double().square().mean() for each in (soft, nearest)]
        gaps.append(abs(errors[0] - errors[1]).item())
    assert found.scores["straight_through_gap"] == pytest.approx(np.mean(gaps), rel=1e-3)
    # A model with hard samples is measured with soft ones.
    config = dataclasses.replace(run.model.latent.config, hard=True)
    latent = build_latent(config)
    latent.load_state_dict(run.model.latent.state_dict())
    run.model.latent = latent
    assert (
        evaluate(run, **FAST, seed=5).scores["straight_through_gap"] == found.scores["straight_through_gap"]
    )
    assert latent.config.hard is True and latent.quantizer.hard is True


@pytest.mark.parametrize("estimator", ["straight_through", "reinmax", "nearest"])
def test_estimators_without_soft_samples_have_no_gap(estimator):
    config = {"model.latent.kind": "scalar", "model.latent.estimator": estimator}
    assert "soft samples" not in present(config, labels=True, grid=True)
    assert "soft samples" in present({**config, "model.latent.estimator": "gumbel"}, labels=True, grid=True)


def test_capacity_and_ends(trained):
    from fqvae_kernels import ScalarQuantizer

    run = opened(trained("factorqvae"), Labelled())
    with torch.no_grad():
        run.model.latent.codebook.copy_(torch.tensor([0.0, 0.0, 50.0, 50.0, 50.0, -50.0, 0.0, 0.0]))
    found = evaluate(run, **FAST)
    # Three values so far apart that none is taken for another.
    assert found.scores["capacity"] == pytest.approx(4 * np.log2(3), abs=1e-3)
    codes = Inputs(run, found.options, jobs=1, progress=False).encoding.codes[:14]
    varies = (codes != codes[0]).any(0)
    shares = np.isin(codes, [2, 3, 4, 5]).mean(0)[varies]
    assert found.scores["codes_at_ends"] == pytest.approx(shares.mean() if varies.any() else 0)
    dvae = opened(trained("dvae"), Labelled())
    assert evaluate(dvae, **FAST).scores["capacity"] == pytest.approx(4 * 3)
    qlae = opened(trained("qlae"), Labelled())
    assert evaluate(qlae, **FAST).scores["capacity"] == pytest.approx(4 * 3)
    own = opened(trained("factorqvae"), Labelled())
    book = own.model.latent.codebook.detach()
    assert evaluate(own, **FAST).scores["capacity"] == pytest.approx(
        4 * ScalarQuantizer(8, init=book.clone()).capacity().item(), rel=1e-6
    )


@pytest.mark.parametrize("learn", [False, True])
def test_capacity_knows_the_precision(learn):
    """Of two latents with codes of their own and precision 4: the sum of what two such quantizers say."""
    latent = build_latent(LatentConfig(size=2, codebook_size=8, codebooks="per_latent", precision=4.0))
    if learn:
        latent = build_latent(dataclasses.replace(latent.config, precision=1.0, learn_precision=True))
        latent.quantizer.log_precision.data.fill_(np.log(4.0))
    latent.initialise(torch.Generator().manual_seed(0))
    run = SimpleNamespace(
        model=SimpleNamespace(latent=latent),
        config=SimpleNamespace(model=SimpleNamespace(latent=latent.config)),
    )
    inputs = SimpleNamespace(run=run, fit=np.zeros((3, 2), np.int64))
    for name in ("books", "distance_factors"):
        setattr(inputs, name, getattr(Inputs, name).func(inputs))
    expected = sum(
        ScalarQuantizer(8, init=book.detach(), precision=4.0).capacity() for book in latent.quantizer.codebook
    )
    (measure,) = (each for each in MEASURES if each.name == "capacity")
    assert measure.compute(inputs) == pytest.approx(float(expected), rel=1e-4)
