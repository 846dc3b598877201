"""The parts of `fqvae_kernels.ScalarQuantizer`, a file each: codebook, precision, capacity, estimator,
temperature, losses, usage, output and others; levels and level_passes, for codebooks of different sizes; and
layout, projection, masks, indices and tokens, which arrangement puts together. `fqvae_kernels.quantizer` puts
all of them together and is the public face.
"""
