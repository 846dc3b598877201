"""Scores of a run against the metrics on codes that the test encodes by itself, and a perfect model."""

import numpy as np
import pytest
import torch
from perfect import FullGrid, Perfect

import fqvae
import fqvae.evaluation.inputs as inputs_module
from fqvae import metrics
from fqvae.data import split
from fqvae.evaluation import evaluate
from fqvae.models.autoencoder import to_float
from fqvae.runs import Run, held_out, open_run

SMALL = {"train": 16, "test": 8, "classifier": "histogram"}


def blob_run(folder):
    from blobset import BlobSet

    return open_run(folder, dataset=BlobSet())


@pytest.mark.parametrize(
    ("name", "order", "seed"),
    [
        ("factorqvae", "rank", 0),
        ("factorqvae", "index", 3),
        ("qlae", "rank", 0),
        ("vae", "rank", 1),
        ("vector", "rank", 0),
        ("sorted", "rank", 0),
    ],
)
def test_scores_are_those_of_the_metrics(name, order, seed, trained):
    from blobset import BlobSet

    run = blob_run(trained(name))
    found = evaluate(run, **SMALL, order=order, seed=seed, jobs=1)

    images, model = to_float(BlobSet().images(np.arange(256))), fqvae.load(trained(name))
    with torch.no_grad():
        raw = model.encode(images)
        errors = (model.decode(raw) - images).square().mean((1, 2, 3)).double().numpy()
    codes, discrete = raw.numpy(), name != "vae"
    if order == "rank" and name in ("factorqvae", "qlae", "sorted"):
        book = model.latent.codebook.detach().expand(4, -1).numpy()
        codes = np.stack([(book[j] < book[j, codes[:, j], None]).sum(1) for j in range(4)], axis=1)
    index = held_out(BlobSet(), 24, seed)
    grid = np.stack(np.unravel_index(np.arange(256), (4, 4, 4, 4)), axis=1)
    fit, test = index[:16], index[16:]
    sets = (codes[fit], grid[fit], codes[test], grid[test])
    sampler = metrics.GridSampler(lambda f: codes[np.ravel_multi_index(f.T, (4, 4, 4, 4))], (4, 4, 4, 4))

    dci = metrics.dci(*sets, classifier="histogram", seed=seed, jobs=1)
    info = metrics.infomec(codes[fit], grid[fit], discrete=discrete, seed=seed, jobs=1)
    votes = {"train": 500, "test": 500, "seed": seed}
    expected = {
        "mse": errors[index].mean(),
        "disentanglement": dci.disentanglement,
        "completeness": dci.completeness,
        "informativeness_train": dci.informativeness_train,
        "informativeness": dci.informativeness_test,
        **{key: getattr(info, key) for key in ("infom", "infoc", "infoe", "infom_corrected")},
        "infoc_corrected": info.infoc_corrected,
        "mig": metrics.mig(codes[fit], grid[fit], discrete=discrete).score,
        "sap": metrics.sap(*sets, seed=seed).score,
        "modularity": metrics.modularity(codes[fit], grid[fit], discrete=discrete).score,
        "explicitness": metrics.explicitness(*sets, discrete=discrete).test,
        "factorvae_score": metrics.factorvae_score(sampler, **votes).test,
        "beta_vae_score": metrics.beta_vae_score(sampler, **votes).test,
        "total_correlation": metrics.total_correlation(codes[fit], discrete=discrete),
    }
    if discrete:
        used = [len(set(column)) for column in raw.numpy()[fit].T]
        usage = metrics.code_usage(raw[fit], 8)
        expected |= {"perplexity": usage.perplexity.mean(), "codes_used": np.mean(used)}
        assert np.array_equal(found.tables["usage"], usage.counts)
        assert np.array_equal(found.tables["perplexity"], usage.perplexity)
    else:
        assert set(found.tables) == {"importance", "nmi", "nmi_latents"}
    # A floating-point code is rounded differently in a batch of another size.
    old = {name: found.scores[name] for name in expected}
    assert old == pytest.approx(expected, abs=1e-6 if discrete else 1e-4)
    assert len({round(value, 3) for value in expected.values()}) > 8
    np.testing.assert_allclose(found.tables["importance"], dci.importance, atol=1e-5)
    np.testing.assert_allclose(found.tables["nmi"], info.nmi, atol=1e-4)
    nmi_latents = metrics.latent_nmi(codes[fit], discrete=discrete)
    np.testing.assert_allclose(found.tables["nmi_latents"], nmi_latents, atol=1e-6)


def perfect_scores(tmp_path, monkeypatch, mixed, **options):
    from blobruns import tiny

    # All combinations to fit, and all to test: independent columns then have no information at all.
    monkeypatch.setattr(inputs_module, "held_out", lambda dataset, count, seed: np.arange(count))
    config = tiny("qvae", "model.latent.size=5")
    run = Run(tmp_path, tmp_path / "last.ckpt", "0", 1, config, Perfect(mixed), FullGrid())
    return evaluate(run, train=256, test=256, classifier="histogram", jobs=1, **options)


