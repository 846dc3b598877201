"""The parts of `fqvae_kernels.ScalarQuantizer`, a file each: codebook, precision, capacity, estimator,
temperature, losses, usage, output and others. `fqvae_kernels.quantizer` puts them together and is the public
face.
"""
