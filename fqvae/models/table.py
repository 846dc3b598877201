"""The models by name. A new one is an entry here; its penalties stand in `fqvae.models.penalties`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fqvae.models.penalties import PENALTIES


@dataclass(frozen=True)
class Model:
    """What a model is, whatever it is trained on.

    name: as commands take it. label: as pages print it. description: a line.
    latent: what it changes in `LatentConfig`.
    weights: of its penalties, where a preset has no others: made for rendered images of 32 x 32 pixels.
    authors: what it changes in `LatentConfig` besides, in the authors' protocol.
    """

    name: str
    label: str
    description: str
    latent: Mapping[str, object]
    weights: Mapping[str, float] = field(default_factory=dict)
    authors: Mapping[str, object] = field(default_factory=dict)

    @property
    def has_discriminator(self) -> bool:
        """Whether one of its penalties needs one."""
        return any("discriminator" in PENALTIES[each].needs for each in self.weights)


# In the order of tables. The first nine are the paper's (arXiv 2409.14851), with its weights for Shapes3D,
# except that total correlation weighs 5e-4 in all three models that have it, which is ours.
MODELS: dict[str, Model] = {
    each.name: each
    for each in (
        Model("ae", "AE", "a plain autoencoder", {"kind": "plain"}),
        Model(
            "bioae",
            "BioAE",
            "nonnegative latents of little activity (Whittington et al., ICLR 2023)",
            {"kind": "plain"},
            {"nonnegativity": 1, "activity": 1e-2},
        ),
        Model(
            "vae",
            "VAE",
            "Gaussian latents: the beta-VAE (Higgins et al., ICLR 2017)",
            {"kind": "gaussian"},
            {"kl": 1e-4},
        ),
        Model(
            "factorvae",
            "FactorVAE",
            "a VAE with total correlation by a discriminator (Kim & Mnih, ICML 2018)",
            {"kind": "gaussian"},
            {"kl": 1e-4, "total_correlation": 5e-4},
        ),
        Model(
            "qlae",
            "QLAE",
            "the nearest of a latent's own codes (Hsu et al., NeurIPS 2023)",
            {
                "kind": "scalar",
                "estimator": "nearest",
                "codebooks": "per_latent",
                "codebook_size": 16,
                "init": "linspace",
            },
            {"commitment": 1e-2, "codebook": 1e-2},
            authors={"init": "normal"},
        ),
        Model(
            "dvae",
            "dVAE",
            "a code drawn from the encoder's logits (after Ramesh et al., ICML 2021)",
            {"kind": "logits"},
            {"kl": 5e-3},
        ),
        Model(
            "factordvae",
            "FactorDVAE",
            "a dVAE with total correlation by a discriminator",
            {"kind": "logits"},
            {"kl": 5e-3, "total_correlation": 5e-4},
        ),
        Model(
            "qvae",
            "QVAE",
            "a code drawn by its distance from the encoder's number (arXiv 2409.14851)",
            {"kind": "scalar"},
            {"kl": 1e-3},
        ),
        Model(
            "factorqvae",
            "FactorQVAE",
            "a QVAE with total correlation by a discriminator (arXiv 2409.14851)",
            {"kind": "scalar"},
            {"kl": 1e-3, "total_correlation": 5e-4},
        ),
        # The weights of these are ours: of the KL divergence the VAE's and the QVAE's, of the distance from a
        # factorized support what keeps it below the reconstruction error.
        Model(
            "betatcvae",
            "\u03b2-TCVAE",
            "a VAE whose total correlation, taken from the batch, weighs more (Chen et al., NeurIPS 2018)",
            {"kind": "gaussian"},
            # The total correlation weighs 6 times as much as the other two parts, as in the paper.
            {"index_code_information": 1e-4, "batch_total_correlation": 6e-4, "dimension_wise_kl": 1e-4},
        ),
        Model(
            "dipvae",
            "DIP-VAE-II",
            "a VAE whose latents' covariance is drawn to the identity (Kumar et al., ICLR 2018)",
            {"kind": "gaussian"},
            # 5 beside an error that is summed over 32 x 32 x 3 numbers is 1.6e-3 beside the mean.
            {"kl": 1e-4, "covariance": 1.6e-3, "variance": 1.6e-3},
        ),
        Model(
            "hfsvae",
            "HFS-VAE",
            "a VAE with a factorized support, however correlated the factors (Roth et al., ICLR 2023)",
            {"kind": "gaussian"},
            {"kl": 1e-4, "hausdorff": 3e-4},
        ),
        Model(
            "hfsqvae",
            "HFS-QVAE",
            "a QVAE with a factorized support, however correlated the factors",
            {"kind": "scalar"},
            {"kl": 1e-3, "hausdorff": 3e-4},
        ),
    )
}

CUSTOM = Model("custom", "A model of its own", "parts put together by hand", {})


def find_model(name: str) -> Model | None:
    """The model of this name, `CUSTOM` for its own; None if there is none."""
    return {**MODELS, CUSTOM.name: CUSTOM}.get(name)
