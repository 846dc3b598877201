"""The parts of `fqvae_kernels.ScalarQuantizer`, a file each: codebook, precision, capacity, estimator,
temperature, losses, usage, output and others; layout, projection, masks, indices and tokens, which
arrangement puts together; levels and level_passes, for codebooks of different sizes; and scalar_codes, which
takes codes. `fqvae_kernels.quantizer` puts all of them together and is the public face. The
`GumbelVectorQuantizer` of `fqvae_kernels.vector` shares estimating, temperature, counting and representation,
and has counted and vector_codes besides.
"""
