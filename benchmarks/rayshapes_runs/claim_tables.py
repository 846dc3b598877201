"""What the runs say of the paper's claims, and of what was hoped for, in Markdown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from rayshapes_runs.cells import MINUS, cell, difference_cell, label, table
from rayshapes_runs.claim_list import CLAIMS, OTHERS
from rayshapes_runs.claims import UNDECIDED, Answer, Claim, Contrast, above, answer, below
from rayshapes_runs.numbers import paired, spread
from rayshapes_runs.reading import Results

GOAL_OF = "factorqvae"
GOALS = ("disentanglement", "infom", "mse")  # the measures that goals are of
LATER = "\u2020"  # at claims that were written when the first runs were known
FEW = 4  # differences that are told one by one


def claims(found: Mapping[str, Results]) -> str:
    """What the runs say of each claim of the paper, and of its contrasts; bold as in `differences`."""
    parts: dict[str, list[list[str]]] = {}
    for claim in CLAIMS:
        told = answer(claim, found)
        verdict = told.verdict if told.verdict == UNDECIDED else f"**{told.verdict}**"
        text = f"{claim.text} {LATER}" if claim.later else claim.text
        parts.setdefault(claim.part, []).append([text, verdict, _evidence(claim, told)])
    heading = ["claim", "verdict", "our runs: above 0 if it is right"]
    tables = [f"### {part}\n\n{table(heading, rows, texts=3)}" for part, rows in parts.items()]
    return "\n\n".join(tables)


def _evidence(claim: Claim, told: Answer) -> str:
    """The contrasts of a claim; of many how many are decided, by the rule of `answer`, and the worst one."""
    pairs = list(zip(claim.contrasts, told.spreads, strict=True))
    if not pairs:
        return "no run of ours"
    lines = [
        f"{label(contrast.measure)}: {_terms(contrast)} = {difference_cell(contrast.measure, part)}"
        for contrast, part in pairs
    ]
    if len(pairs) <= FEW or not told.complete:
        return "<br>".join(lines[:FEW]) + ("<br>..." if len(lines) > FEW else "")
    spreads = [part for part in told.spreads if part is not None]
    over = sum(above(part, 0.95) for part in spreads)
    under = sum(below(part, told.level) for part in spreads)
    # The number of standard errors decides.
    scores = [
        part.mean / part.deviation * part.count**0.5 if part.deviation else math.copysign(math.inf, part.mean)
        for part in spreads
    ]
    least = lines[scores.index(min(scores))]
    at = f"{100 * told.level:.3g} %"
    return f"of {len(pairs)} differences {over} above 0, {under} below at {at}<br>most against it: {least}"


def goals(found: Results) -> str:
    """What FactorQVAE was meant to reach in `models`; "" before it and the eight others have all seeds."""
    runs = {name: found.values(name, "disentanglement") for name in (GOAL_OF, *OTHERS)}
    if any(len(each) < found.seeds for each in runs.values()):
        return ""
    own = {each: spread(list(found.values(GOAL_OF, each).values())).mean for each in GOALS}
    autoencoder = spread(list(found.values("ae", "mse").values())).mean
    best = max(OTHERS, key=lambda name: spread(list(runs[name].values())).mean)
    lead = paired(runs[GOAL_OF], runs[best])
    ratio = own["mse"] / autoencoder
    rows = [
        ["D at least .60", cell("disentanglement", own["disentanglement"]), own["disentanglement"] >= 0.6],
        ["InfoM at least .65", cell("infom", own["infom"]), own["infom"] >= 0.65],
        ["MSE at most 1.5 times the AE's", f"{ratio:.2f} times", ratio <= 1.5],
        [
            f"D above that of the best of the eight others ({best}) by more than the interval",
            difference_cell("disentanglement", lead),
            lead is not None and lead.decided and lead.mean > 0,
        ],
    ]
    return table(
        ["goal for FactorQVAE", "mean", "reached"], [[*row[:2], "yes" if row[2] else "no"] for row in rows]
    )


def _terms(contrast: Contrast) -> str:
    text = ""
    for factor, group in itertools.groupby(contrast.weights, contrast.weights.__getitem__):
        names = list(group)
        sign = (f" {MINUS} " if factor < 0 else " + ") if text else MINUS if factor < 0 else ""
        if abs(factor) == 1:
            text += sign + sign.join(names) if sign else " + ".join(names)
        else:
            text += f"{sign}{abs(factor):g} " + (f"({' + '.join(names)})" if len(names) > 1 else names[0])
    return text + (f" + {contrast.margin:g}" if contrast.margin else "")
