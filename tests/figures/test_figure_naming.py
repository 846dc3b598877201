"""The one rule by which latents are named after factors."""

import math

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from fqvae.figures.naming import LEAST, named_factor


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0.11, 0.02, 0.05], None),  # too little of any factor
        ([0.29, 0.0], None),
        ([0.31, 0.0], 0),
        ([0.1, 0.8, 0.1], 1),
        ([0.4, 0.8], 1),
        ([0.41, 0.8], None),  # two factors in one latent
        ([0.9, 0.9], None),
        ([0.31], 0),
        ([0.0, 0.0], None),
        ([], None),  # images without labels
    ],
)
def test_the_rule(shares, expected):
    assert named_factor(shares) == expected


def test_two_halves_of_a_factor_suffice():
    """The threshold rests on what two halves of ten values tell, here counted."""
    factor = np.arange(1000) % 10
    share = mutual_info_score(factor, factor // 5) / math.log(10)
    assert LEAST <= share < LEAST + 0.01
    assert named_factor([share, 0.0]) == 0
