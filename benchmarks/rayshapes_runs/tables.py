"""Tables of the page docs/results.md, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fqvae.evaluation.measures import measure
from rayshapes_runs.choosing import SHOWN, Choice
from rayshapes_runs.claims import CLAIMS, OTHERS, UNDECIDED, Answer, Claim, Contrast, answer
from rayshapes_runs.numbers import NONE, Spread, figures, paired, spearman, spread
from rayshapes_runs.questions import COMPARED, ORDERED, UNLABELLED, Question
from rayshapes_runs.reading import Results

THOUSANDTHS = ("mse",)  # measures that are shown in thousandths
FEW = 4  # differences that are told one by one
ORDER = ("disentanglement", "completeness")  # which read the order of codes
GOAL_OF = "factorqvae"
MINUS = "\u2212"


def label(name: str) -> str:
    """A measure in a heading, of tables and plots."""
    known = measure(name)
    if name == "infoc_corrected":
        return "InfoC, corrected"
    if name in THOUSANDTHS:
        return f"1000 {name.upper()}"
    return name if known is None else known.short or known.label


def shown(name: str, value: float) -> float:
    """A value as `label` says it."""
    return 1000 * value if name in THOUSANDTHS else value


def counts(found: Mapping[str, Results]) -> str:
    """How many runs of each experiment are there."""
    rows = [[name, str(each.count), str(each.planned)] for name, each in found.items()]
    total = [
        str(sum(part)) for part in zip(*((each.count, each.planned) for each in found.values()), strict=True)
    ]
    return _table(["experiment", "runs", "of"], [*rows, ["all", *total]])


def grid(choices: Mapping[str, Choice]) -> str:
    """All settings of each model with their scores; the chosen one first, in bold letters."""
    rows = []
    for model, choice in choices.items():
        for name, scores in choice.grid.items():
            setting = name.removeprefix(f"{model} ")
            first = [model, f"**{setting}**"] if name == choice.name else ["", setting]
            rows.append([*first, figures(scores["score"], 3), *(_cell(key, scores[key]) for key in SHOWN)])
    return _table(["model", "setting", "mean of D and InfoM", *map(label, SHOWN)], rows, texts=2)


def means(question: Question, found: Results) -> str:
    """Mean ± sample standard deviation of each run's measures."""
    rows = []
    for name, seeds in found.scores.items():
        cells = [_spread(each, found.values(name, each)) for each in question.measures]
        rows.append([name, len(seeds), *cells])
    return _over_seeds("Mean ± standard deviation", "run", question.measures, rows)


def differences(question: Question, found: Results) -> str:
    """Differences to the reference by seed: mean ± half of the 95 % t interval, bold if that leaves 0 out."""
    rows = []
    pairs = [(name, other) for name in found.scores for other in question.references(name)]
    for name, other in pairs:
        if other == name or other not in found.scores:
            continue
        parts = {each: paired(found.values(name, each), found.values(other, each)) for each in COMPARED}
        seeds = max((part.count for part in parts.values() if part is not None), default=0)
        if seeds:
            cells = [_difference(each, part) for each, part in parts.items()]
            rows.append([f"{name} {MINUS} {other}", seeds, *cells])
    return _over_seeds("Mean ± 95 % interval of the differences", "difference", COMPARED, rows)


