"""What went wrong in a run, and what to try: signs of failure that its measures and its curves show.

Each sign is an entry of `SIGNATURES`. docs/diagnosis.md says where the thresholds come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fqvae.evaluation.information import factor_shares

Numbers = dict[str, Any]  # what a sentence rests on, by the names in its template


@dataclass(frozen=True)
class Facts:
    """A run's evaluation, as `read_evaluation` gives it, and the columns of its metrics.csv, or none."""

    content: Mapping[str, Any]
    columns: Mapping[str, Sequence[float]]

    def has(self, name: str) -> bool:
        """Whether there is a measure, a table, or with "curve." before it a column of this name."""
        if name.startswith("curve."):
            return len(self.curve(name.removeprefix("curve."))) >= ROWS
        return name in self.content["scores"] or self.content.get(name) is not None

    def measure(self, name: str) -> float:
        """A measure that there is."""
        return float(self.content["scores"][name])

    def table(self, name: str) -> NDArray[np.float64]:
        """A table that there is."""
        return np.asarray(self.content[name], dtype=np.float64)

    def curve(self, name: str) -> NDArray[np.float64]:
        """A column without the rows that are not finite; empty if there is none."""
        values = np.asarray(self.columns.get(name, ()), dtype=np.float64)
        return values[np.isfinite(values)]

    def setting(self, key: str) -> Any:
        """Of the configuration; None if it has no such key."""
        return self.content["config"].get(key)

    @property
    def factors(self) -> list[str]:
        """Names of those that take more than one value."""
        data = self.content["data"]
        return [n for n, size in zip(data["factor_names"], data["factor_sizes"], strict=True) if size > 1]

    @property
    def factor_nmi(self) -> NDArray[np.float64]:
        """The rows of nmi that are those factors', (F, M), without what independent codes have."""
        shares: NDArray[np.float64] = factor_shares(self.content)
        return shares[np.asarray(self.content["data"]["factor_sizes"]) > 1]

    @property
    def dependence(self) -> float:
        """latent_nmi without what independent codes have: (A - 1)(B - 1)/(samples (H(a) + H(b)))."""
        nmi = self.measure("latent_nmi")
        if not self.has("codes_used") or len(self.table("codes_used")) < 2:
            return nmi
        spare, entropy = self.table("codes_used") - 1, np.log(self.table("perplexity"))
        pairs, both = np.outer(spare, spare), np.add.outer(entropy, entropy)
        bias = np.divide(pairs, both * self.samples, out=np.zeros_like(both), where=both > 0)
        return float(max(0.0, nmi - bias[~np.eye(len(bias), dtype=bool)].mean()))

    @property
    def samples(self) -> int:
        """Images that information was measured on."""
        return int(self.content["options"]["train"])

    @property
    def entropy(self) -> float:
        """Bits that tell all combinations of the factors' values apart; 0 without labels."""
        return float(sum(math.log2(size) for size in self.content["data"]["factor_sizes"]))


@dataclass(frozen=True)
class Signature:
    """A sign of failure.

    name: a few words. needs: what `Facts.has` must have. test: the numbers of the sentence if the sign is
    there, else None. sentence: a template for them. advice: what to try.
    """

    name: str
    needs: tuple[str, ...]
    test: Callable[[Facts], Numbers | None]
    sentence: str
    advice: str


@dataclass(frozen=True)
class Finding:
    """A sign that is there: name and advice of the signature, and its sentence with the run's numbers."""

    name: str
    sentence: str
    advice: str


# Thresholds; docs/diagnosis.md gives the reasons.
ROWS = 10  # of metrics.csv, for anything to be said of a curve
POOR_PICTURES, GOOD_PICTURES = 0.8, 0.95  # explained variance
POOR_D, GOOD_D = 0.3, 0.5  # disentanglement
CHANCE_ACCURACY, RIGHT_ACCURACY = 0.55, 0.95  # of the discriminator
HIGH_ACCURACY = 0.8
SOME_CORRELATION = 0.1  # latent_nmi, mean over pairs: latents that a discriminator could tell from shuffled
ENDS, END_LOAD = 0.3, 2.0  # share of images with a code at an end; as a multiple of a code between them
DEAD_CODES = 0.75  # share of codes that are not in use
SHARED, SHARED_RATIO = 0.2, 0.6  # NMI of the best latent; of the second one, as a share of that
ABSENT = 0.1  # NMI of a factor's best latent
JUMP, KEPT, WARM = 2.0, 1.5, 0.1  # ratio of errors at a jump, and afterwards; share of a run before any
SMALL = 0.1  # share of the first errors below which no error is a failure


def diagnose(content: Mapping[str, Any], columns: Mapping[str, Sequence[float]]) -> list[Finding]:
    """The signs that a run shows, in the order of `SIGNATURES`; an empty list if there is none.

    Args:
        content: as `read_evaluation` gives it.
        columns: of metrics.csv, as `read_columns` gives them; empty without the file.
    """
    facts = Facts(content, columns)
    return [
        Finding(each.name, each.sentence.format(**numbers), each.advice)
        for each in SIGNATURES
        if all(map(facts.has, each.needs)) and (numbers := each.test(facts)) is not None
    ]


