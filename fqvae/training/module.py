"""Training on Lightning: the step, its schedules, and what it logs."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn

from fqvae.data import ImageDataset
from fqvae.models.autoencoder import Autoencoder, to_float
from fqvae.models.networks import build_discriminator, initialise
from fqvae.runs.checkpoint import FORMAT, check_sizes
from fqvae.runs.config import RunConfig
from fqvae.runs.data import describe
from fqvae.runs.keys import to_flat
from fqvae.training.counters import Batches, cosine, derive_seed
from fqvae.training.fast import Fast
from fqvae.training.step import Place, charge_autoencoder, charge_discriminator, compute_losses
from fqvae_kernels.quantizer import UsageCounter, code_perplexity


class NonFiniteError(FloatingPointError):
    """A loss or weight that is NaN or infinite."""


class Training(LightningModule):
    """An autoencoder and, if a penalty needs one, a discriminator, in training.

    step: the number of steps taken, the one counter of a run. last_losses: losses and penalties logged last.
    """

    def __init__(self, config: RunConfig, dataset: ImageDataset, train: NDArray[np.int64]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config, self.dataset, self.train_index = config, dataset, train
        data = config.data
        if tuple(dataset.image_shape) != data.image_shape:
            raise ValueError(
                f"images of {dataset.name} must be {data.image_shape}, since data.channels is "
                f"{data.channels} and data.size is {data.size}, but are {tuple(dataset.image_shape)}"
            )
        self._trained_on: dict[str, Any] | None = None
        self.step = 0
        self.last_losses: dict[str, float] = {}
        self.fast = Fast()
        self.autoencoder = Autoencoder(
            config.model, data.size, channels=data.channels, seed=derive_seed(config.seed, "autoencoder")
        )
        latent = self.autoencoder.latent
        self.discriminator: nn.Module | None = None
        if config.model.has_discriminator:
            self.discriminator = build_discriminator(config.model.discriminator, latent.discriminator_width)
            generator = torch.Generator().manual_seed(derive_seed(config.seed, "discriminator"))
            initialise(self.discriminator, config.model.network.init, generator)
        codes = latent.config.codebook_size if latent.discrete else 0
        # Not the quantizer's own counts: here the second half is left out, vectors count as well, and a run
        # that is resumed goes on counting.
        self._usage = UsageCounter(latent.config.size, codes)

    @property
    def usage(self) -> Tensor:
        """How often this process drew each code since the last log: int64 (M, K), or (M, 0) without codes."""
        return self._usage.local()

    def use(self, fast: Fast) -> None:
        """Prepare the networks for it."""
        self.fast = fast
        fast.prepare([self.autoencoder.encoder, self.autoencoder.decoder])
        if self.discriminator is not None:
            fast.prepare([self.discriminator])

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """One step: both losses at the same weights, then both updates; in the authors' protocol in turns.

        batch: uint8 (batch, C, S, S); with a discriminator, two independent halves.
        """
        images = to_float(batch)
        if self.fast.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        trainer, temperature = self.trainer, self.temperature(self.step)
        place = Place(
            self.config.seed,
            self.step,
            temperature,
            trainer.global_rank,
            trainer.world_size,
            set_size=len(self.train_index),
            total_correlation=self.step >= self.config.total_correlation_from,
        )
        log = self._logs(self.step + 1)
        losses, terms, codes, norms = self._update(images, place, log)
        self.step += 1
        if codes is not None:
            self._usage.count(codes, codes.shape[1])
        if log:
            self._log({**losses, **terms}, norms, len(batch))

    def _update(
        self, images: Tensor, place: Place, log: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None, dict[str, Tensor]]:
        """Losses, terms, the codes drawn, and norms of the gradients if they are logged."""
        optimizers = self._optimizers()
        if self.discriminator is None or self.config.protocol == "ours":
            computed = compute_losses(self.autoencoder, self.discriminator, images, place)
            losses = {"loss": computed.autoencoder}
            if computed.discriminator is not None:
                losses["discriminator"] = computed.discriminator
            norms = self._descend(losses, computed.terms, optimizers, log)
            return losses, computed.terms, computed.codes, norms

        # The authors' order: the second half's latents come from the autoencoder that the first has updated.
        first, second = images.chunk(2)
        charged = charge_autoencoder(self.autoencoder, self.discriminator, first, place)
        norms = self._descend({"loss": charged.loss}, charged.terms, optimizers[:1], log)
        against, accuracy = charge_discriminator(
            self.autoencoder, self.discriminator, second, charged.drawn, place
        )
        told = {"discriminator_accuracy": accuracy}
        norms |= self._descend({"discriminator": against}, told, optimizers[1:], log)
        losses = {"loss": charged.loss, "discriminator": against}
        return losses, {**charged.terms, **told}, charged.drawn.codes, norms

    def _descend(
        self, losses: dict[str, Tensor], terms: dict[str, Tensor], optimizers: list[Any], log: bool
    ) -> dict[str, Tensor]:
        """Differentiate the losses and take the optimizers' steps."""
        self._check_finite({**terms, **losses})
        for loss in losses.values():
            self.manual_backward(loss)
        norms = self._gradient_norms() if log else {}
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return norms

    def temperature(self, step: int) -> float:
        """exp(-step / temperature_steps)."""
        return math.exp(-step / (self.config.temperature_steps or self.config.steps))

    def train_dataloader(self) -> Batches:
        """The batches that are left."""
        return self.batches(self.trainer.global_rank, self.trainer.world_size)

    def batches(self, rank: int, world: int) -> Batches:
        """The same for one of several processes. Raises ValueError if they do not fit the set or these."""
        config = self.config
        return Batches(
            self.dataset,
            self.train_index,
            seed=config.seed,
            batch_size=config.batch_size,
            steps=config.steps,
            start=self.step,
            parts=1 if self.discriminator is None else 2,
            rank=rank,
            world=world,
        )

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the autoencoder, weight decay for its networks only; and one for the discriminator."""
        config, model = self.config.optimizer, self.autoencoder
        rate, codebook_rate = config.learning_rate, config.codebook_learning_rate
        networks = [*model.encoder.parameters(), *model.decoder.parameters()]
        groups = [_group(networks, rate, config.weight_decay)]
        if codebook := list(model.latent.parameters()):
            groups.append(_group(codebook, rate if codebook_rate is None else codebook_rate))
        optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, fused=True)]
        if self.discriminator is not None:
            group = _group([*self.discriminator.parameters()], config.discriminator_learning_rate)
            optimizers.append(torch.optim.AdamW([group], fused=True))
        return optimizers

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the configuration, the step, what tells the images, and the usage of all processes."""
        usage = self._usage.total(self.device)
        config = to_flat(self.config)
        if self._trained_on is None:
            self._trained_on = describe(self.dataset)
        checkpoint["fqvae"] = {
            "format": FORMAT,
            "step": self.step,
            "config": config,
            "data": self._trained_on,
            "usage": usage,
        }
        # Lightning's counters begin anew with every start: the step above is the one that counts.
        checkpoint.pop("loops")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on at the checkpoint's step. Raises CheckpointError if it holds something of another size."""
        check_sizes(checkpoint, self.state_dict(), self.usage, self.configure_optimizers())
        self.step = checkpoint["fqvae"]["step"]
        if self.trainer.is_global_zero:
            self._usage.restore(checkpoint["fqvae"]["usage"])

    def on_train_start(self) -> None:
        """Begin to measure the speed."""
        self._since, self._logged = time.perf_counter(), self.step

    def _optimizers(self) -> list[Any]:
        """The optimizers, at this step's learning rates."""
        config, found = self.config.optimizer, self.optimizers()
        optimizers = found if isinstance(found, list) else [found]
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                first, last = group["initial_lr"], config.final_learning_rate
                group["lr"] = cosine(self.step, self.config.cosine_steps, first, last)
        return optimizers

    def _check_finite(self, terms: dict[str, Tensor]) -> None:
        values = torch.stack([term.detach() for term in terms.values()])
        if not values.isfinite().all():
            bad = [f"{name} = {value:g}" for name, value in zip(terms, values.tolist(), strict=True)]
            bad = [text for text, fine in zip(bad, values.isfinite().tolist(), strict=True) if not fine]
            raise NonFiniteError(f"step {self.step}: {', '.join(bad)}")

    def _gradient_norms(self) -> dict[str, Tensor]:
        parts: dict[str, nn.Module | None] = {
            "encoder": self.autoencoder.encoder,
            "decoder": self.autoencoder.decoder,
            "codebook": self.autoencoder.latent,
            "discriminator": self.discriminator,
        }
        norms = {}
        for name, part in parts.items():
            gradients = [p.grad for p in part.parameters() if p.grad is not None] if part is not None else []
            if gradients:
                norms[f"gradient_norm/{name}"] = torch.stack([g.norm() for g in gradients]).norm()
        return norms

    def _logs(self, step: int) -> bool:
        return step == 1 or step % self.config.log_every == 0 or step == self.config.steps

    @torch.no_grad()
    def _log(self, terms: dict[str, Tensor], norms: dict[str, Tensor], images: int) -> None:
        """Hand the means over all processes to the loggers and the progress bar."""
        values = self.trainer.strategy.reduce(torch.stack([t.detach().float() for t in terms.values()]))
        self.last_losses = dict(zip(terms, values.tolist(), strict=True))
        metrics = dict(self.last_losses)
        self.log_dict(
            {name: metrics[name] for name in ("loss", "reconstruction")}, prog_bar=True, logger=False
        )
        metrics.update({name: norm.item() for name, norm in norms.items()})
        metrics["temperature"] = self.temperature(self.step - 1)
        metrics["learning_rate"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        if self.usage.numel():
            metrics.update(usage_metrics(self._usage.total(self.device)))
            self._usage.reset()
        now = time.perf_counter()
        taken = (self.step - self._logged) * images * self.trainer.world_size
        metrics["images_per_second"] = taken / (now - self._since)
        self._since, self._logged = now, self.step
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.step)


def usage_metrics(usage: Tensor) -> dict[str, float]:
    """Perplexity and number of codes drawn, per latent and pooled. usage: counts (M, K)."""
    rows = torch.cat([usage, usage.sum(0, keepdim=True)])
    names = [f"{latent:02d}" for latent in range(len(usage))] + ["pooled"]
    perplexity, used = code_perplexity(rows).tolist(), (rows > 0).sum(1).tolist()
    metrics = {f"perplexity/{name}": value for name, value in zip(names, perplexity, strict=True)}
    return metrics | {f"codes_used/{name}": float(value) for name, value in zip(names, used, strict=True)}


def _group(parameters: list[nn.Parameter], rate: float, weight_decay: float = 0.0) -> dict[str, Any]:
    """A group of an optimizer. initial_lr: where its cosine begins, as PyTorch's schedules name it."""
    return {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": weight_decay}
