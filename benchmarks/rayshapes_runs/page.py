"""The parts of docs/results.md that are made of results, each between its markers."""

from __future__ import annotations

from pathlib import Path

from _report import link, replace_between

from rayshapes_runs import claim_tables, plots, tables
from rayshapes_runs.choosing import GRIDS, read_chosen
from rayshapes_runs.questions import EXPERIMENTS, QUESTIONS
from rayshapes_runs.reading import Results, read_results

NOTHING = "No runs yet."
TOLD = (
    "Normalised information about each factor in the latent that tells most of it, and D, of the same runs:"
)
# Models with codes, whose InfoM is taken apart.
FACTORS = ("qlae", "dvae", "factordvae", "qvae", "factorqvae")


def read_all(results: Path) -> dict[str, Results]:
    """The results of all experiments. Raises as `read_results`."""
    return {name: read_results(results, name) for name in EXPERIMENTS}


def parts(results: Path, found: dict[str, Results], figures: Path, page: Path) -> dict[str, str]:
    """The text of each part by the name of its markers; plots are written on the way.

    Args:
        results: the folder of results. found: what is in it. figures: the folder for plots. page: links them.
    """
    texts = {"runs": tables.counts(found)}
    texts["claims"] = claim_tables.claims(found)
    for name, models, grid in (("", "models", "choose"), ("_long", "models_long", "choose_long")):
        texts[f"goals{name}"] = claim_tables.goals(found[models]) or NOTHING
        choices = read_chosen(results / GRIDS[grid].file)
        texts[f"chosen{name}"] = tables.grid(choices) if choices else NOTHING
    for question in QUESTIONS:
        own = found[question.name]
        if not own.count:
            texts[question.name] = NOTHING
            continue
        pieces = [_shown(own), tables.means(question, own), tables.differences(question, own)]
        factors = tables.told(own) if question.factors else ""
        if factors:
            pieces.append(f"{TOLD}\n\n{factors}")
        picture = figures / f"{question.name}.svg"
        plots.save_svg(plots.against(question, own), picture)
        pieces.append(f"![{question.title}]({link(picture, page)})")
        texts[question.name] = "\n\n".join(filter(None, pieces))
    texts["by_factor"] = tables.by_factor(found["models"], FACTORS) or NOTHING
    texts["told"] = tables.told(found["models"])
    if texts["told"]:
        picture = figures / "told.svg"
        plots.save_svg(plots.told(found["models"]), picture)
        texts["told"] += f"\n\n![What the models tell of each factor]({link(picture, page)})"
    texts["told"] = texts["told"] or NOTHING
    texts["longer"] = tables.longer(found["models"], found["models_long"]) or NOTHING
    texts["by_order"] = tables.by_order(found["models"]) or NOTHING
    runs = tables.pooled(found)
    if runs:
        picture = figures / "unlabelled.svg"
        plots.save_svg(plots.unlabelled(runs), picture)
        image = f"![D against measures without labels]({link(picture, page)})"
        texts["unlabelled"] = f"{tables.unlabelled(found)}\n\n{image}"
    else:
        texts["unlabelled"] = NOTHING
    return texts


def write(page: Path, texts: dict[str, str]) -> None:
    """Put the parts between the page's markers. Raises ValueError if it lacks one, before it changes any."""
    for name in texts:
        replace_between(page, name, None)
    for name, text in texts.items():
        replace_between(page, name, text)


def _shown(found: Results) -> str:
    return "" if found.count == found.planned else f"Only {found.count} of {found.planned} runs are there."