def _over_seeds(what: str, first: str, measures: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table whose rows begin with a name and a number of seeds, which the line above has if it is one."""
    if not rows:
        return ""
    counts = {row[1] for row in rows}
    if len(counts) > 1:
        return f"{what}:\n\n" + _table([first, "seeds", *map(label, measures)], rows)
    seeds = counts.pop()
    line = f"{what} over {seeds} seeds:" if seeds > 1 else "One seed:"
    return f"{line}\n\n" + _table([first, *map(label, measures)], [[row[0], *row[2:]] for row in rows])


def by_order(found: Results) -> str:
    """What the order of codes changes: measures by rank, by index, and their difference by seed."""
    rows = []
    for name, seeds in found.by_index.items():
        row = [name, str(len(seeds))]
        for each in ORDER:
            ranks = {seed: value for seed, value in found.values(name, each).items() if seed in seeds}
            indices = {seed: seeds[seed][each] for seed in ranks if each in seeds[seed]}
            row += [_spread(each, ranks), _spread(each, indices), _difference(each, paired(indices, ranks))]
        rows.append(row)
    heads = [f"{label(each)}, {what}" for each in ORDER for what in ("by rank", "by index", "difference")]
    return _table(["run", "seeds", *heads], rows) if rows else ""


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
    return _table(["run", *(each.replace("_", " ") for each in factors)], rows) if rows else ""


def claims(found: Mapping[str, Results]) -> str:
    """What the runs say of each claim of the paper, and of its contrasts; bold as in `differences`."""
    parts: dict[str, list[list[str]]] = {}
    for claim in CLAIMS:
        told = answer(claim, found)
        verdict = told.verdict if told.verdict == UNDECIDED else f"**{told.verdict}**"
        parts.setdefault(claim.part, []).append([claim.text, verdict, _evidence(claim, told)])
    heading = ["claim", "verdict", "our runs: above 0 if it is right"]
    tables = [f"### {part}\n\n{_table(heading, rows, texts=3)}" for part, rows in parts.items()]
    return "\n\n".join(tables)


def _evidence(claim: Claim, told: Answer) -> str:
    """The contrasts of a claim; of many how many are decided, and the smallest one."""
    pairs = list(zip(claim.contrasts, told.spreads, strict=True))
    if not pairs:
        return "no run of ours"
    lines = [
        f"{label(contrast.measure)}: {_terms(contrast)} = {_difference(contrast.measure, part)}"
        for contrast, part in pairs
    ]
    if len(pairs) <= FEW or any(part is None for _, part in pairs):
        return "<br>".join(lines[:FEW]) + ("<br>..." if len(lines) > FEW else "")
    means = [part.mean if part else 0.0 for _, part in pairs]
    above, below = (
        sum(part is not None and part.decided and sign * part.mean > 0 for _, part in pairs)
        for sign in (1, -1)
    )
    least = lines[means.index(min(means))]
    return f"of {len(pairs)} differences {above} above 0, {below} below<br>the least: {least}"


def goals(found: Results) -> str:
    """What FactorQVAE was meant to reach in `models`; "" before it and the eight others have runs."""
    runs = {name: found.values(name, "disentanglement") for name in (GOAL_OF, *OTHERS)}
    if not all(runs.values()):
        return ""
    own = {each: spread(list(found.values(GOAL_OF, each).values())).mean for each in COMPARED}
    autoencoder = spread(list(found.values("ae", "mse").values())).mean
    best = max(OTHERS, key=lambda name: spread(list(runs[name].values())).mean)
    lead = paired(runs[GOAL_OF], runs[best])
    ratio = own["mse"] / autoencoder
    rows = [
        ["D at least .60", _cell("disentanglement", own["disentanglement"]), own["disentanglement"] >= 0.6],
        ["InfoM at least .65", _cell("infom", own["infom"]), own["infom"] >= 0.65],
        ["MSE at most 1.5 times the AE's", f"{ratio:.2f} times", ratio <= 1.5],
        [
            f"D above that of the best of the eight others ({best}) by more than the interval",
            _difference("disentanglement", lead),
            lead is not None and lead.decided and lead.mean > 0,
        ],
    ]
    return _table(
        ["goal for FactorQVAE", "mean", "reached"], [[*row[:2], "yes" if row[2] else "no"] for row in rows]
    )


def _terms(contrast: Contrast) -> str:
    text = ""
    for name, factor in contrast.weights.items():
        sign = (f" {MINUS} " if factor < 0 else " + ") if text else MINUS if factor < 0 else ""
        text += f"{sign}{'' if abs(factor) == 1 else f'{abs(factor):g} '}{name}"
    return text + (f" + {contrast.margin:g}" if contrast.margin else "")


def unlabelled(found: Mapping[str, Results]) -> str:
    """Spearman's correlation of each measure that needs no labels with D, over the runs of an experiment."""
    rows = []
    for name, runs in pooled(found).items():
        rows.append([name, *(_correlation(runs, each) for each in UNLABELLED)])
    return _table(["runs of", *map(label, UNLABELLED)], rows)


def pooled(found: Mapping[str, Results]) -> dict[str, list[dict[str, float]]]:
    """The scores of runs by experiment, and of all together, in which none is twice."""
    lists, every = {}, dict[str, dict[str, float]]()
    for name in ORDERED:
        if name in found and found[name].count:
            contents = [each for seeds in found[name].contents.values() for each in seeds.values()]
            lists[name] = [content["scores"] for content in contents]
            # Copies of a run hold the same configuration, seed included.
            every |= {str(sorted(content["config"].items())): content["scores"] for content in contents}
    return {**lists, "all": list(every.values())} if lists else {}


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


def _spread(name: str, values: Mapping[int, float]) -> str:
    if not values:
        return NONE
    found = spread(list(values.values()))
    mean = _cell(name, found.mean)
    return mean if found.deviation is None else f"{mean} ± {_cell(name, found.deviation)}"


def _difference(name: str, found: Spread | None) -> str:
    if found is None:
        return NONE
    mean = f"{'+' if found.mean >= 0 else MINUS}{_cell(name, abs(found.mean))}"
    if found.half is None:
        return mean
    text = f"{mean} ± {_cell(name, found.half)}"
    return f"**{text}**" if found.decided else text


def _cell(name: str, value: float) -> str:
    known = measure(name)
    decimals = 2 if name in THOUSANDTHS else 3 if known is None else known.decimals
    return figures(shown(name, value), decimals)


def _table(heading: Sequence[str], rows: Sequence[Sequence[Any]], *, texts: int = 1) -> str:
    """texts: columns that are no numbers, which end at the right."""
    lines = [heading, ["---"] * texts + ["---:"] * (len(heading) - texts), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
