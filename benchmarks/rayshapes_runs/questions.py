"""What is asked of the runs: for each question its experiments, its measures, and which runs are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

DCI = ("disentanglement", "completeness", "informativeness")
MAIN = ("mse", *DCI, "infom", "infom_corrected", "infoc", "infoe")
COMPARED = ("disentanglement", "infom", "infom_corrected", "mse")
INDEX = ("disentanglement_by_index", "completeness_by_index")
MORE = ("infoc_corrected", "infoe", "mig", "sap")  # where models are compared


@dataclass(frozen=True)
class Question:
    """A table, a table of paired differences and a plot.

    name: of its sweep, of its markers in the page, and of its plot. title: of the plot.
    references: the runs that a run of this name is compared with; itself and names that do not exist: none.
    measures: the columns. compared: those of the differences. setting: what stands on the plot's horizontal
    axis: a key of the configuration, or "" for the runs' names. line: the key that tells the plot's lines
    apart; "length": model and steps. factors: whether a table shows what the runs tell of each factor.
    """

    name: str
    title: str
    references: Callable[[str], tuple[str, ...]]
    measures: tuple[str, ...] = MAIN
    compared: tuple[str, ...] = COMPARED
    setting: str = ""
    line: str = ""
    factors: bool = False


def _other_model(name: str) -> str:
    """The FactorQVAE of the same setting: "qvae 0.5" is compared with "factorqvae 0.5"."""
    return " ".join(["factorqvae", *name.split(" ")[1:]])


def _uncorrelated(name: str) -> str:
    """The same model with factors that are not tied."""
    return name.split(" ")[0] + " 0"


def _without(name: str) -> str:
    """The same model without total correlation."""
    return "factorvae gamma 0" if name.startswith("factorvae") else "gamma 0"


def _shorter(name: str) -> str:
    """The run of 3,000 steps and the same KL weight."""
    model, _, _, *beta = name.split(" ")
    return " ".join([model, "steps 3000", *beta])


def _of_one_weight(name: str) -> tuple[str, ...]:
    """FactorQVAE as chosen; of QVAE also that with its KL weight."""
    return ("factorqvae", "factorqvae beta 3e-3") if name == "qvae" else ("factorqvae",)


def _circle(name: str) -> str:
    return name.replace(" arc", " circle")


QUESTIONS = (
    Question(
        "models",
        "Twelve models",
        lambda name: ("factorqvae",),
        (*MAIN[:-1], *MORE),
        compared=(*DCI, "infom", "infom_corrected", *MORE, "mse"),
    ),
    Question(
        "models_long",
        "The paper's nine models after 12,000 steps",
        _of_one_weight,
        (*MAIN[:-1], *MORE),
        compared=(*DCI, "infom", "infom_corrected", *MORE, "mse"),
        factors=True,
    ),
    Question(
        "gamma",
        "Weight of the total correlation",
        lambda name: (_without(name),),
    ),
    Question("codebook", "Size and learning rate of the codebook, and precision", lambda name: ("K 64",)),
    Question(
        "codebooks",
        "One codebook, several, and vectors",
        lambda name: ("shared",),
        (*MAIN, *INDEX, "pair_information"),
        compared=(*COMPARED, *INDEX),
    ),
    Question(
        "correlated",
        "Correlated factors, by the strength of the tie",
        lambda name: (_other_model(name), _uncorrelated(name)),
        setting="data.strength",
        line="model.name",
        factors=True,
    ),
    Question("estimators", "Estimators", lambda name: ("gumbel soft",)),
    Question(
        "hues",
        "Hues round the circle and on half of it",
        lambda name: (_circle(name), _other_model(name)),
        factors=True,
    ),
    Question("orientation", "Rooms from one side", lambda name: ("factorqvae",), factors=True),
    Question(
        "length",
        "Length of training, by the weight of the KL divergence",
        lambda name: (_shorter(name), _other_model(name)),
        setting="model.weights.kl",
        line="length",
        factors=True,
    ),
    Question(
        "stability", "Temperature and discriminator", lambda name: ("as chosen",), (*MAIN, "perplexity")
    ),
    Question("beyond", "What may do better than FactorQVAE as chosen", lambda name: ("as chosen",)),
)
BY_INDEX = ("models", "codebooks")  # whose codes are also measured by index
# Whose runs are ordered without labels.
ORDERED = ("models", "gamma", "codebook", "codebooks", "correlated", "estimators")
UNLABELLED = ("straight_through_gap", "pair_information", "total_correlation", "mse")
EXPERIMENTS = ("choose", "choose_long", *(question.name for question in QUESTIONS))