@pytest.mark.parametrize("order", ["rank", "index"])
def test_a_perfect_model(order, tmp_path, monkeypatch):
    found = perfect_scores(tmp_path, monkeypatch, mixed=False, order=order)
    assert found.scores["mse"] == found.scores["straight_through_gap"] == 0.0
    assert found.scores["explained"] == 1.0
    for name in ("disentanglement", "completeness", "informativeness", "infom", "infoc", "mig"):
        assert found.scores[name] == pytest.approx(1, abs=1e-6), name
    for name in ("infom_corrected", "infoc_corrected", "explicitness", "factorvae_score", "beta_vae_score"):
        assert found.scores[name] == pytest.approx(1, abs=1e-6), name
    assert found.scores["infoe"] == pytest.approx(1, abs=1e-3)
    assert found.scores["total_correlation"] == pytest.approx(0, abs=1e-9)
    # A quarter of the images has each value; the smallest code is one of those, the largest is not in use.
    assert found.scores["codes_at_ends"] == pytest.approx(1 / 4)
    # Half as many for each end, then, as for the three between.
    np.testing.assert_allclose(found.tables["end_load"], [0.5] * 4 + [0])
    assert found.scores["latent_nmi"] == pytest.approx(0, abs=1e-9)
    assert 0 < found.scores["capacity"] < 5 * np.log2(5)
    # The constant latent has modularity 0 and perplexity 1.
    assert found.scores["modularity"] == pytest.approx(4 / 5)
    assert found.scores["perplexity"] == pytest.approx(17 / 5) and found.scores["codes_used"] == 17 / 5
    np.testing.assert_allclose(found.tables["importance"], np.eye(5, 4), atol=1e-6)
    np.testing.assert_allclose(found.tables["nmi"], np.eye(4, 5), atol=1e-9)
    np.testing.assert_allclose(found.tables["nmi_latents"], np.diag([1, 1, 1, 1, 0]), atol=1e-9)
    assert found.tables["usage"].shape == (5, 8) and set(found.tables["usage"][0]) == {0, 64}


def test_a_model_that_mixes_two_factors(tmp_path, monkeypatch):
    found = perfect_scores(tmp_path, monkeypatch, mixed=True)
    assert found.scores["mse"] == 0.0
    # Latent 0 is a sum: it tells nothing of either summand alone. So one latent and one factor contribute 0.
    assert found.scores["infom"] == pytest.approx(3 / 4, abs=1e-6)
    assert found.scores["infoc"] == pytest.approx(3 / 4, abs=1e-6)
    assert found.scores["mig"] == pytest.approx(3 / 4)
    assert found.scores["informativeness"] < 0.9


def test_the_same_call_gives_the_same_numbers(trained):
    run = blob_run(trained("vae"))
    first, other = evaluate(run, **SMALL, jobs=1), evaluate(run, **SMALL, jobs=2)
    assert other.scores == first.scores
    for name, table in first.tables.items():
        assert np.array_equal(other.tables[name], table)
    parts = {"encoding", "dci", "infomec", "sap", "explicitness", "factorvae_score", "beta_vae_score"}
    assert parts <= set(first.seconds) and all(value > 0 for value in first.seconds.values())


def test_images_are_held_out_ones_and_votes_are_of_all(trained, monkeypatch):
    run = blob_run(trained("factorqvae"))
    seen = {"encode": [], "encode_codes": []}
    for name, numbers in seen.items():
        original = getattr(inputs_module, name)

        def watched(run, index, original=original, numbers=numbers, **options):
            numbers.extend(index.tolist())
            return original(run, index, **options)

        monkeypatch.setattr(inputs_module, name, watched)
    evaluate(run, **SMALL, jobs=1)
    assert len(seen["encode"]) == 24 and set(seen["encode"]) <= set(split(run.dataset).test.tolist())
    # None is encoded twice.
    assert sorted(seen["encode"] + seen["encode_codes"]) == list(range(256))


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"train": 1}, ValueError, "train must be at least 2, but was 1"),
        ({"test": 0}, ValueError, "test must be at least 1, but was 0"),
        ({"train": 2.5}, TypeError, "train must be an int, but was float"),
        ({"seed": -1}, ValueError, "seed must be at least 0, but was -1"),
        ({"seed": 2**32}, ValueError, r"seed must be below 2\*\*32"),
        ({"classifier": "forest"}, ValueError, "classifier must be one of .*'histogram'.*, but was 'forest'"),
        ({"order": "value"}, ValueError, "order must be one of .*'index'.*, but was 'value'"),
        (
            {"train": 20, "test": 6},
            ValueError,
            r"train \+ test must be at most 25, the test images of blobs, ",
        ),
        ({"jobs": 0}, ValueError, "jobs must be at least 1, but was 0"),
    ],
)
def test_options_out_of_range(options, kind, words, trained):
    with pytest.raises(kind, match=words):
        evaluate(blob_run(trained("factorqvae")), **{**SMALL, **options})


@pytest.mark.parametrize(("name", "words"), [("factorqvae", "last.ckpt reconstructs"), ("vae", "last.ckpt")])
def test_a_model_that_is_broken(name, words, trained):
    run = blob_run(trained(name))
    with torch.no_grad():
        run.model.decoder[0].weight.fill_(np.nan)
    with pytest.raises(ValueError, match=words):
        evaluate(run, **SMALL, jobs=1)
