"""The parts of `fqvae_kernels.ScalarQuantizer`, a file each: codebook, precision, capacity, estimator,
masks, losses, usage and output. `fqvae_kernels.quantizer` puts them together and is the public face.
"""