def diagnosis_text(findings: Sequence[Finding]) -> str:
    """The findings for a terminal; one line if there is none."""
    if not findings:
        return "No sign of failure that fqvae knows (docs/diagnosis.md lists them)."
    lines = [f"  {each.name}: {each.sentence} Try: {each.advice}" for each in findings]
    return "\n".join(["What went wrong, what to try:", *lines])


def _poor_pictures(facts: Facts) -> Numbers | None:
    explained, d = facts.measure("explained"), facts.measure("disentanglement")
    if explained >= POOR_PICTURES or d < GOOD_D:
        return None
    codes = f", with {facts.setting('model.latent.codebook_size')} codes" if facts.has("usage") else ""
    return {"explained": explained, "d": d, "gamma": _gamma(facts), "codes": codes}


def _poor_disentanglement(facts: Facts) -> Numbers | None:
    explained, d = facts.measure("explained"), facts.measure("disentanglement")
    if explained < GOOD_PICTURES or d >= POOR_D:
        return None
    accuracy, told = facts.curve("discriminator_accuracy"), ""
    if len(accuracy) >= ROWS:
        late = float(_late(accuracy).mean())
        side = "above" if late > HIGH_ACCURACY else "not above"
        told = f"; at the end the discriminator is right in {late:.0%} of cases, {side} {HIGH_ACCURACY:.0%}"
    return {"explained": explained, "d": d, "gamma": _gamma(facts), "told": told}


def _at_chance(facts: Facts) -> Numbers | None:
    accuracy, nmi = facts.curve("discriminator_accuracy"), facts.dependence
    best = max(float(part.mean()) for part in _windows(accuracy))
    return {"best": best, "nmi": nmi} if best < CHANCE_ACCURACY and nmi >= SOME_CORRELATION else None


