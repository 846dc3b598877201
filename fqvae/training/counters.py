"""What a step draws and how fast it learns, as functions of the run's seed and the step's number.

Order of the images, noise, permutations and schedules depend on nothing else. So no generator's state has to
be saved, and a resumed run draws what an unbroken one would. So does one on several processes; but a penalty
that looks at a batch as a whole sees one process's share of it.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fqvae.data import ImageDataset


def derive_seed(seed: int, purpose: str, number: int = 0) -> int:
    """A seed in [0, 2**63) for each purpose and number."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def cosine(step: int, steps: int, first: float, last: float) -> float:
    """Half a cosine from `first` at step 0 to `last` at step `steps` (Loshchilov & Hutter, ICLR 2017).

    Beyond, the cosine goes on: it is back at `first` at step 2 `steps`.
    """
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2


class Batches:
    """The batches of a run from step `start` on, as one process of `world` sees them.

    An epoch is a permutation of the training images, cut into whole batches. A batch is cut into `parts` (two
    with a discriminator), each part into one share per process: rank r gets share r of every part.

    Iterating yields uint8 (batch_size / world, 3, S, S); the next batch is gathered while one is used.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        train: NDArray[np.int64],
        *,
        seed: int,
        batch_size: int,
        steps: int,
        start: int = 0,
        parts: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size > len(train):
            raise ValueError(
                f"batch_size must be at most {len(train)}, all training images, but was {batch_size}"
            )
        if batch_size % (parts * world):
            raise ValueError(
                f"batch_size must be a multiple of {parts * world}, {parts} part(s) for each of {world} "
                f"process(es), but was {batch_size}"
            )
        self.dataset, self.train, self.seed = dataset, train, seed
        self.batch_size, self.start, self.steps = batch_size, start, steps
        self.parts, self.rank, self.world = parts, rank, world
        self._epoch = functools.lru_cache(maxsize=1)(self._permute)

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[Tensor]:
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(self.batch, self.start)
            for step in range(self.start, self.steps):
                batch = following.result()
                if step + 1 < self.steps:
                    following = pool.submit(self.batch, step + 1)
                yield batch

    def batch(self, step: int) -> Tensor:
        """The images of a step, uint8."""
        return self.dataset.images(self.index(step))

    def index(self, step: int) -> NDArray[np.int64]:
        """The numbers of a step's images."""
        epoch, place = divmod(step, len(self.train) // self.batch_size)
        batch = self._epoch(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        return batch.reshape(self.parts, self.world, -1)[:, self.rank].reshape(-1)

    def _permute(self, epoch: int) -> NDArray[np.int64]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        order: NDArray[np.int64] = torch.randperm(len(self.train), generator=generator).numpy()
        return self.train[order]
