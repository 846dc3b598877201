"""What measures are computed from: a run's codes and factors, and what several measures share."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from fqvae.data import has_full_grid, split
from fqvae.evaluation.options import Options
from fqvae.evaluation.order import ordered_codes
from fqvae.evaluation.straight import straight_through_gap
from fqvae.metrics import (
    DCI,
    CodeUsage,
    GridSampler,
    InfoMEC,
    code_usage,
    dci,
    infomec,
    latent_nmi,
)
from fqvae.runs import Codes, Encoded, Run, encode, encode_codes, held_out, to_flat
from fqvae_kernels import ScalarQuantizer

T = TypeVar("T")
_PICTURES = 2_048  # images that are looked at pixel by pixel


def shared(part: Callable[[Inputs], T]) -> functools.cached_property[T]:
    """A property that is computed once, and timed under its name."""

    @functools.wraps(part)
    def timed(self: Inputs) -> T:
        with self.timed(part.__name__):
            return part(self)

    return functools.cached_property(timed)


class Inputs:
    """A run under some options. Everything that takes time is computed when it is first asked for.

    options: resolved ones. seconds: wall time, by part.
    """

    def __init__(self, run: Run, options: Options, *, jobs: int | None, progress: bool) -> None:
        self.run, self.options, self.jobs, self.progress = run, options, jobs, progress
        self.seconds: dict[str, float] = {}
        self._inside = [0.0]  # seconds of the parts of each part that runs
        self.discrete = run.discrete
        self.seed = options.seed

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time that this takes, without that of timed parts inside."""
        self._inside.append(0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            taken, inside = time.perf_counter() - start, self._inside.pop()
            self.seconds[part] = self.seconds.get(part, 0.0) + taken - inside
            self._inside[-1] += taken

    @shared
    def encoding(self) -> Encoded:
        """The images, encoded and decoded again."""
        count = self.options.count
        if self.options.protocol == "authors":
            index = np.random.default_rng(self.seed).permutation(len(self.run.dataset))[:count]
        else:
            index = held_out(self.run.dataset, count, self.seed)
        return encode(self.run, index, progress=self.progress)

    @functools.cached_property
    def codes(self) -> Codes:
        """All codes in the order that measures read."""
        return self.ordered(self.encoding.codes)

    @property
    def fit(self) -> Codes:
        """The codes (train, M) that classifiers are fitted to."""
        return self.codes[: self.options.train]

    @property
    def factors(self) -> NDArray[np.int64]:
        """The factors (train, F) of the same images."""
        return self.encoding.factors[: self.options.train]

    @property
    def sets(self) -> tuple[Codes, NDArray[np.int64], Codes, NDArray[np.int64]]:
        """Codes and factors to fit to, and to test on."""
        train = self.options.train
        return self.fit, self.factors, self.codes[train:], self.encoding.factors[train:]

    @shared
    def dci(self) -> DCI:
        """Of ordered codes."""
        return dci(
            *self.sets,
            classifier=self.options.classifier,
            seed=self.seed,
            jobs=self.jobs,
            progress=self.progress,
        )

    @shared
    def infomec(self) -> InfoMEC:
        """With the neighbours and iterations of the protocol."""
        return infomec(
            self.fit,
            self.factors,
            discrete=self.discrete,
            **self.options.infomec,
            seed=self.seed,
            jobs=self.jobs,
            progress=self.progress,
        )

    @functools.cached_property
    def latent_nmi(self) -> NDArray[np.float64]:
        """Float64 (M, M)."""
        return latent_nmi(self.fit, discrete=self.discrete)

    @functools.cached_property
    def usage(self) -> CodeUsage:
        """Of the codes as they are numbered."""
        codes = self.encoding.codes[: self.options.train]
        return code_usage(codes, self.run.config.model.latent.codebook_size)

    @functools.cached_property
    def books(self) -> list[NDArray[np.float64]]:
        """The codebook of each latent, float64 (K,); of scalar codes only."""
        codebook = self.run.model.latent.codebook.detach().cpu().double().numpy()
        rows = codebook[None] if codebook.ndim == 1 else codebook
        return [rows[latent % len(rows)] for latent in range(self.fit.shape[1])]

    @functools.cached_property
    def distance_factors(self) -> list[float]:
        """The root of each latent's precision, a factor of its distances, (M,); of scalar codes only."""
        quantizer = cast(ScalarQuantizer, self.run.model.latent.get_submodule("quantizer"))
        precision = torch.as_tensor(quantizer.precision).detach().cpu().double().reshape(-1).sqrt().tolist()
        return [precision[latent % len(precision)] for latent in range(self.fit.shape[1])]

    @functools.cached_property
    def picture_variance(self) -> float:
        """The variance of a pixel, mean over the pixels, in the units of the error."""
        images = self.run.dataset.images(self.encoding.index[:_PICTURES]).double().numpy() / 255
        return float(images.var(0, ddof=1).mean())

    @shared
    def straight_through_gap(self) -> float:
        """See `fqvae.evaluation.straight`."""
        return straight_through_gap(self.run, self.encoding.index[:_PICTURES], self.seed)

    @functools.cached_property
    def sampler(self) -> GridSampler:
        """All images of the set, each encoded when it is first drawn."""
        dataset, encoded = self.run.dataset, self.encoding
        assert has_full_grid(dataset)
        known = np.zeros(len(dataset), dtype=bool)
        table = np.zeros((len(dataset), encoded.codes.shape[1]), dtype=encoded.codes.dtype)
        known[encoded.index], table[encoded.index] = True, encoded.codes

        def codes(factors: NDArray[np.int64]) -> Codes:
            index = dataset.index(factors).numpy()
            new = np.unique(index[~known[index]])
            if len(new):
                known[new], table[new] = True, encode_codes(self.run, new, progress=self.progress)
            return self.ordered(table[index])

        return GridSampler(codes, dataset.factor_sizes)

    def ordered(self, codes: Codes) -> Codes:
        """Codes in the order that the options name."""
        return ordered_codes(self.run, codes) if self.options.order == "rank" else codes


def available(run: Run, options: Options) -> int:
    """How many images there are to measure on."""
    dataset = run.dataset
    return len(dataset) if options.protocol == "authors" else len(split(dataset).test)


def present(config: Mapping[str, Any], labels: bool, grid: bool) -> frozenset[str]:
    """What of `Measure.needs` a run has.

    Args:
        config: the run's, flat.
        labels: whether factors of its images are known. grid: whether there is an image for all of their
            combinations.
    """
    kind = config["model.latent.kind"]
    discrete = kind in ("scalar", "logits", "vector")
    has = {
        "labels": labels,
        "grid": labels and grid,
        "codes": discrete,
        "scalar codes": discrete and kind != "vector",
        "soft samples": discrete and config["model.latent.estimator"] == "gumbel",
    }
    return frozenset(name for name, there in has.items() if there)


def present_in(run: Run) -> frozenset[str]:
    """`present` of an open run."""
    return present(to_flat(run.config), bool(run.dataset.factor_names), has_full_grid(run.dataset))
