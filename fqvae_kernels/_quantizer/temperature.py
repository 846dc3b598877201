"""The temperature of a quantizer: a number, a buffer, a schedule, or learned through its logarithm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fqvae_kernels import _arguments
from fqvae_kernels._quantizer.logarithm import Logarithmic, read
from fqvae_kernels._quantizer.schedule import TemperatureSchedule
from fqvae_kernels._tensors import put

# exp of more than 88.7 overflows in float32, and so does the reciprocal of exp of less than -88.7.
_MOST_LOGARITHM = 87.0


class Tempered(Logarithmic):
    """The part of a quantizer that holds its temperature; `ScalarQuantizer` describes the arguments.

    Where it is learned the parameter is `log_temperature`, (1,), and `temperature`, 0-d, is computed from it.
    A schedule is the module `temperature_schedule`, and `temperature` is what it says.
    """

    temperature: float | Tensor
    log_temperature: torch.nn.Parameter
    learn_temperature: bool
    temperature_schedule: TemperatureSchedule
    _given_temperature: float | Tensor

    def __getattr__(self, name: str) -> Any:
        # No property, which no buffer could have the name of. The flag is asked, not the Parameter:
        # DataParallel and others put a tensor in its place.
        if name == "temperature":
            if self.__dict__.get("learn_temperature", False):
                return temperature_of(read(self.log_temperature))
            if "temperature_schedule" in self.__dict__.get("_modules", ()):
                return self.temperature_schedule()
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "temperature":
            if self.__dict__.get("learn_temperature", False):
                raise AttributeError("temperature is learned: set log_temperature, its logarithm")
            if "temperature_schedule" in self.__dict__["_modules"]:
                raise AttributeError("temperature is what temperature_schedule says: replace that")
            if isinstance(value, torch.nn.Parameter | TemperatureSchedule):
                kind = type(value).__name__
                raise TypeError(
                    f"temperature must be given to the constructor as a {kind}, but was set to one"
                )
        super().__setattr__(name, value)

    def _set_temperature(self, temperature: float | Tensor | TemperatureSchedule, learn: bool) -> None:
        _arguments.check_flag("learn_temperature", learn)
        self.learn_temperature = learn or isinstance(temperature, torch.nn.Parameter)
        if isinstance(temperature, TemperatureSchedule):
            if learn:
                raise ValueError("learn_temperature must be False where temperature is a TemperatureSchedule")
            self.temperature_schedule = temperature
            return
        given = temperature.detach() if isinstance(temperature, Tensor) else temperature
        device = given.device if isinstance(given, Tensor) else torch.device("cpu")
        checked = _arguments.check_temperature(given, device)
        if self.learn_temperature:
            dtype = given.dtype if isinstance(given, Tensor) else torch.get_default_dtype()
            self._given_temperature = float(checked)
            self.log_temperature = torch.nn.Parameter(torch.empty(1, dtype=dtype, device=device))
            self._reset_temperature()
        elif isinstance(temperature, Tensor):
            self._given_temperature = temperature.clone()
            self.register_buffer("temperature", temperature)
        else:
            self.temperature = checked

    @torch.no_grad()
    def _reset_temperature(self) -> None:
        """Start a temperature that is learned, or a buffer, anew at what was given."""
        if self.__dict__.get("learn_temperature", False):
            given = torch.tensor([self._given_temperature], dtype=torch.float64, device="cpu")
            put(given.log(), self.log_temperature)
        elif (buffer := self._buffers.get("temperature")) is not None:
            assert isinstance(self._given_temperature, Tensor)
            buffer.copy_(self._given_temperature)


def temperature_of(logarithm: Tensor) -> Tensor:
    """exp of the logarithm, in float32 or, for float64, float64: never 0, negative or infinite.

    Beyond -87 and 87 it is e**-87 or e**87, without a gradient. NaN stays NaN.
    """
    dtype = torch.float64 if logarithm.dtype == torch.float64 else torch.float32
    return logarithm.to(dtype).clamp(-_MOST_LOGARITHM, _MOST_LOGARITHM).exp()
