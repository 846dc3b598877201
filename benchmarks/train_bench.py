"""Times one training step of FactorQVAE against the same network trained in the authors' order.

    python benchmarks/train_bench.py            light network, official with C = 16 and C = 32
    python benchmarks/train_bench.py --quick    the light network only, few rounds, to see that it runs

The authors' order (arXiv 2409.14851): both halves of the batch are encoded, quantized by PyTorch's own
`gumbel_softmax` and decoded, though only the first half's images are used; and the discriminator's loss is
sent back through the encoder, whose gradient is then thrown away. "--fast on" is all that `fqvae train
--fast on` does; the lines before it are its parts, each alone. All run in one process, in turn, after a
warm-up; compiling is not timed.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

try:
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from fqvae.models import (
        Autoencoder,
        DiscriminatorConfig,
        LatentConfig,
        ModelConfig,
        NetworkConfig,
        WeightsConfig,
        to_float,
    )
    from fqvae.models.networks import build_discriminator, initialise
    from fqvae.models.penalties.total_correlation import (
        draw_permutations,
        permute_latents,
        total_correlation,
    )
    from fqvae.training.fast import Fast, choose_fast, has_bfloat16
    from fqvae.training.step import Place, compute_losses
except ImportError as error:
    sys.exit(f"The benchmark needs PyTorch and this package ({error}). In the repository: pip install -e .")

import _report
from _timing import interleave, load_average, quantile, usable_cores

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = WeightsConfig(kl=1e-3, total_correlation=1e-4)
TEMPERATURE = 0.7
CASES = {
    # name: network, discriminator's width, image size, images in a half
    "light": (NetworkConfig("light", channels=16, init="fan_in"), 256, 32, 64),
    "official, C = 16": (NetworkConfig(channels=16), 1000, 64, 32),
    "official, C = 32": (NetworkConfig(channels=32), 1000, 64, 32),
}


class Contender:
    """A model with its optimizers, and its way to take a step."""

    def __init__(self, case: str, device: torch.device, fast: Fast | None) -> None:
        network, width, size, self.half = CASES[case]
        config = ModelConfig(network, LatentConfig(), WEIGHTS, DiscriminatorConfig(width=width))
        self.fast = fast or Fast()
        self.device = device
        self.model = Autoencoder(config, size).to(device)
        self.discriminator = build_discriminator(
            config.discriminator, self.model.latent.discriminator_width
        ).to(device)
        initialise(self.discriminator, network.init, torch.Generator().manual_seed(1))
        self.fast.prepare([self.model.encoder, self.model.decoder, self.discriminator])
        self.optimizers = [
            torch.optim.AdamW(part.parameters(), 1e-4, weight_decay=0.0, fused=True)
            for part in (self.model, self.discriminator)
        ]
        generator = torch.Generator().manual_seed(2)
        self.batch = torch.randint(
            0, 256, (2 * self.half, 3, size, size), generator=generator, dtype=torch.uint8
        )
        self.batch = self.batch.to(device)
        self.order = our_step if fast is not None else authors_step
        self.steps = 0

    def step(self) -> None:
        """One batch, both updates."""
        images = to_float(self.batch)
        if self.fast.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        self.order(self, images)
        self.steps += 1

    def timed_step(self) -> float:
        """Seconds of a step; of a second one if it is short: the first brings back caches and memory."""
        for _ in range(2):
            self.synchronize()
            start = time.perf_counter()
            self.step()
            self.synchronize()
            seconds = time.perf_counter() - start
            if seconds > 0.5:
                break
        return seconds

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def our_step(contender: Contender, images: Tensor) -> None:
    """As `fqvae.training` does it."""
    place = Place(0, contender.steps, TEMPERATURE)
    with torch.autocast(contender.device.type, torch.bfloat16, enabled=contender.fast.bfloat16):
        losses = compute_losses(contender.model, contender.discriminator, images, place)
    assert losses.discriminator is not None
    losses.autoencoder.backward()
    losses.discriminator.backward()
    for optimizer in contender.optimizers:
        optimizer.step()
        optimizer.zero_grad()


def authors_step(contender: Contender, images: Tensor) -> None:
    """In the authors' order, from its description."""
    model, discriminator = contender.model, contender.discriminator
    first, second = images.chunk(2)
    weights, kl, reconstruction = textbook_pass(model, first)
    loss = F.mse_loss(reconstruction, first) + WEIGHTS.kl * kl
    loss = loss + WEIGHTS.total_correlation * total_correlation(discriminator(weights))
    loss.backward()
    contender.optimizers[0].step()
    zero_all(contender)

    others, _, _ = textbook_pass(model, second)
    rows, latents, _ = others.shape
    shuffled = permute_latents(others, draw_permutations(rows, latents, contender.steps))
    labels = torch.zeros(rows, dtype=torch.int64, device=images.device)
    joint, product = discriminator(weights.detach()), discriminator(shuffled)
    loss = (F.cross_entropy(joint, labels) + F.cross_entropy(product, labels + 1)) / 2
    loss.backward()
    contender.optimizers[1].step()
    zero_all(contender)


