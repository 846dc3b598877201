"""What an evaluation depends on besides the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from fqvae.metrics._arrays import check_choice, check_count, check_seed

CLASSIFIERS = ("boosting", "histogram")
ORDERS = ("rank", "index")
PROTOCOLS = ("held-out", "authors")
# Images where a set has as many.
TRAIN, TEST = 10_000, 5_000


@dataclass(frozen=True)
class Options:
    """What measures depend on besides the model.

    train, test: images that classifiers are fitted to, and tested on. What knows no such division is measured
        on the former, the error on both. None: 10,000 and 5,000, or, where there are fewer than both
        together, all there are, two thirds and one third of them; `resolved` puts the numbers in.
    seed: of the choice of images, and of all measures.
    classifier: of DCI, see `fqvae.metrics.dci`.
    order: of scalar codes: "rank", by their values, or "index", as they are numbered. None: "rank", or what
        the protocol says.
    protocol: "held-out", or "authors", that of the authors of arXiv 2409.14851: images from the whole set,
        codes by index, InfoMEC with 3 neighbours and 500 iterations (docs/protocol.md).
    """

    train: int | None = None
    test: int | None = None
    seed: int = 0
    classifier: str = "boosting"
    order: str | None = None
    protocol: str = "held-out"

    def __post_init__(self) -> None:
        if self.train is not None:
            check_count("train", self.train, 2)
        if self.test is not None:
            check_count("test", self.test, 1)
        check_seed(self.seed)
        check_choice("classifier", self.classifier, CLASSIFIERS)
        check_choice("protocol", self.protocol, PROTOCOLS)
        if self.order is None:
            object.__setattr__(self, "order", "index" if self.protocol == "authors" else "rank")
        assert self.order is not None
        check_choice("order", self.order, ORDERS)
        if self.protocol == "authors" and self.order != "index":
            raise ValueError(
                f"order must be 'index' under the protocol 'authors', but was {self.order!r}; leave it out"
            )

    @property
    def count(self) -> int:
        """All images that are encoded, of resolved options."""
        assert self.train is not None and self.test is not None
        return self.train + self.test

    @property
    def infomec(self) -> dict[str, int]:
        """Arguments of `fqvae.metrics.infomec`: the estimate's neighbours, the regression's iterations."""
        authors = self.protocol == "authors"
        return {"neighbors": 3, "iterations": 500} if authors else {"neighbors": 10, "iterations": 100}

    def resolved(self, available: int, name: str = "the set") -> Options:
        """The same with numbers of images, out of so many there are to take.

        Raises ValueError for more than there are, or fewer than 3.
        """
        train, test = self.train, self.test
        if train is None and test is None:
            train, test = TRAIN, TEST
            if train + test > available:
                test = available // 3
                train = available - test
        elif train is None:
            assert test is not None
            train = min(TRAIN, max(available - test, 0))
        elif test is None:
            test = min(TEST, max(available - train, 0))
        assert train is not None and test is not None
        what = "images" if self.protocol == "authors" else "test images"
        if available < 3:
            raise ValueError(f"{name} must have at least 3 {what} to measure on, but has {available}")
        if train + test > available or train < 2 or test < 1:
            raise ValueError(
                f"train + test must be at most {available}, the {what} of {name}, with at least 2 to fit and "
                f"1 to test, but were {train} + {test}"
            )
        return replace(self, train=train, test=test)

    def same(self, content: Mapping[str, Any]) -> bool:
        """Whether an evaluation, as `read_evaluation` gives it, was made with these options."""
        try:
            here = self.resolved(content["data"]["available"])
        except ValueError:  # it will be raised when it is measured
            return False
        return bool(asdict(here) == content["options"])


def shortened(options: Mapping[str, Any], available: int) -> str:
    """A remark for resolved options that take all images because there are not more; else nothing."""
    train, test = options["train"], options["test"]
    if train + test < available or (train >= TRAIN and test >= TEST):
        return ""
    return f"all {available:,} images there are, fewer than {TRAIN:,} + {TEST:,}"
