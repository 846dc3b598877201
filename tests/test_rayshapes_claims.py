"""benchmarks/rayshapes_runs/claims.py: what is said of a claim, by hand and against SciPy."""

import pytest
from rayshapes_runs import cells, claim_tables, numbers
from rayshapes_runs.claim_list import CLAIMS, OTHERS
from rayshapes_runs.claims import Claim, Contrast, answer
from rayshapes_runs.derived import DERIVED
from rayshapes_runs.reading import Results
from scipy import stats
from test_rayshapes_tables import cells as rows_of

from fqvae.evaluation.measures import measure
from fqvae.figures import t_interval
from fqvae.sweep import read_sweep

HOLDS, NOT, OPEN = "holds", "does not hold here", "not decided by these runs"
D = "disentanglement"


def made(**runs):
    """Results of `models`, of D by name and seed."""
    found = Results(0)
    found.scores = {
        name: {seed: {D: value} for seed, value in enumerate(values) if value is not None}
        for name, values in runs.items()
    }
    return {"models": found}


def ask(found, *weights, margin=0.0):
    claim = Claim("", "", tuple(Contrast("models", D, each, margin) for each in weights))
    return answer(claim, found)


def test_levels_of_intervals():
    for level in (0.9, 0.95, 0.99375):
        low, high = stats.t.interval(level, 4)
        assert t_interval(5**0.5, 5, level) == pytest.approx((high - low) / 2)


def test_what_is_said_of_a_difference():
    """Differences of .09, .10, .11: mean .1, half of the interval 4.3027 * .01/sqrt(3) = .0248."""
    found = made(one=(0.5, 0.6, 0.7), other=(0.41, 0.5, 0.59))
    told = ask(found, {"one": 1, "other": -1})
    assert told.verdict == HOLDS and told.spreads[0].mean == pytest.approx(0.1)
    assert told.spreads[0].half == pytest.approx(0.0248, abs=1e-4)
    assert ask(found, {"one": -1, "other": 1}).verdict == NOT
    assert ask(found, {"one": -1, "other": 1}, margin=0.09).verdict == OPEN
    assert ask(found, {"one": -1, "other": 1}, margin=0.13).verdict == HOLDS
    assert ask(found, {"one": 1.5, "other": -1}).spreads[0].mean == pytest.approx(0.4)


def test_all_differences_have_to_be_above_0():
    found = made(one=(0.5, 0.6, 0.7), low=(0.3, 0.4, 0.5), near=(0.5, 0.6, 0.69), high=(0.8, 0.9, 1.0))
    low, near, high = ({"one": 1, name: -1} for name in ("low", "near", "high"))
    assert ask(found, low, low).verdict == HOLDS
    assert ask(found, low, near).verdict == OPEN
    assert ask(found, low, near, high).verdict == NOT


def test_one_of_many_below_0_needs_more_than_one_alone():
    """p of the difference (two-sided, by SciPy) is between .05/2 and .05."""
    one, other = (0.5, 0.6, 0.7), (0.53, 0.66, 0.735)
    p = stats.ttest_rel(one, other).pvalue
    assert 0.025 < p < 0.05
    found = made(one=one, other=other, low=(0.0, 0.1, 0.21))
    against = {"one": 1, "other": -1}
    assert ask(found, against).verdict == NOT
    assert ask(found, against, {"one": 1, "low": -1}).verdict == OPEN


def test_too_few_seeds_decide_nothing():
    found = made(one=(0.5, 0.6, 0.7), other=(0.41, 0.5, None))
    told = ask(found, {"one": 1, "other": -1})
    assert told.verdict == OPEN and told.spreads[0].count == 2
    told = ask(found, {"one": 1, "nobody": -1})
    assert (told.verdict, told.spreads, told.complete) == (OPEN, (None,), False)
    assert answer(Claim("", ""), found).verdict == OPEN


