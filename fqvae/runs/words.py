"""What people call the keys of a run: short names, which are keys too, and words that only hint at one."""

from __future__ import annotations

# Short names, as papers use them: on the command line, in sweeps and in files.
SHORT = {
    "K": "model.latent.codebook_size",
    "beta": "model.weights.kl",
    "gamma": "model.weights.total_correlation",
    "latents": "model.latent.size",
    "lr": "optimizer.learning_rate",
}

_HINTS = {
    "batch_size": "batch bs batchsize minibatch",
    "checkpoint_every": "save_every save_interval checkpoint_interval",
    "data.name": "data dataset data_set images",
    "data.root": "path data_path data_dir root_dir folder file",
    "data.size": "image_size img_size resolution",
    "log_every": "log_interval log_steps",
    "model.discriminator.layers": "discriminator_layers",
    "model.discriminator.width": "discriminator_width discriminator",
    "model.latent.codebook_size": "k codes num_codes n_codes codebook codebooksize num_embeddings embeddings",
    "model.latent.codebooks": "per_latent shared",
    "model.latent.dimension": "code_dim embedding_dim",
    "model.latent.estimator": "quantizer straight_through gumbel",
    "model.latent.size": "latent num_latents n_latents latent_dim latent_size z_dim dim m",
    "model.network.channels": "filters",
    "model.network.hidden": "hidden_size hidden_dim",
    "model.network.kind": "network architecture arch backbone encoder decoder",
    "model.weights.commitment": "commitment_cost commitment_weight",
    "model.weights.kl": "kl_weight kld kld_weight divergence",
    "model.weights.total_correlation": "tc tc_weight total_corr adversarial",
    "optimizer.discriminator_learning_rate": "disc_lr lr_d discriminator_lr",
    "optimizer.final_learning_rate": "final_lr min_lr lr_min eta_min",
    "optimizer.learning_rate": "learningrate step_size",
    "optimizer.weight_decay": "wd l2 decay",
    "seed": "random_seed rng",
    "steps": "epochs epoch iterations iters num_steps max_steps n_steps updates",
    "temperature_steps": "tau temperature temp annealing anneal tau_steps",
}
# word -> key
HINTS = {word: key for key, words in _HINTS.items() for word in words.split()}


def full_key(key: str) -> str:
    """The dotted key that a short name stands for; any other text as it is."""
    return SHORT.get(key, key)
