"""What the runs say of the paper's claims, and of what was hoped for, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from rayshapes_runs.cells import MINUS, cell, difference_cell, label, table
from rayshapes_runs.claims import CLAIMS, OTHERS, UNDECIDED, Answer, Claim, Contrast, answer
from rayshapes_runs.numbers import paired, spread
from rayshapes_runs.questions import COMPARED
from rayshapes_runs.reading import Results

GOAL_OF = "factorqvae"
FEW = 4  # differences that are told one by one


def claims(found: Mapping[str, Results]) -> str:
    """What the runs say of each claim of the paper, and of its contrasts; bold as in `differences`."""
    parts: dict[str, list[list[str]]] = {}
    for claim in CLAIMS:
        told = answer(claim, found)
        verdict = told.verdict if told.verdict == UNDECIDED else f"**{told.verdict}**"
        parts.setdefault(claim.part, []).append([claim.text, verdict, _evidence(claim, told)])
    heading = ["claim", "verdict", "our runs: above 0 if it is right"]
    tables = [f"### {part}\n\n{table(heading, rows, texts=3)}" for part, rows in parts.items()]
    return "\n\n".join(tables)


def _evidence(claim: Claim, told: Answer) -> str:
    """The contrasts of a claim; of many how many are decided, and the smallest one."""
    pairs = list(zip(claim.contrasts, told.spreads, strict=True))
    if not pairs:
        return "no run of ours"
    lines = [
        f"{label(contrast.measure)}: {_terms(contrast)} = {difference_cell(contrast.measure, part)}"
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
    for name, factor in contrast.weights.items():
        sign = (f" {MINUS} " if factor < 0 else " + ") if text else MINUS if factor < 0 else ""
        text += f"{sign}{'' if abs(factor) == 1 else f'{abs(factor):g} '}{name}"
    return text + (f" + {contrast.margin:g}" if contrast.margin else "")
