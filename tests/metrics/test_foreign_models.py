"""Codes of models that are not ours: another library's quantizer, and principal components."""

import math

import metric_truth as truth
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.metrics import mutual_info_score
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from fqvae.data import RayShapes, split
from fqvae.metrics import code_ranks, code_usage, dci, infomec, total_correlation
from fqvae.models import to_float

LATENTS, CODES, TRAIN, TEST = 6, 16, 800, 800
FACTORS = [0, 1, 4]  # the hues of floor and wall, and the shape: three are enough, and quick


class Foreign(nn.Module):
    """An autoencoder with scalars that VectorQuantize quantizes: to it, a sequence of short vectors."""

    def __init__(self, pixels):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, LATENTS))
        self.quantizer = VectorQuantize(dim=1, codebook_size=CODES, commitment_weight=0.25)
        self.decoder = nn.Sequential(nn.Linear(LATENTS, 128), nn.ReLU(), nn.Linear(128, pixels))

    def forward(self, x):
        quantized, indices, loss = self.quantizer(self.encoder(x).unsqueeze(-1))
        return self.decoder(quantized.squeeze(-1)), indices, loss


def pixels_of(data, index):
    """16 x 16 pixels, flat."""
    return F.avg_pool2d(to_float(data.images(index)), 2).flatten(1)


@pytest.fixture(scope="module")
def samples():
    """Images to train on; images to measure on, and their factors, int64 (samples, 3)."""
    data = RayShapes(32)
    train, _, test = split(data)
    measured = test[: TRAIN + TEST]
    factors = data.factors(measured)[:, FACTORS].numpy()
    return pixels_of(data, train[:4000]), pixels_of(data, measured), factors


@pytest.fixture(scope="module")
def foreign(samples):
    """The trained model, and the indices that it gives to the images to measure on."""
    images, measured, _ = samples
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Foreign(images.shape[1])
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(300):
            batch = images[torch.randint(len(images), (128,))]
            reconstruction, _, loss = model(batch)
            loss = loss + F.mse_loss(reconstruction, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        reconstruction, indices, _ = model(measured)
    # It has learned: the mean image's error is the variance of the pixels.
    assert F.mse_loss(reconstruction, measured) < 0.25 * measured.var(0).mean()
    return model, indices


@pytest.fixture(scope="module")
def components(samples):
    """Principal components of the images to measure on, (samples, LATENTS) float64."""
    return PCA(LATENTS, svd_solver="full").fit_transform(samples[1].double().numpy())


def shuffled(factors):
    """The same factors, of other images."""
    return factors[np.random.default_rng(0).permutation(len(factors))]


def split_dci(codes, factors):
    parts = codes[:TRAIN], factors[:TRAIN], codes[TRAIN:], factors[TRAIN:]
    return dci(*parts, classifier="histogram", jobs=1)


def check_dci(codes, factors):
    """Scores by the definitions from the importance, and accuracy against a control that can only guess."""
    found, control = split_dci(codes, factors), split_dci(codes, shuffled(factors))
    np.testing.assert_allclose(found[:2], truth.dci_scores(found.importance.tolist()), atol=1e-6)
    np.testing.assert_allclose(found.importance.sum(0), 1, atol=1e-9)
    # Whoever guesses is right as often as the factor's most frequent value comes up, 5 standard errors more.
    often = [np.bincount(column).max() / len(column) for column in factors.T]
    chance = np.mean(often) + 5 * math.sqrt(sum(p * (1 - p) for p in often) / TEST) / len(often)
    assert control.informativeness_test < chance < found.informativeness_test - 0.1
    assert control.disentanglement < found.disentanglement - 0.03


def test_usage_of_foreign_codes(foreign):
    model, indices = foreign
    usage = code_usage(indices, CODES)
    for column, counts, used, perplexity in zip(indices.T.numpy(), *usage, strict=True):
        assert counts.tolist() == np.bincount(column, minlength=CODES).tolist()
        share = np.bincount(column) / len(column)
        assert perplexity == pytest.approx(np.exp(-sum(p * np.log(p) for p in share if p)), rel=1e-12)
        assert 1 < perplexity <= used == len(set(column.tolist()))
    assert model.quantizer.codebook.shape == (CODES, 1)


def test_ranks_of_foreign_codes(foreign, samples):
    model, indices = foreign
    values = model.quantizer(model.encoder(samples[1]).unsqueeze(-1))[0].squeeze(-1).detach()
    ranks = code_ranks(indices, model.quantizer.codebook[:, 0])
    for value, rank in zip(values.T.numpy(), ranks.T, strict=True):
        order = value.argsort(kind="stable")
        assert (np.diff(rank[order]) >= 0).all()
        assert len(set(rank.tolist())) == len(set(value.tolist()))


def test_infomec_of_foreign_codes(foreign, samples):
    indices, factors = foreign[1].numpy(), samples[2]
    found = infomec(indices, factors, discrete=True, jobs=1)
    entropy = [mutual_info_score(factor, factor) for factor in factors.T]
    nmi = [
        [mutual_info_score(factor, code) / h for code in indices.T]
        for factor, h in zip(factors.T, entropy, strict=True)
    ]
    np.testing.assert_allclose(found.nmi, nmi, atol=1e-9)
    assert found.active.all()
    np.testing.assert_allclose(found[:2], truth.infom_infoc(nmi), atol=1e-9)
    assert 0 < found.infoe < 1

    control = infomec(indices, shuffled(factors), discrete=True, jobs=1)
    assert control.infom_corrected < found.infom_corrected - 0.3
    assert control.nmi.max() < 0.1 < found.nmi.max()


def test_dci_of_foreign_codes(foreign, samples):
    model, indices = foreign
    check_dci(code_ranks(indices, model.quantizer.codebook[:, 0]), samples[2])


def test_total_correlation_of_principal_components(components):
    """They are uncorrelated, so their correlation matrix is the identity but for rounding.

    An entry off its diagonal is at most e = samples * 2**-53 * (the largest component's scale over the
    smallest's), and the logarithm of the determinant is of second order in these.
    """
    deviation = components.std(0)
    e = len(components) * 2**-53 * deviation.max() / deviation.min()
    assert 0 <= total_correlation(components, discrete=False) <= LATENTS**2 * e

    # Rotated they are correlated, and the covariance is known: R diag(variance) R^T.
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((LATENTS, LATENTS)))[0]
    covariance = rotation @ np.diag(deviation**2) @ rotation.T
    expected = (np.log(np.diag(covariance)).sum() - 2 * np.log(deviation).sum()) / 2
    assert expected > 0.5
    assert total_correlation(components @ rotation.T, discrete=False) == pytest.approx(expected, rel=1e-9)


def test_infomec_of_principal_components(components, samples):
    codes, factors = components[:600], samples[2][:600]
    found = infomec(codes, factors, discrete=False, shuffles=10, jobs=1)
    span = np.ptp(codes, axis=0)
    assert found.active.tolist() == (span > span.max() / 20).tolist()
    np.testing.assert_allclose(found[:2], truth.infom_infoc(found.nmi[:, found.active].tolist()), atol=1e-9)
    assert 0 < found.infoe < 1

    control = infomec(codes, shuffled(factors), discrete=False, shuffles=10, jobs=1)
    assert control.infom_corrected < found.infom_corrected - 0.3
    assert control.infoe < found.infoe - 0.3


def test_dci_of_principal_components(components, samples):
    check_dci(components, samples[2])
