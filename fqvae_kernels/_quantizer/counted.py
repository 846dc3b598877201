"""What a quantizer with an embedding says about the codes that it has taken."""

from __future__ import annotations

from torch import Tensor

from fqvae_kernels import _arguments
from fqvae_kernels._quantizer.capture import happens_once
from fqvae_kernels._quantizer.counting import Counting
from fqvae_kernels._quantizer.indices import check_integers
from fqvae_kernels._quantizer.usage import UsageCounter


class Counted(Counting):
    """The part of a `GumbelVectorQuantizer` that counts codes, for each of its codebooks."""

    def __init__(self, num_codebooks: int, codebook_size: int) -> None:
        super().__init__()
        self.num_codebooks = _arguments.check_count("num_codebooks", num_codebooks, 1)
        self.codebook_size = _arguments.check_count("codebook_size", codebook_size, 1, _arguments.MOST_CODES)
        self._usage = UsageCounter(self.num_codebooks, self.codebook_size)

    def count_usage(self, indices: Tensor) -> None:
        """Add codes to `usage` that a program took which does not count by itself, such as a compiled one.

        indices: int32 or int64, (..., num_codebooks), in [0, K); -1 does not count. Raises TypeError and
        ValueError for another dtype, shape or value.
        """
        self._check_indices(indices)
        self._usage.count(indices.long(), self.num_codebooks, True)

    def _check_indices(self, indices: Tensor) -> None:
        """Reading the values, which waits for a GPU, unless they stand for others: an index out of range
        would mean a code of another codebook.
        """
        check_integers("indices", indices)
        if indices.dim() == 0 or indices.shape[-1] != self.num_codebooks:
            raise ValueError(
                f"indices must have shape (..., {self.num_codebooks}), but had shape {tuple(indices.shape)}"
            )
        if not happens_once(indices) or indices.numel() == 0:
            return
        lowest, highest = (int(value) for value in indices.aminmax())
        if lowest < -1 or highest >= self.codebook_size:
            wrong = lowest if lowest < -1 else highest
            raise ValueError(f"indices must be in [0, {self.codebook_size}), or -1, but one was {wrong}")
