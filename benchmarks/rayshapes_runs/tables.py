"""Tables of the page docs/results.md, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayshapes_runs.cells import MINUS, cell, difference_cell, label, mean_cell, short_name, table
from rayshapes_runs.choosing import SHOWN, Choice
from rayshapes_runs.numbers import NONE, figures, paired, spearman
from rayshapes_runs.questions import COMPARED, ORDERED, UNLABELLED, Question
from rayshapes_runs.reading import Results

# What a model is called, and where images lie.
_NAMES = ("model.name", "data.root", "data.cache")
ORDER = ("disentanglement", "completeness")  # which read the order of codes


def counts(found: Mapping[str, Results]) -> str:
    """How many runs of each experiment are there, and how many remain if copies count once."""
    rows = [[name, str(each.count), str(each.planned)] for name, each in found.items()]
    total = [
        str(sum(part)) for part in zip(*((each.count, each.planned) for each in found.values()), strict=True)
    ]
    different = {_same(content["config"]) for each in found.values() for content in _contents(each)}
    last = [["all", *total], ["without copies", str(len(different)), ""]]
    return table(["experiment", "runs", "of"], [*rows, *last])


def grid(choices: Mapping[str, Choice]) -> str:
    """All settings of each model with their scores; the chosen one first, in bold letters."""
    rows = []
    for model, choice in choices.items():
        for name, scores in choice.grid.items():
            setting = name.removeprefix(f"{model} ")
            first = [model, f"**{setting}**"] if name == choice.name else ["", setting]
            score = f"{figures(scores['score'], 3)} ± {figures(scores['deviation'], 3)}"
            rows.append([*first, score, *(cell(key, scores[key]) for key in SHOWN)])
    return table(["model", "setting", "mean of D and InfoM", *map(label, SHOWN)], rows, texts=2)


def means(question: Question, found: Results) -> str:
    """Mean ± sample standard deviation of each run's measures."""
    rows = []
    for name, seeds in found.scores.items():
        cells = [mean_cell(each, found.values(name, each)) for each in question.measures]
        rows.append([name, len(seeds), *cells])
    return _over_seeds("Mean ± standard deviation", "run", question.measures, rows)


def differences(question: Question, found: Results) -> str:
    """Differences to the reference by seed: mean ± half of the 95 % t interval, bold if that leaves 0 out."""
    rows = []
    pairs = [
        (name, other)
        for name in found.scores
        for other in question.references(name)
        if other != name and other in found.scores
    ]
    others = {other for _, other in pairs}
    first = f"difference from {others.pop()}" if len(others) == 1 else "difference"
    for name, other in pairs:
        parts = {
            each: paired(found.values(name, each), found.values(other, each)) for each in question.compared
        }
        seeds = max((part.count for part in parts.values() if part is not None), default=0)
        if seeds:
            cells = [difference_cell(each, part) for each, part in parts.items()]
            rows.append([f"{name} {MINUS} {other}" if first == "difference" else name, seeds, *cells])
    return _over_seeds("Mean ± 95 % interval of the differences", first, question.compared, rows)


def longer(short: Results, long: Results) -> str:
    """Differences of each run of long to its model's run of short by seed, as in `differences`.

    A name of long begins with that of its model, whose run of short has that name.
    """
    rows = []
    for name in long.scores:
        parts = {
            each: paired(long.values(name, each), short.values(name.split(" ")[0], each)) for each in COMPARED
        }
        seeds = max((part.count for part in parts.values() if part is not None), default=0)
        if seeds:
            rows.append([name, seeds, *(difference_cell(each, part) for each, part in parts.items())])
    return _over_seeds("Mean ± 95 % interval of the differences", "longer less shorter", COMPARED, rows)