def textbook_pass(model: Autoencoder, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (batch, M, K), mean KL, reconstruction, the quantizer in plain PyTorch."""
    codebook = model.latent.codebook
    logits = -(model.encoder(images).unsqueeze(-1) - codebook).square()
    weights = F.gumbel_softmax(logits, tau=TEMPERATURE, dim=-1)
    log_posterior = logits.log_softmax(-1)
    kl = (log_posterior.exp() * (log_posterior + math.log(len(codebook)))).sum(-1).mean()
    return weights, kl, model.decoder(weights @ codebook)


def zero_all(contender: Contender) -> None:
    for optimizer in contender.optimizers:
        optimizer.zero_grad()


def contenders(case: str, device: torch.device, compiled: bool) -> dict[str, Contender]:
    """The authors' order, ours, and ours with each part of --fast and with all of them."""
    cuda = device.type == "cuda"
    fasts: dict[str, Fast | None] = {"authors' order": None, "ours": Fast()}
    if has_bfloat16(cuda):
        fasts["ours, bfloat16"] = Fast(bfloat16=True)
    fasts["ours, channels-last"] = Fast(channels_last=True)
    if compiled:
        fasts["ours, compiled"] = Fast(compile=True)
        fasts["ours, --fast on"] = choose_fast("on", CASES[case][0], cuda)
    return {name: Contender(case, device, fast) for name, fast in fasts.items()}


def measure(case: str, device: torch.device, rounds: int, compiled: bool) -> list[dict[str, object]]:
    """A row for each contender: quartiles of a step in milliseconds, and how often the authors' speed."""
    made = contenders(case, device, compiled)
    for contender in made.values():
        for _ in range(2):
            contender.step()
    turns: list[Callable[[], float]] = [contender.timed_step for contender in made.values()]
    seconds = dict(zip(made, interleave(turns, rounds), strict=True))
    base = quantile(seconds["authors' order"], 0.5)
    return [
        {
            "network": case,
            "images": 2 * made[name].half,
            "step": name,
            "median_ms": round(1e3 * quantile(times, 0.5), 3),
            "q25_ms": round(1e3 * quantile(times, 0.25), 3),
            "q75_ms": round(1e3 * quantile(times, 0.75), 3),
            "times_as_fast": round(base / quantile(times, 0.5), 3),
            "rounds": rounds,
        }
        for name, times in seconds.items()
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--quick", action="store_true", help="the light network, five rounds, nothing compiled"
    )
    parser.add_argument("--rounds", type=int, default=9, help="default: 9")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's own choice)")
    parser.add_argument("--output", type=Path, help="write the figures to this CSV file as well")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds was {options.rounds}; it must be at least 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device was cuda, but PyTorch finds no CUDA device here")
    if options.threads is not None:
        if not 1 <= options.threads <= 1024:
            parser.error(
                f"--threads was {options.threads}; it may be 1 to 1024 (cores here: {usable_cores()})"
            )
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    machine = _report.describe_machine(device, load_average())
    print(_report.measured_on(machine))
    # The contenders share the code of their networks, and each has shapes of its own.
    torch._dynamo.config.recompile_limit = 64
    rows = []
    for case in list(CASES)[:1] if options.quick else CASES:
        found = measure(case, device, 5 if options.quick else options.rounds, not options.quick)
        print(f"\n{case} network, {found[0]['images']} images in a step")
        for row in found:
            print(
                f"  {row['step']:22} {row['median_ms']:10.2f} ms   {row['times_as_fast']:6.2f} x", flush=True
            )
        rows += found
    if options.output is not None:
        with open(options.output, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], *machine], lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, **machine} for row in rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
