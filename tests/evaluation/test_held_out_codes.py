"""Which images are measured, and that an image's code is its own."""

import hashlib

import numpy as np
import pytest
import torch

import fqvae
from fqvae.data import split
from fqvae.evaluation import ordered_codes
from fqvae.runs import encode, encode_codes, held_out, open_run


def test_a_seeded_sample_of_the_test_split():
    from blobset import BlobSet

    test = set(split(BlobSet()).test.tolist())
    index = held_out(BlobSet(), 25)
    assert index.dtype == np.int64 and len(test) == 25 and set(index.tolist()) == test
    assert np.array_equal(held_out(BlobSet(), 7), index[:7])
    assert not np.array_equal(held_out(BlobSet(), 25, seed=1), index)
    for count in (0, 26):
        with pytest.raises(ValueError, match=f"at least 1 and at most 25, .* blobs, but were {count}"):
            held_out(BlobSet(), count)


@pytest.mark.parametrize("name", ["factorqvae", "vae"])
def test_a_code_is_the_images_own(name, trained):
    from blobset import BlobSet

    run = open_run(trained(name), dataset=BlobSet())
    index = np.random.default_rng(0).permutation(256)
    all_ = encode(run, index, batch_size=64)
    assert np.array_equal(all_.factors, run.dataset.factors(index))
    # Neither its place nor the number of the others counts, to the last bit.
    for part in (index[:1], index[100:171], index[::-1]):
        found = encode(run, part, batch_size=64)
        where = np.argsort(index)[part]
        assert np.array_equal(found.codes, all_.codes[where]) and np.array_equal(found.index, part)
        assert np.array_equal(encode_codes(run, part, batch_size=64), found.codes)
    for size in (23, 300):
        other = encode(run, index, batch_size=size)
        np.testing.assert_allclose(other.codes, all_.codes, atol=1e-5)
        assert other.error == pytest.approx(all_.error, rel=1e-5)
    images = run.dataset.images(index)
    with torch.no_grad():
        error = (run.model(images) - (images / 255 - 0.5)).square().mean().item()
    assert all_.error == pytest.approx(error, rel=1e-5)
    assert all_.codes.dtype == (np.float32 if name == "vae" else np.int64)


def test_means_not_samples(trained):
    from blobset import BlobSet

    run = open_run(trained("vae"), dataset=BlobSet())
    with torch.no_grad():
        head = run.model.encoder(run.dataset.images(np.arange(8)) / 255 - 0.5)
    np.testing.assert_allclose(encode(run, np.arange(8)).codes, head[:, :4], atol=1e-5)


def test_the_order_of_codes(trained):
    from blobset import BlobSet

    run = open_run(trained("factorqvae"), dataset=BlobSet())
    values = run.model.latent.codebook.tolist()
    indices = np.arange(8)[:, None].repeat(4, 1)
    assert sorted(values) != values and len(set(values)) == 8
    assert ordered_codes(run, indices)[:, 0].tolist() == [sorted(values).index(each) for each in values]
    run = open_run(trained("vector"), dataset=BlobSet())
    assert ordered_codes(run, indices) is indices
    run = open_run(trained("sorted"), dataset=BlobSet())
    assert np.array_equal(ordered_codes(run, indices), indices)


def test_opening(trained, tmp_path, monkeypatch):
    from blobset import BlobSet

    folder = trained("factorqvae")
    run = open_run(folder / "last.ckpt", dataset=BlobSet())
    assert run.folder == folder and run.step == 80 and run.discrete
    assert run.sha256 == hashlib.sha256((folder / "last.ckpt").read_bytes()).hexdigest()
    assert torch.equal(run.model.latent.codebook, fqvae.load(folder).latent.codebook)
    assert not open_run(trained("vae"), dataset=BlobSet(), device="auto").discrete
    with pytest.raises(FileNotFoundError, match=r"no checkpoint last\.ckpt in the folder"):
        open_run(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="device was 'cuda:0', but PyTorch finds no CUDA device"):
        open_run(folder, dataset=BlobSet(), device="cuda:0")
