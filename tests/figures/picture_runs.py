"""Runs that were never trained: a checkpoint of random weights, and metrics.csv."""

import hashlib

import numpy as np
import torch

from fqvae.models import Autoencoder
from fqvae.runs import to_flat
from fqvae.runs.checkpoint import FORMAT, write_plain
from fqvae.runs.presets import load_preset

SETTINGS = ["model.network.channels=4", "model.network.hidden=16", "model.latent.size=3"]
VECTORS = ["model.latent.kind=vector", "model.latent.dimension=2"]
CSV = "step,loss,reconstruction,kl,perplexity/00,perplexity/pooled\n1,0.5,0.4,0.1,3,4\n2,0.3,0.2,0.1,2,4\n"


def untrained(model="qvae", *settings, codes=8):
    """An autoencoder for images of 32 x 32 pixels whose latents differ from image to image."""
    config = load_preset("smoke", model, [*SETTINGS, f"model.latent.codebook_size={codes}", *settings])
    autoencoder = Autoencoder(config.model, config.data.size, channels=config.data.channels, seed=1).eval()
    with torch.no_grad():
        autoencoder.encoder[-1].weight.mul_(30)
    return config, autoencoder


def write_run(folder, model="qvae", *settings):
    """The run's folder, with a checkpoint and metrics.csv."""
    config, autoencoder = untrained(model, *settings)
    folder.mkdir()
    state = {f"autoencoder.{name}": value for name, value in autoencoder.state_dict().items()}
    header = {"format": FORMAT, "step": 7, "config": to_flat(config)}
    write_plain({"fqvae": header, "state_dict": state}, folder / "last.ckpt")
    (folder / "metrics.csv").write_text(CSV)
    return folder


def digest(folder):
    return hashlib.sha256((folder / "last.ckpt").read_bytes()).hexdigest()


def evaluation(folder, sha256=None):
    """A metrics.json's content. Of three latents the first tells of the shape, the last of the wall hue."""
    nmi = np.zeros((6, 3))
    nmi[4, 0], nmi[1, 2], nmi[0, 2] = 0.75, 0.5, 0.25
    return {
        "model": "qvae",
        "checkpoint": {"file": "last.ckpt", "sha256": sha256 or digest(folder), "step": 7},
        "data": {
            "factor_names": ["floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"],
        },
        "importance": (np.arange(18).reshape(3, 6) / 20).tolist(),
        "nmi": nmi.tolist(),
        "nmi_latents": np.eye(3).tolist(),
    }
