"""Which claims of the paper are asked, and of which runs."""

from __future__ import annotations

from collections.abc import Sequence

from rayshapes_runs.claims import Claim, Contrast

MARGIN = 0.05  # of D and InfoM: what "no worse" leaves room for
OTHERS = ("ae", "bioae", "vae", "factorvae", "qlae", "dvae", "factordvae", "qvae")  # of the paper


def _ahead(
    experiment: str, measures: Sequence[str], one: str, others: Sequence[str], margin: float = 0.0
) -> tuple[Contrast, ...]:
    """`one` has more of the measures than each of the others."""
    return tuple(
        Contrast(experiment, measure, {one: 1.0, other: -1.0}, margin)
        for measure in measures
        for other in others
    )


def _behind(
    experiment: str, measures: Sequence[str], one: str, others: Sequence[str]
) -> tuple[Contrast, ...]:
    """`one` has less of the measures than each of the others."""
    return tuple(
        Contrast(experiment, measure, {other: 1.0, one: -1.0}) for measure in measures for other in others
    )


def _change(experiment: str, measure: str, one: tuple[str, str], other: tuple[str, str]) -> Contrast:
    """The difference of the first pair, first minus second, is greater than that of the other pair."""
    return Contrast(experiment, measure, {one[0]: 1.0, one[1]: -1.0, other[0]: -1.0, other[1]: 1.0})


_D, _M, _C, _MIC = "disentanglement", "infom", "completeness", "infoc_corrected"
_D_INDEX, _C_INDEX = "disentanglement_by_index", "completeness_by_index"
_RESULTS, _FIRST, _SECOND, _THIRD = (
    "Key results",
    "Scalars and one codebook",
    "Total correlation",
    "Gumbel-Softmax",
)
_TRADE, _SIGNS = "Trade-offs", "Signs of failure"
_LONG = "The same after 12,000 steps"
_AS_CHOSEN = ("vectors of 4", "vectors of 16")
_VECTORS = (*_AS_CHOSEN, *(f"{name} beta 3e-3" for name in _AS_CHOSEN))
# The gamma of the larger half of FactorQVAE's grid, which signs of too much and too little stand around.
_MIDDLE = "gamma 2e-3"
_WITHOUT = (
    ("gamma 5e-4", "gamma 0"),
    ("gamma 2e-3", "gamma 0"),
    ("factorvae gamma 5e-4", "factorvae gamma 0"),
)


def _better(part: str, experiment: str, later: bool = False) -> tuple[Claim, ...]:
    """What the paper says first: its model against the eight others."""
    return (
        *(
            Claim(
                part,
                f"FactorQVAE disentangles better than each of the eight other models, by {what}",
                _ahead(experiment, (measure,), "factorqvae", OTHERS),
                later or changed,
            )
            for measure, what, changed in (
                (_D, "D of DCI", False),
                (_C, "C of DCI", False),
                ("informativeness", "I of DCI", True),
                (_M, "InfoM", False),
                ("infoc", "InfoC", True),
                (_MIC, "InfoC, corrected", False),
                ("infoe", "InfoE", False),
            )
        ),
        Claim(
            part,
            "Its reconstruction is competitive: its error is at most 1.1 times the mean of the eight others'",
            (Contrast(experiment, "mse", {**dict.fromkeys(OTHERS, 1.1 / len(OTHERS)), "factorqvae": -1.0}),),
            later=True,
        ),
        Claim(
            part,
            "Codes and independence together disentangle better than codes alone (QVAE) or independence "
            "alone (FactorVAE), by D and InfoM",
            _ahead(experiment, (_D, _M), "factorqvae", ("qvae", "factorvae")),
            later,
        ),
    )


def _with_and_without(part: str, experiment: str, later: bool = False) -> tuple[Claim, ...]:
    """Models with total correlation against those without."""
    return tuple(
        Claim(
            part,
            f"Total correlation disentangles, by {what}: FactorQVAE against QVAE, FactorVAE against VAE, "
            "FactorDVAE against dVAE, each with the weights chosen for it",
            tuple(
                contrast
                for one, other in (("factorqvae", "qvae"), ("factorvae", "vae"), ("factordvae", "dvae"))
                for contrast in _ahead(experiment, (measure,), one, (other,))
            ),
            later,
        )
        for measure, what in ((_D, "D"), (_M, "InfoM"))
    )


