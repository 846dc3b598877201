"""Scores on codes of images that share the value of a factor, and the samplers that provide them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from fqvae.metrics._arrays import (
    Array,
    Floats,
    Ints,
    check_count,
    check_seed,
    labels_of,
    read_codes,
    read_pair,
)
from fqvae.metrics._classifiers import TrainTest, logistic_regression

_AT_ONCE = 1 << 16  # samples that are drawn in one go


class FactorSampler(Protocol):
    """Draws samples with a factor held fixed."""

    @property
    def factor_sizes(self) -> tuple[int, ...]:
        """How many values each factor takes. One that takes a single value is never held fixed."""

    def sample(self, count: int, generator: np.random.Generator) -> Floats:
        """Codes of samples with all factors at random, (count, latents)."""

    def groups(self, factor: Ints, size: int, generator: np.random.Generator) -> Floats:
        """Codes (groups, size, latents): all samples of group g share one random value of factor[g]."""


class GridSampler:
    """All combinations of factors, uniformly; a model gives the codes.

    Args:
        encode: takes factors, int64 (samples, factors), and gives codes (samples, latents), NumPy or torch;
            of up to 65,536 samples at once. For example `lambda f: encode_images(images(index(f)))`, or a
            look-up in codes that were computed before.
        factor_sizes: how many values each factor takes.

    Raises:
        TypeError, ValueError: sizes that are not ints of at least 1; when used: codes of another shape, NaN.
    """

    def __init__(self, encode: Callable[[Ints], Array], factor_sizes: Sequence[int]) -> None:
        for size in factor_sizes:
            check_count("factor_sizes", size, 1)
        if not len(factor_sizes):
            raise ValueError("factor_sizes must name at least one factor, but was empty")
        self.factor_sizes = tuple(int(size) for size in factor_sizes)
        self._encode = encode

    def sample(self, count: int, generator: np.random.Generator) -> Floats:
        """See `FactorSampler`."""
        return self._codes(generator.integers(self.factor_sizes, size=(count, len(self.factor_sizes))))

    def groups(self, factor: Ints, size: int, generator: np.random.Generator) -> Floats:
        """See `FactorSampler`."""
        factors = generator.integers(self.factor_sizes, size=(len(factor), size, len(self.factor_sizes)))
        rows = np.arange(len(factor))
        factors[rows, :, factor] = factors[rows, 0, factor][:, None]
        codes = self._codes(factors.reshape(-1, len(self.factor_sizes)))
        return codes.reshape(len(factor), size, -1)

    def _codes(self, factors: Ints) -> Floats:
        codes = read_codes("the codes that encode gave", self._encode(factors), discrete=False, samples=1)
        if len(codes) != len(factors):
            raise ValueError(f"encode must give {len(factors)} samples, but gave {len(codes)}")
        return codes


class TableSampler:
    """Samples whose codes and factors are known; each is drawn with replacement, as often as it occurs.

    Args:
        codes: (samples, latents), finite.
        factors: (samples, factors), integers of at least 0.

    Raises:
        TypeError, ValueError: codes and factors are not so, or do not fit each other.
    """

    def __init__(self, codes: Array, factors: Array) -> None:
        self._codes, labels = read_pair(codes, factors, discrete=False)
        self._labels = np.stack([labels_of(column) for column in labels.T], axis=1)
        self.factor_sizes = tuple(int(size) for size in self._labels.max(0) + 1)
        # For each factor: the samples by their value, and where each value begins.
        self._order = np.argsort(self._labels, axis=0, kind="stable")
        self._counts = [np.bincount(column) for column in self._labels.T]
        self._starts = [np.cumsum(counts) - counts for counts in self._counts]

    def sample(self, count: int, generator: np.random.Generator) -> Floats:
        """See `FactorSampler`."""
        codes: Floats = self._codes[generator.integers(len(self._codes), size=count)]
        return codes

    def groups(self, factor: Ints, size: int, generator: np.random.Generator) -> Floats:
        """See `FactorSampler`."""
        example = generator.integers(len(self._codes), size=len(factor))
        place = generator.random((len(factor), size))
        chosen = np.empty((len(factor), size), dtype=np.int64)
        for each in np.unique(factor):
            rows = factor == each
            value = self._labels[example[rows], each][:, None]
            nth = (place[rows] * self._counts[each][value]).astype(np.int64)
            chosen[rows] = self._order[self._starts[each][value] + nth, each]
        codes: Floats = self._codes[chosen]
        return codes


def factorvae_score(
    sampler: FactorSampler,
    *,
    batch: int = 64,
    train: int = 10_000,
    test: int = 5_000,
    scale_samples: int = 10_000,
    seed: int = 0,
) -> TrainTest:
    """The score of FactorVAE (Kim and Mnih, Disentangling by Factorising, ICML 2018).

    A vote: a factor k is chosen, a batch of samples is drawn that share its value, and the code whose
    variance in the batch, divided by its variance over all samples, is smallest names k. The classifier is
    the majority of the training votes for each code; the score is its accuracy on other votes. Numbers of
    votes and samples are those of Locatello et al. (ICML 2019).

    Range [0, 1]; guessing has 1/F with F factors that vary. Codes that are constant over all samples do not
    vote; if none is left, 1/F, and 0 if no factor varies. Codes of equal variance: the first one votes. For
    discrete codes give ranks or values, whose variance means something.

    Args:
        sampler: a `GridSampler`, a `TableSampler` or another `FactorSampler`.
        batch: samples of a vote, at least 2.
        train, test: votes.
        scale_samples: samples for the variance over all, at least 2.
        seed: int in [0, 2**32).

    Raises:
        TypeError, ValueError: an option of another type or out of range; what the sampler raises.
    """
    _check_votes(batch, train, test, seed, smallest_batch=2)
    check_count("scale_samples", scale_samples, 2)
    generator = np.random.default_rng(seed)
    variance = _scale(sampler, scale_samples, generator) ** 2
    active = np.flatnonzero(variance)
    names = _varying_factors(sampler)
    if not len(names) or not len(active):
        return _guessing(len(names))

    def votes(count: int) -> tuple[Ints, Ints]:
        chosen = generator.integers(len(names), size=count)
        winners = [
            (sampler.groups(names[part], batch, generator)[..., active].var(1) / variance[active]).argmin(1)
            for part in _parts(chosen, batch)
        ]
        return np.concatenate(winners), chosen

    winner, factor = votes(train)
    table = np.zeros((len(active), len(names)), dtype=np.int64)
    np.add.at(table, (winner, factor), 1)
    majority = table.argmax(1)
    test_winner, test_factor = votes(test)
    return TrainTest(
        float(np.mean(majority[winner] == factor)), float(np.mean(majority[test_winner] == test_factor))
    )


def beta_vae_score(
    sampler: FactorSampler,
    *,
    batch: int = 64,
    train: int = 10_000,
    test: int = 5_000,
    scale_samples: int = 10_000,
    seed: int = 0,
) -> TrainTest:
    """The score of beta-VAE (Higgins et al., ICLR 2017).

    A vote: a factor k is chosen, a batch of pairs of samples is drawn, the two of each pair sharing a value
    of k, and the differences |z1 - z2| of their codes are averaged over the batch. A logistic regression
    (scikit-learn's defaults) tells k from them; the score is its accuracy. Numbers of votes are those of
    Locatello et al. (ICML 2019). Differences are divided by the codes' standard deviation over all samples,
    so that the unit of a code does not count.

    Range [0, 1]; guessing has 1/F with F factors that vary. Constant codes are left out; if none is left,
    1/F, and 0 if no factor varies; 1 with a single factor that varies.

    Args:
        batch: pairs of a vote, at least 1.
        sampler, train, test, scale_samples, seed: as for `factorvae_score`.

    Raises:
        TypeError, ValueError: an option of another type or out of range; what the sampler raises.
    """
    _check_votes(batch, train, test, seed, smallest_batch=1)
    check_count("scale_samples", scale_samples, 2)
    generator = np.random.default_rng(seed)
    scale = _scale(sampler, scale_samples, generator)
    active = np.flatnonzero(scale)
    names = _varying_factors(sampler)
    if len(names) < 2 or not len(active):
        return _guessing(len(names))

    def votes(count: int) -> tuple[Floats, Ints]:
        chosen = generator.integers(len(names), size=count)
        means = []
        for part in _parts(chosen, 2 * batch):
            pairs = sampler.groups(np.repeat(names[part], batch), 2, generator)[..., active]
            differences = np.abs(pairs[:, 0] - pairs[:, 1]) / scale[active]
            means.append(differences.reshape(len(part), batch, -1).mean(1))
        return np.concatenate(means), chosen

    differences, factor = votes(train)
    test_differences, test_factor = votes(test)
    values = np.unique(factor)
    if len(values) < 2:
        return TrainTest(1.0, float(np.mean(test_factor == values[0])))
    model = logistic_regression(differences, factor, penalised=True, balanced=False)
    return TrainTest(
        float(np.mean(model.predict(differences) == factor)),
        float(np.mean(model.predict(test_differences) == test_factor)),
    )


def _check_votes(batch: int, train: int, test: int, seed: int, *, smallest_batch: int) -> None:
    check_count("batch", batch, smallest_batch)
    check_count("train", train, 1)
    check_count("test", test, 1)
    check_seed(seed)


def _scale(sampler: FactorSampler, count: int, generator: np.random.Generator) -> Floats:
    """The standard deviation of every code over all samples, (latents,); exactly 0 for a constant one."""
    codes = np.concatenate([sampler.sample(len(part), generator) for part in _parts(np.arange(count), 1)])
    deviation: Floats = np.where(np.ptp(codes, axis=0) > 0, codes.std(0), 0.0)
    return deviation


def _varying_factors(sampler: FactorSampler) -> Ints:
    return np.flatnonzero(np.array(sampler.factor_sizes) > 1)


def _parts(chosen: Ints, samples_each: int) -> list[Ints]:
    """The array in pieces that draw at most `_AT_ONCE` samples, if a single one does."""
    length = max(1, _AT_ONCE // samples_each)
    return [chosen[start : start + length] for start in range(0, len(chosen), length)]


def _guessing(factors: int) -> TrainTest:
    share = 1 / factors if factors else 0.0
    return TrainTest(share, share)
