"""What a quantizer has been told about how its codes are taken."""

from __future__ import annotations

from torch import Tensor

from fqvae_kernels import _arguments, backends
from fqvae_kernels._call import SAMPLING_ESTIMATORS
from fqvae_kernels._quantizer.schedule import TemperatureSchedule
from fqvae_kernels._quantizer.temperature import Tempered


class Estimating(Tempered):
    """The part of a quantizer that holds the estimator, its temperature, and the backend."""

    estimator: str
    hard: bool
    backend: str | None

    def _set_estimator(
        self,
        estimator: str,
        hard: bool,
        temperature: float | Tensor | TemperatureSchedule,
        learn_temperature: bool,
        backend: str | None,
        estimators: tuple[str, ...] = SAMPLING_ESTIMATORS,
    ) -> None:
        """estimators: those there are."""
        _arguments.check_estimator(estimator, estimators)
        self.estimator = estimator
        _arguments.check_flag("hard", hard)
        self.hard = hard
        if backend is not None and backend not in backends.NAMES:
            names = ", ".join(map(repr, backends.NAMES))
            raise ValueError(f"backend must be None or one of {names}, but was {backend!r}")
        self.backend = backend
        self._set_temperature(temperature, learn_temperature)
