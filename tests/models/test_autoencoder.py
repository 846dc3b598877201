"""Encode, decode and sample for every kind of model, and what they refuse."""

import numpy as np
import pytest
import torch

from fqvae.models import Autoencoder, to_float, to_uint8
from fqvae.models.table import MODELS
from fqvae.runs import load_preset, model_names

CONTINUOUS = [name for name, each in MODELS.items() if each.latent["kind"] in ("plain", "gaussian")]


def model_of(name, *overrides):
    config = load_preset("smoke", name, ["model.network.channels=4", "model.latent.size=5", *overrides])
    return Autoencoder(config.model, 16).eval()


def images(count=3):
    return torch.randint(
        0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("name", model_names())
def test_encode_decode_sample(name):
    model = model_of(name)
    codes = model.encode(images())
    assert codes.shape == (3, 5) and codes.is_floating_point() == (name in CONTINUOUS)
    decoded = model.decode(codes)
    assert decoded.shape == (3, 3, 16, 16) and decoded.dtype == torch.float32
    assert torch.equal(model(images()), decoded) and torch.equal(model.encode(images()), codes)
    assert torch.equal(model.encode(to_float(images())), codes)
    if MODELS[name].latent["kind"] == "plain":
        with pytest.raises(ValueError, match="plain latent has no prior"):
            model.sample(4)
        return
    sample = model.sample(4, generator=torch.Generator().manual_seed(1))
    assert sample.dtype == codes.dtype and sample.shape == (4, 5)
    assert torch.equal(sample, model.sample(4, generator=torch.Generator().manual_seed(1)))
    assert model.decode(sample).isfinite().all()


@pytest.mark.parametrize("name", ["qvae", "vae"])
def test_arrays_are_taken_as_tensors_are(name):
    model = model_of(name)
    codes = model.encode(images())
    assert torch.equal(model.encode(images().numpy()), codes)
    assert torch.equal(
        model.encode(images().numpy().transpose(0, 1, 3, 2)[:, :, ::-1]),
        model.encode(images().transpose(2, 3).flip(2)),
    )
    assert torch.equal(model.encode(images().numpy() / np.float32(255) - np.float32(0.5)), codes)
    doubles = model.encode(images().numpy() / 255 - 0.5)  # as NumPy computes
    assert torch.allclose(doubles.float(), codes.float())
    with pytest.raises(ValueError, match=r"\(batch, 3, 16, 16\), but had shape \(3, 16, 16, 3\)"):
        model.encode(images().numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: x.numpy()], ids=["tensor", "array"])
@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda x: x / 255, ValueError, r"floats from -1/2 .* but were floats from 0 to 1$"),
        (lambda x: x.float(), ValueError, "but were floats from 0 to 255$"),
        (lambda x: x / 127.5 - 1, ValueError, "but were floats from -1 to 1$"),
        (
            lambda x: (x / 255 - 0.5).index_fill(0, torch.tensor([1]), torch.nan),
            ValueError,
            "from nan to nan",
        ),
        (lambda x: x.long(), TypeError, "must be uint8, 0 to 255, or floats .* but were torch.int64"),
        (lambda x: x > 100, TypeError, "but were torch.bool"),
    ],
)
def test_images_in_other_units_are_refused(kind, wrong, error, words):
    model = model_of("qvae")
    assert images().min() == 0 and images().max() == 255
    with pytest.raises(error, match=words):
        model.encode(kind(wrong(images())))
    assert model.encode(kind(to_float(images()) * 1.00001)).shape == (3, 5)  # rounding


@pytest.mark.parametrize("dimension", [1, 3])
def test_vector_codes(dimension):
    model = model_of("factorqvae", "model.latent.kind=vector", f"model.latent.dimension={dimension}")
    codes = model.encode(images())
    assert codes.shape == (3, 5) and codes.dtype == torch.int64
    assert model.decode(codes).shape == (3, 3, 16, 16)


def test_decoding_codes_is_decoding_their_values():
    model = model_of("factorqvae")
    codes = model.encode(images())
    torch.testing.assert_close(model.decode(codes), model.decoder(model.latent.codebook[codes]))
    per_latent = model_of("qlae")
    codes = per_latent.encode(images())
    values = torch.stack([per_latent.latent.codebook[j, codes[:, j]] for j in range(5)], 1)
    torch.testing.assert_close(per_latent.decode(codes), per_latent.decoder(values))


def test_prior_is_uniform_over_all_codes():
    model = model_of("qvae", "model.latent.codebook_size=4")
    codes = model.sample(8_000, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(codes.flatten(), minlength=4)
    assert len(counts) == 4 and (counts - 10_000).abs().max() < 5 * (40_000 * 0.25 * 0.75) ** 0.5


def test_qlae_starts_from_evenly_spaced_codes():
    expected = torch.linspace(-0.5, 0.5, 16).expand(5, 16)
    torch.testing.assert_close(model_of("qlae").latent.codebook.detach(), expected, check_stride=False)


def test_to_float_and_back():
    every = torch.arange(256, dtype=torch.uint8)
    assert to_float(every)[[0, 255]].tolist() == [-0.5, 0.5]
    assert torch.equal(to_uint8(to_float(every)), every)
    assert to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("name", "call", "error", "words"),
    [
        (
            "qvae",
            lambda m: m.encode(torch.zeros(3, 8, 8)),
            ValueError,
            r"images .* \(batch, 3, 16, 16\).*\(3, 8, 8\)",
        ),
        (
            "qvae",
            lambda m: m.decode(torch.zeros(2, 5)),
            TypeError,
            "codes must be a torch.int64 .* torch.float32",
        ),
        ("qvae", lambda m: m.decode([[0]]), TypeError, "but were list"),
        (
            "qvae",
            lambda m: m.decode(torch.full((2, 4), 0)),
            ValueError,
            r"\(batch, 5\), but had shape \(2, 4\)",
        ),
        (
            "qvae",
            lambda m: m.decode(torch.full((2, 5), 64)),
            ValueError,
            r"in \[0, 64\), but ran from 64 to 64",
        ),
        ("qvae", lambda m: m.decode(torch.full((2, 5), -1)), ValueError, "but ran from -1"),
        (
            "vae",
            lambda m: m.decode(torch.full((2, 5), 1)),
            TypeError,
            "floating-point tensor, but were torch.int64",
        ),
        ("vae", lambda m: m.decode(torch.zeros(5)), ValueError, r"\(batch, 5\)"),
    ],
)
def test_what_does_not_fit_is_named(name, call, error, words):
    with pytest.raises(error, match=words):
        call(model_of(name))