def _always_right(facts: Facts) -> Numbers | None:
    accuracy = facts.curve("discriminator_accuracy")
    late = float(accuracy[len(accuracy) // 2 :].mean())
    return {"late": late} if late > RIGHT_ACCURACY else None


def _narrow(facts: Facts) -> Numbers | None:
    loads = facts.table("end_load")
    loads, share = loads[loads > 0], facts.measure("codes_at_ends")
    load = float(loads.mean()) if len(loads) else 0.0
    if share < ENDS or load < END_LOAD:
        return None
    capacity, entropy = facts.measure("capacity"), facts.entropy
    told = f"; all latents together carry at most {capacity:.1f} bits"
    if entropy:
        told += f", and the factors have {entropy:.1f}"
    return {"share": share, "load": load, "told": told}


def _too_few_bits(facts: Facts) -> Numbers | None:
    capacity, entropy, explained = facts.measure("capacity"), facts.entropy, facts.measure("explained")
    if capacity >= entropy or explained >= GOOD_PICTURES:
        return None
    return {"capacity": capacity, "entropy": entropy, "explained": explained}


def _dead_codes(facts: Facts) -> Numbers | None:
    counts = facts.table("usage")
    if facts.setting("model.latent.codebooks") == "shared":
        counts = counts.sum(0, keepdims=True)
    codes, dead = counts.size, int((counts == 0).sum())
    return {"dead": dead, "codes": codes} if dead / codes > DEAD_CODES else None


def _dead_latents(facts: Facts) -> Numbers | None:
    # A latent that never changes tells nothing of itself.
    alive, latents = int((np.diag(facts.table("nmi_latents")) > 0).sum()), len(facts.table("nmi_latents"))
    factors = len(facts.factors)
    wanted = min(factors, latents) if factors else math.ceil(latents / 2)
    told = f"fewer than the {factors} factors" if factors else "less than half"
    return {"dead": latents - alive, "latents": latents, "told": told} if alive < wanted else None


def _scattered(facts: Facts) -> Numbers | None:
    nmi = facts.factor_nmi
    if nmi.shape[1] < 2 or not len(nmi):
        return None
    first, second = np.sort(nmi, axis=1)[:, ::-1][:, :2].T
    which = np.flatnonzero((first >= SHARED) & (second >= SHARED_RATIO * first))
    said = [f"{facts.factors[i]} ({first[i]:.2f} and {second[i]:.2f})" for i in which]
    return {"factors": _listed(said)} if said else None


def _absent(facts: Facts) -> Numbers | None:
    best = facts.factor_nmi.max(1, initial=0)
    said = [
        f"{name} ({value:.2f})" for name, value in zip(facts.factors, best, strict=True) if value < ABSENT
    ]
    return {"factors": _listed(said)} if said else None


def _jumps(facts: Facts) -> Numbers | None:
    error, step = facts.curve("reconstruction"), facts.curve("step")
    temperature = facts.curve("temperature")
    if not len(error) == len(step) == len(temperature) or not facts.has("codes_used"):
        return None
    window = max(5, len(error) // 20)
    start, end = float(np.median(error[:window])), float(np.median(_late(error)))
    for place in range(max(window, math.ceil(WARM * len(error))), len(error)):
        before = float(np.median(error[place - window : place]))
        after = float(np.median(error[place : place + window]))
        jump = error[place] > JUMP * before and after > KEPT * before > 0
        # Errors of single batches vary by a large ratio where they are small.
        if jump and end > before and after > SMALL * start:
            return {"step": step[place], "before": before, "at": error[place], "tau": temperature[place]}
    return None


def _late(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The last fifth."""
    return values[-max(1, len(values) // 5) :]


def _windows(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """All runs of five values."""
    return [values[start : start + 5] for start in range(len(values) - 4)]


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)


def _gamma(facts: Facts) -> str:
    names = ("total_correlation", "batch_total_correlation")
    weight = sum(facts.setting(f"model.weights.{name}") or 0.0 for name in names)
    return f"the weight of total correlation is {weight:g}" if weight else "total correlation has no weight"


SIGNATURES: tuple[Signature, ...] = (
    Signature(
        "poor reconstruction, good disentanglement",
        ("explained", "disentanglement"),
        _poor_pictures,
        "Reconstructions explain {explained:.0%} of the variance of the pixels, below "
        f"{POOR_PICTURES:.0%}, while disentanglement is {{d:.2f}}; {{gamma}}{{codes}}.",
        "a smaller weight of total correlation or of the KL term (a tenth), or more latents (or codes, where "
        "there are any).",
    ),
    Signature(
        "good reconstruction, poor disentanglement",
        ("explained", "disentanglement"),
        _poor_disentanglement,
        "Reconstructions explain {explained:.0%} of the variance of the pixels, while disentanglement is "
        f"{{d:.2f}}, below {POOR_D}; {{gamma}}{{told}}.",
        "a larger weight of total correlation (ten times), with a model that has it; or longer training.",
    ),
    Signature(
        "the discriminator only guesses",
        ("curve.discriminator_accuracy", "latent_nmi"),
        _at_chance,
        "The discriminator is never right in more than {best:.0%} of cases (mean of five rows of "
        "metrics.csv), although latents depend on each other: their mutual information is {nmi:.2f}.",
        "a larger optimizer.discriminator_learning_rate, a wider discriminator, or the init fan_in.",
    ),
    Signature(
        "the discriminator is always right",
        ("curve.discriminator_accuracy",),
        _always_right,
        "In the second half of training the discriminator is right in {late:.0%} of cases, above "
        f"{RIGHT_ACCURACY:.0%}: latents stay easy to tell from shuffled ones.",
        "a larger weight of total correlation (ten times), or a smaller learning rate of the discriminator.",
    ),
    Signature(
        "codes pile up at the ends of the codebook",
        ("codes_at_ends", "end_load", "capacity"),
        _narrow,
        "{share:.0%} of the images have the smallest or the largest code of a latent, each {load:.1f} times "
        "as many as a code between them{told}: the codebook is too narrow for what the encoder wants to say.",
        "a wider codebook (model.latent.init, a codebook for each latent), or a smaller KL weight.",
    ),
    Signature(
        "too little capacity",
        ("capacity", "explained"),
        _too_few_bits,
        "Samples of all latents together carry at most {capacity:.1f} bits, but to tell all combinations of "
        "the factors apart takes {entropy:.1f}; reconstructions explain {explained:.0%} of the variance of "
        f"the pixels, below {GOOD_PICTURES:.0%}.",
        "more latents, or a wider codebook; more codes between the same ends add little.",
    ),
    Signature(
        "dead codes",
        ("usage",),
        _dead_codes,
        f"{{dead}} of {{codes}} codes are not in use by any latent, more than {DEAD_CODES:.0%}.",
        "fewer codes, a smaller KL weight, or codes that start closer together.",
    ),
    Signature(
        "dead latents",
        ("nmi_latents",),
        _dead_latents,
        "{dead} of {latents} latents have the same value for all images; those that vary are {told}.",
        "a smaller KL weight, a smaller weight of total correlation, or longer training.",
    ),
    Signature(
        "a factor in several latents",
        ("nmi",),
        _scattered,
        f"Two latents tell of these factors, the second at least {SHARED_RATIO:.0%} as much as the first "
        "(normalised mutual information of both): {factors}.",
        "a larger weight of total correlation, fewer latents, or more codes, if one latent cannot hold it.",
    ),
    Signature(
        "a factor in no latent",
        ("nmi",),
        _absent,
        f"No latent tells of these factors (normalised mutual information below {ABSENT}): {{factors}}.",
        "longer training, more latents, or a smaller KL weight; a factor that changes few pixels comes last.",
    ),
    Signature(
        "the loss jumps as the temperature falls",
        ("curve.reconstruction", "curve.temperature", "curve.step"),
        _jumps,
        "At step {step:.0f}, with the temperature at {tau:.2f}, the reconstruction error goes from "
        "{before:.3g} to {at:.3g} and stays high.",
        "a slower fall (temperature_steps, larger), or a smaller learning rate.",
    ),
)