def _over_seeds(what: str, first: str, measures: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table whose rows begin with a name and a number of seeds, which the line above has if it is one."""
    if not rows:
        return ""
    counts = {row[1] for row in rows}
    if len(counts) > 1:
        return f"{what}:\n\n" + table([first, "seeds", *map(label, measures)], rows)
    seeds = counts.pop()
    line = f"{what} over {seeds} seeds:" if seeds > 1 else "One seed:"
    return f"{line}\n\n" + table([first, *map(label, measures)], [[row[0], *row[2:]] for row in rows])


def by_order(found: Results) -> str:
    """What the order of codes changes: measures by rank, by index, and their difference by seed."""
    rows = []
    for name, seeds in found.by_index.items():
        row = [name, str(len(seeds))]
        for each in ORDER:
            ranks = {seed: value for seed, value in found.values(name, each).items() if seed in seeds}
            indices = {seed: seeds[seed][each] for seed in ranks if each in seeds[seed]}
            row += [
                mean_cell(each, ranks),
                mean_cell(each, indices),
                difference_cell(each, paired(indices, ranks)),
            ]
        rows.append(row)
    heads = [f"{label(each)}, {what}" for each in ORDER for what in ("by rank", "by index", "difference")]
    return table(["run", "seeds", *heads], rows) if rows else ""


def by_factor(found: Results, names: Sequence[str]) -> str:
    """InfoM taken apart: for each factor the latents that tell most about it, and how exclusively they do.

    A latent's part is (max/sum - 1/F)/(1 - 1/F) of its information about the F factors; InfoM is the mean
    over latents. Here it is over those whose largest information is about the factor, of all seeds. Only
    for models with codes, whose files say which latents vary.
    """
    rows, factors = [], list[str]()
    for name in names:
        shares: dict[str, list[float]] = {}
        contents = found.contents.get(name, {}).values()
        for content in contents:
            factors = content["data"]["factor_names"]
            for place, share in _modularity(content):
                shares.setdefault(factors[place], []).append(share)
        if contents:
            rows.append([name, *(_factor(shares.get(each, []), len(contents)) for each in factors)])
    return table(["run", *(each.replace("_", " ") for each in factors)], rows) if rows else ""


def told(found: Results) -> str:
    """How much the latent that tells most of a factor tells of it; D of all and of some factors.

    Where some factors are all of them, or one alone, D has no column of theirs.
    """
    rows, factors, kept = [], list[str](), dict[str, Sequence[int]]()
    for name, seeds in found.contents.items():
        contents = [each for each in seeds.values() if each.get("importance") and each.get("nmi")]
        if not contents:
            continue
        factors = contents[0]["data"]["factor_names"]
        kept = {"D": range(len(factors))}
        some = {
            "D without orientation": [i for i, factor in enumerate(factors) if factor != "orientation"],
            "D of the hues": [i for i, factor in enumerate(factors) if factor.endswith("hue")],
        }
        kept |= {name: places for name, places in some.items() if 1 < len(places) < len(factors)}
        parts = [
            mean_cell("disentanglement", {seed: _d_of(each, places) for seed, each in enumerate(contents)})
            for places in kept.values()
        ]
        rows.append([name, *(figures(each, 2) for each in most_told(contents)), *parts])
    names = [each.replace("_", " ") for each in factors]
    return table(["run", *names, *kept], rows) if rows else ""


def most_told(contents: Sequence[Mapping[str, Any]]) -> NDArray[Any]:
    """Of each factor, normalised information in the latent that tells most of it; the mean over runs."""
    most: NDArray[Any] = np.mean([np.array(each["nmi"]).max(axis=1) for each in contents], axis=0)
    return most


def _d_of(content: Mapping[str, Any], factors: Sequence[int]) -> float:
    """DCI's D, of some factors alone: the mean of 1 - H_F(share) over latents, weighted by importance."""
    importance = np.array(content["importance"])[:, factors]
    weights = importance.sum(axis=1)
    share = importance[weights > 0] / weights[weights > 0, None]
    entropy = -(share * np.log(np.maximum(share, 1e-300))).sum(axis=1) / math.log(len(factors))
    return float(weights[weights > 0] @ (1 - entropy) / weights.sum())


def unlabelled(found: Mapping[str, Results]) -> str:
    """Spearman's correlation of each measure that needs no labels with D, over the runs of an experiment."""
    rows = []
    for name, runs in pooled(found).items():
        rows.append([name, *(_correlation(runs, each) for each in UNLABELLED)])
    return table(["runs of", *map(short_name, UNLABELLED)], rows)


def pooled(found: Mapping[str, Results]) -> dict[str, list[dict[str, float]]]:
    """The scores of runs by experiment, and of all together, in which none is twice."""
    lists, every = {}, dict[str, dict[str, float]]()
    for name in ORDERED:
        if name in found and found[name].count:
            contents = _contents(found[name])
            lists[name] = [_unlabelled(content["scores"]) for content in contents]
            every |= {_same(content["config"]): _unlabelled(content["scores"]) for content in contents}
    return {**lists, "all": list(every.values())} if lists else {}


def _contents(found: Results) -> list[dict[str, Any]]:
    return [content for seeds in found.contents.values() for content in seeds.values()]


def _same(config: Mapping[str, Any]) -> str:
    """Equal for copies of a run: its settings and seed, whatever the model is called (gamma 0 is QVAE)."""
    return str(sorted((key, value) for key, value in config.items() if key not in _NAMES))


def _unlabelled(scores: Mapping[str, float]) -> dict[str, float]:
    """Without the total correlation of codes, which grows with their number and cannot be estimated."""
    return {
        name: value
        for name, value in scores.items()
        if name != "total_correlation" or "pair_information" not in scores
    }


def _correlation(runs: Sequence[Mapping[str, float]], name: str) -> str:
    both = [(each[name], each["disentanglement"]) for each in runs if name in each]
    rho = spearman([one for one, _ in both], [other for _, other in both])
    return NONE if rho is None else f"{rho:+.2f} ({len(both)} runs)"


def _modularity(content: Mapping[str, Any]) -> list[tuple[int, float]]:
    """The main factor of each latent that varies and tells something, and how exclusively it tells it."""
    nmi = np.array(content["nmi"])
    varies = np.array(content["codes_used"]) > 1
    count = len(nmi)
    return [
        (int(column.argmax()), float((column.max() / column.sum() - 1 / count) / (1 - 1 / count)))
        for column in nmi.T[varies]
        if column.sum() > 0
    ]


def _factor(shares: Sequence[float], runs: int) -> str:
    if not shares:
        return NONE
    return f"{figures(sum(shares) / len(shares), 3)} ({len(shares) / runs:.1f} latents)"
