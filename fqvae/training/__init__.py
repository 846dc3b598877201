"""Training on Lightning, by `fqvae.training.run.train`. What a run is stands in `fqvae.runs`."""