CLAIMS = (
    *_better(_RESULTS, "models"),
    Claim(_RESULTS, "All this on Shapes3D, Isaac3D and MPI3D-Complex"),
    Claim(
        _FIRST,
        "One codebook of scalars disentangles better than one of vectors, by D (codes by index) and InfoM",
        _ahead("codebooks", (_D_INDEX, _M), "shared", _VECTORS),
        later=True,
    ),
    Claim(
        _FIRST,
        "It leads to one latent for each factor: C (codes by index) and corrected InfoC are larger than with "
        "vectors",
        _ahead("codebooks", (_C_INDEX, _MIC), "shared", _VECTORS),
        later=True,
    ),
    Claim(
        _FIRST,
        "One codebook for all latents is better than one for each, by D and InfoM",
        _ahead("codebooks", (_D, _M), "shared", ("per latent", "per latent rate 2e-3")),
        later=True,
    ),
    Claim(
        _FIRST,
        "Each factor has codes of its own: latents of different factors share less than half of them",
        (Contrast("models", "shared_codes", {"factorqvae": -1.0}, margin=0.5),),
        later=True,
    ),
    Claim(
        _FIRST,
        "It breaks where factors are strongly correlated: D of FactorQVAE is less at strength .9 than at 0",
        _behind("correlated", (_D,), "factorqvae 0.9", ("factorqvae 0",)),
    ),
    Claim(
        _FIRST,
        "That is the codebook's doing: FactorQVAE loses more of D there than FactorVAE and HFS-VAE",
        tuple(
            _change("correlated", _D, ("factorqvae 0", "factorqvae 0.9"), (f"{name} 0", f"{name} 0.9"))
            for name in ("factorvae", "hfsvae")
        ),
        later=True,
    ),
    *_with_and_without(_SECOND, "models"),
    *(
        Claim(
            _SECOND,
            f"The same with all other weights equal, by {what}: FactorQVAE with two gammas and FactorVAE "
            "with one, against 0",
            tuple(Contrast("gamma", measure, {one: 1.0, other: -1.0}) for one, other in _WITHOUT),
            later=True,
        )
        for measure, what in ((_D, "D"), (_M, "InfoM"))
    ),
    Claim(
        _SECOND,
        "It makes the latents independent: pairs of them share less information, FactorQVAE against QVAE",
        _behind("models", ("pair_information",), "factorqvae", ("qvae",)),
        later=True,
    ),
    Claim(
        _SECOND,
        "Where factors depend on each other it harms: what it adds to D is less at strength .9 than at 0",
        (_change("correlated", _D, ("factorqvae 0", "qvae 0"), ("factorqvae 0.9", "qvae 0.9")),),
    ),
    Claim(
        _THIRD,
        "Drawn codes with Gumbel-Softmax are better than the nearest code, by D and InfoM",
        _ahead("estimators", (_D, _M), "gumbel soft", ("nearest", "nearest decay 1")),
        later=True,
    ),
    Claim(
        _THIRD,
        f"Gumbel-Softmax is enough: no worse ({MARGIN:g}) than straight-through and ReinMax, by D and InfoM",
        _ahead("estimators", (_D, _M), "gumbel soft", ("straight-through", "reinmax"), MARGIN),
    ),
    Claim(
        _THIRD,
        "It breaks when the temperature falls too fast or too slowly: D is smaller",
        _ahead("stability", (_D,), "as chosen", ("temperature 300", "temperature 30000")),
        later=True,
    ),
    Claim(
        _TRADE,
        "One codebook for all needs more care in optimising than one for each: D loses more at the networks' "
        "own learning rate",
        (_change("codebooks", _D, ("shared", "shared rate 2e-3"), ("per latent", "per latent rate 2e-3")),),
        later=True,
    ),
    Claim(
        _TRADE,
        "Scalars are more independent than vectors: pairs of latents share less information",
        _behind("codebooks", ("pair_information",), "shared", _AS_CHOSEN),
        later=True,
    ),
    Claim(
        _TRADE,
        "Scalars hold less: the reconstruction error is larger than with vectors",
        _ahead("codebooks", ("mse",), "shared", _AS_CHOSEN),
    ),
    Claim(
        _TRADE,
        "Drawing codes adds noise to reconstructions (all errors here are of nearest codes)",
        later=True,
    ),
    Claim(
        _SIGNS,
        f"Too much total correlation: a larger error with D no worse ({MARGIN:g}), gamma 8e-3 against 2e-3",
        (
            *_ahead("gamma", ("mse",), "gamma 8e-3", (_MIDDLE,)),
            *_ahead("gamma", (_D,), "gamma 8e-3", (_MIDDLE,), MARGIN),
        ),
    ),
    Claim(
        _SIGNS,
        "Too little: a smaller error with a smaller D, gamma 0 against 2e-3",
        _behind("gamma", ("mse", _D), "gamma 0", (_MIDDLE,)),
    ),
    Claim(
        _SIGNS,
        "Or a codebook that does not force independence: vectors have a smaller error and a smaller D "
        "(codes by index)",
        _ahead("codebooks", ("mse", _D_INDEX), "shared", _AS_CHOSEN),
        later=True,
    ),
    Claim(
        _SIGNS,
        f"Too few codes: a larger error with D no worse ({MARGIN:g}), 16 codes against 64",
        (
            *_ahead("codebook", ("mse",), "K 16", ("K 64",)),
            *_ahead("codebook", (_D,), "K 16", ("K 64",), MARGIN),
        ),
        later=True,
    ),
    Claim(
        _SIGNS,
        "A temperature that falls too fast or too slowly makes training worse: the error is larger",
        _behind("stability", ("mse",), "as chosen", ("temperature 300", "temperature 30000")),
        later=True,
    ),
    Claim(
        _SIGNS,
        "So does an ill-balanced discriminator, one that learns too slowly or too fast",
        _behind("stability", ("mse",), "as chosen", ("discriminator rate 1e-5", "discriminator rate 3e-2")),
        later=True,
    ),
    *_better(_LONG, "models_long", later=True),
    *_with_and_without(_LONG, "models_long", later=True),
)
