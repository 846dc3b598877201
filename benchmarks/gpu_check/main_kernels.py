"""What ncu watches: forward and backward of the CUDA backend at two sizes, all inputs made on the CPU."""

from __future__ import annotations

import torch

from fqvae_kernels import backends
from fqvae_kernels._call import Incoming, Kept, Needs
from gpu_check.timing_cases import Tensors

SHAPES = ((65_536, 64), (1_048_576, 64))


def main() -> None:
    module = backends.kernel("cuda")
    for shape in SHAPES:
        tensors = Tensors(*shape)
        z, book, needs = tensors.z, tensors.book, Needs(True, True)
        call = tensors.call._replace(needs=needs)
        stats = book.new_empty((module.stats_rows(call), shape[0]))
        indices = module.forward(z, book, call, stats)[1]
        module.backward(z, book, call, Kept(indices, stats), Incoming(tensors.a, tensors.h), needs)
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