def test_missing_seeds_decide_nothing():
    """Three of the five seeds of the experiment would do."""
    found = made(one=(0.5, 0.6, 0.7), other=(0.41, 0.5, 0.59))
    found["models"].seeds = 5
    told = ask(found, {"one": 1, "other": -1})
    assert told.verdict == OPEN and not told.complete and told.spreads[0].count == 3
    found["models"].seeds = 3
    assert ask(found, {"one": 1, "other": -1}).complete


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text[:40])
def test_claims_ask_for_runs_and_measures_that_are_made(claim):
    for contrast in claim.contrasts:
        assert set(contrast.weights) <= set(read_sweep(contrast.experiment).runs)
        assert (
            contrast.measure == "infoc_corrected" or contrast.measure in DERIVED or measure(contrast.measure)
        )
        # It compares: of equal runs it says 0. (A bound of the error does not, nor one of shared codes.)
        equal = 0.1 if len(contrast.weights) == 9 else -1 if contrast.margin == 0.5 else 0
        assert sum(contrast.weights.values()) == pytest.approx(equal)


def test_the_table():
    found = {claim.experiment: Results(0) for each in CLAIMS for claim in each.contrasts}
    runs = ("factorqvae", *OTHERS)
    found["models"].scores = {
        name: {seed: {"mse": 0.003 + seed / 1e4, D: place / 10, "infom": 0.7} for seed in range(5)}
        for place, name in enumerate(reversed(runs))
    }
    text = claim_tables.claims(found)
    assert text.count("### ") == len({claim.part for claim in CLAIMS}) == 7
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(rows) == len(CLAIMS) + 2 * 7
    by_d = next(row for row in rows if row[0].endswith("D of DCI"))
    assert by_d[1] == f"**{HOLDS}**" and by_d[2].startswith(
        f"of 8 differences 8 above 0, 0 below at 99.4 %<br>most against it: D: factorqvae {cells.MINUS} "
    )
    # Errors are equal: 1.1 times their mean leaves a tenth, .3 and a bit in thousandths.
    error = next(row for row in rows if "1.1 times" in row[0])
    bound = (
        f"1000 MSE: 0.1375 (ae + bioae + vae + factorvae + qlae + dvae + factordvae + qvae) {cells.MINUS} "
    )
    assert error[2] == f"{bound}factorqvae = **+.32 ± .02**" and HOLDS in error[1]
    assert error[0].endswith(claim_tables.LATER) and not by_d[0].endswith(claim_tables.LATER)
    assert next(row for row in rows if "Shapes3D" in row[0])[1:] == [OPEN, "no run of ours"]
    # Differences without runs are named, and so are the first of many.
    nearest = next(row for row in rows if row[0].startswith("Drawn codes"))
    assert nearest[2].startswith(f"D: gumbel soft {cells.MINUS} nearest = {numbers.NONE}<br>D: ")
    del found["models"].scores["qvae"]
    assert "<br>..." in claim_tables.claims(found)


def test_the_evidence_is_what_decides():
    """Of five differences the surest one is shown, not the largest; counts are at the levels of the rule."""
    found = made(
        one=(0.5, 0.6, 0.7),
        sure=(0.53, 0.64, 0.74),  # -.037 +- .014, at 99 % .033
        far=(0.1, 0.9, 1.1),  # -.1 +- .896
        near=(0.53, 0.66, 0.735),  # -.042 +- .040, at 99 % .092
        **dict.fromkeys(("low", "lower"), (0.4, 0.51, 0.6)),
    )
    others = ("sure", "far", "near", "low", "lower")
    claim = Claim("", "", tuple(Contrast("models", D, {"one": 1, name: -1}) for name in others))
    told = answer(claim, found)
    assert told.verdict == NOT and told.level == 0.99
    text = claim_tables._evidence(claim, told)
    assert text.startswith("of 5 differences 2 above 0, 1 below at 99 %<br>most against it: D: one")
    assert f"{cells.MINUS} sure = **{cells.MINUS}.037 ± .014**" in text


def test_goals():
    found = made(**dict.fromkeys(OTHERS, (0.3, 0.31, 0.32)), factorqvae=(0.6, 0.61, 0.7))["models"]
    for seeds in found.scores.values():
        for scores in seeds.values():
            scores |= {"infom": 0.64, "mse": 0.004}
    found.scores["factorqvae"][0]["mse"] = 0.012
    found.scores["vae"][2][D] = 0.4
    rows = list(rows_of(claim_tables.goals(found)).values())[1:]
    assert [row[-1] for row in rows] == ["yes", "no", "no", "yes"]
    assert rows[0][0] == ".637" and rows[2][0] == "1.67 times"
    assert "(vae)" in claim_tables.goals(found)
    found.seeds = 4
    assert claim_tables.goals(found) == ""
    found.seeds = 3
    del found.scores["bioae"]
    assert claim_tables.goals(found) == ""
