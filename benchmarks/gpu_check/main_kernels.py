"""What ncu watches: forward and backward of the CUDA backend at two sizes, all inputs made on the CPU."""

from __future__ import annotations

import torch

from fqvae_kernels import backends
from gpu_check.timing_cases import Tensors

SHAPES = ((65_536, 64), (1_048_576, 64))


def main() -> None:
    module = backends.kernel("cuda")
    for shape in SHAPES:
        tensors = Tensors(*shape)
        z, book, call = tensors.z, tensors.book, tensors.call
        stats = book.new_empty((module.stats_rows, shape[0]))
        indices = module.gumbel_forward(z, book, call, stats)[1]
        needs = (True, True, False)
        module.gumbel_backward(z, book, call, indices, stats, tensors.a, tensors.h, None, needs)
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
