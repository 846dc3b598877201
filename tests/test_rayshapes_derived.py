"""benchmarks/rayshapes_runs/derived.py: measures made of a run's tables, against scikit-learn and by hand."""

import numpy as np
import pytest
from rayshapes_runs.derived import derived
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from fqvae.metrics import latent_nmi


def content(codes=None, nmi=None, usage=None, kind="scalar", codebooks="shared", **scores):
    """As `read_evaluation` gives it. codes: (samples, latents)."""
    found = {
        "config": {"model.latent.kind": kind, "model.latent.codebooks": codebooks},
        "scores": scores,
        "nmi": nmi,
        "usage": usage,
    }
    if codes is not None:
        count = codes.max() + 1
        found["usage"] = [np.bincount(column, minlength=count).tolist() for column in codes.T]
        found["nmi_latents"] = latent_nmi(codes, discrete=True).tolist()
    return found


def test_information_of_pairs():
    """What scikit-learn finds in each pair beyond what it expects of independent ones (Vinh et al., 2010)."""
    generator = np.random.default_rng(3)
    one = generator.integers(0, 12, 5000)
    other = generator.integers(0, 9, 5000)
    copy = np.where(generator.random(5000) < 0.3, other, generator.integers(0, 30, 5000))
    codes = np.stack([one, other, copy, np.zeros(5000, np.int64)], 1)
    exact = 0.0
    for a, b in ((0, 1), (0, 2), (1, 2)):
        table = contingency_matrix(codes[:, a], codes[:, b])
        expected = expected_mutual_information(table, len(codes))
        exact += mutual_info_score(codes[:, a], codes[:, b]) - expected
    found = derived(content(codes))["pair_information"]
    assert found == pytest.approx(exact, abs=0.01) and exact > 0.1
    assert derived(content(codes[:, :2]))["pair_information"] == pytest.approx(0, abs=0.005)


def test_shared_codes():
    """Latents 0 and 1 tell factor 0, latent 2 tells factor 1, latent 3 does not vary.

    Latents 0 and 2 share .25 (of code 1), latents 1 and 2 share .5 and .25 (of codes 1 and 2).
    """
    usage = [[75, 25, 0], [25, 50, 25], [0, 50, 50], [100, 0, 0]]
    nmi = [[0.9, 0.8, 0.1, 0.0], [0.1, 0.2, 0.7, 0.0]]
    found = derived(content(nmi=nmi, usage=usage))
    assert found == {"shared_codes": pytest.approx((0.25 + 0.75) / 2)}
    assert derived(content(nmi=nmi, usage=usage, codebooks="per_latent")) == {}
    alone = [[0.9, 0.8, 0.7, 0.0], [0.1, 0.2, 0.1, 0.0]]
    assert derived(content(nmi=alone, usage=usage)) == {}


def test_scores_by_index():
    """Codes that are vectors have no order: theirs are by index as they are."""
    ranked = content(disentanglement=0.5, completeness=0.4)
    index = content(disentanglement=0.3, completeness=0.2)
    assert derived(ranked) == {}
    by_index = {"disentanglement_by_index": 0.3, "completeness_by_index": 0.2}
    assert derived(ranked, index) == by_index
    assert derived(content(kind="vector", disentanglement=0.3, completeness=0.2)) == by_index
