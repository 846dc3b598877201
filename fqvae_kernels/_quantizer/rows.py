"""Which rows of the noise a call draws, where its caller does not say."""

from __future__ import annotations

import torch

# No call has so many rows, and the numbers of rows, which stay below 2**63, have room for 2**23 ranks.
ROWS_OF_A_RANK = 2**40
# Asked once: each call takes this way.
_DISTRIBUTED = torch.distributed.is_available()


def first_row() -> int:
    """The number of a call's first row: rank * 2**40 under torch.distributed, else 0.

    Under torch.compile and torch.export it is a constant of the program.
    """
    if _DISTRIBUTED and torch.distributed.is_initialized():
        return torch.distributed.get_rank() * ROWS_OF_A_RANK
    return 0
