"""The definitions of the metrics once more, sample by sample, and sets for which the scores are known."""

import itertools
import math
from collections import Counter

import numpy as np
from scipy.special import digamma


def grid(*sizes):
    """Every combination of factors once: plug-in information of independent columns is then exactly 0."""
    return np.array(list(itertools.product(*map(range, sizes))))


def uniform(count, *sizes, seed=0):
    """Factors at random, (count, factors)."""
    return np.random.default_rng(seed).integers(sizes, size=(count, len(sizes)))


def entropy(values):
    total = len(values)
    return -sum(n / total * math.log(n / total) for n in Counter(values).values())


def information(first, second):
    """sum p(a, b) ln(p(a, b)/(p(a) p(b))) over the pairs that occur."""
    total = len(first)
    left, right = Counter(first), Counter(second)
    return sum(
        n / total * math.log(n * total / (left[a] * right[b]))
        for (a, b), n in Counter(zip(first, second, strict=True)).items()
    )


def ross(factor, code, neighbors):
    """Ross (PLoS ONE 2014), equations 1 and 2, by all pairs of distances."""
    keep = [i for i in range(len(code)) if list(factor).count(factor[i]) > 1]
    total = 0.0
    for i in keep:
        same = sorted(abs(code[j] - code[i]) for j in keep if factor[j] == factor[i] and j != i)
        k = min(neighbors, len(same))
        within = sum(abs(code[j] - code[i]) <= same[k - 1] for j in keep if j != i)
        total += digamma(k) - digamma(len(same) + 1) - digamma(within)
    return max(0.0, digamma(len(keep)) + total / len(keep))


def shares(row):
    return [value / sum(row) for value in row]


def dci_scores(importance):
    """Disentanglement and completeness of (latents, factors), a list of lists."""

    def score(rows):
        everything = sum(map(sum, rows))
        result = 0.0
        for row in rows:
            entropy = -sum(p * math.log(p, len(row)) for p in shares([value + 1e-11 for value in row]))
            result += sum(row) / everything * (1 - entropy)
        return result

    rows = [list(row) for row in importance]
    return score(rows), score([list(column) for column in zip(*rows, strict=True)])


def infom_infoc(nmi):
    """Of (factors, active codes), a list of lists with no row or column of zeros."""

    def score(rows):
        chance = 1 / len(rows[0])
        return (sum(max(row) / sum(row) for row in rows) / len(rows) - chance) / (1 - chance)

    rows = [list(row) for row in nmi]
    return score([list(column) for column in zip(*rows, strict=True)]), score(rows)
