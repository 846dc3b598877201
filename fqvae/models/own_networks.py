"""Networks of one's own: a function that gives encoder and decoder, named in `model.network.kind`.

A function is named as package.module:function, or by the name that the decorator `network` has given it:

    @fqvae.network("mine")
    def mine(image_shape, head_width, decoder_width, config):
        ...
        return encoder, decoder

It is called when a model is made or loaded, so that opening a run runs the function that the run names.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from fqvae.models.config import NetworkConfig

# image_shape (C, S, S); numbers that the encoder gives for an image; numbers that the decoder takes; config.
Function: TypeAlias = Callable[[tuple[int, int, int], int, int, "NetworkConfig"], tuple[nn.Module, nn.Module]]

BUILT_IN = ("official", "light")
_DOTTED = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
_PATH = re.compile(f"{_DOTTED}:{_DOTTED}")
_registered: dict[str, Function] = {}


def network(name: str) -> Callable[[Function], Function]:
    """Register a function as the network of this name, for `NetworkConfig.kind`.

    The function is given image_shape, (C, S, S); head_width; decoder_width; and the `NetworkConfig`. It
    returns two modules: an encoder, float32 (batch, C, S, S) in [-1/2, 1/2] -> (batch, head_width), and a
    decoder, (batch, decoder_width) -> (batch, C, S, S). A configuration keeps it as package.module:function
    where it can be imported so, which later commands then do.

    Raises ValueError for a name that another function has, or that is no plain word.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"the name of a network must be letters, digits, _ and -, but was {name!r}")

    def register(function: Function) -> Function:
        other = _registered.get(name)
        if name in BUILT_IN or (other is not None and _path(other) != _path(function)):
            raise ValueError(f"there is a network {name!r} already; give this one another name")
        _registered[name] = function
        return function

    return register


def full_name(kind: str) -> str | None:
    """The name under which a configuration keeps a network; None if there is none of this name.

    A module is not imported for this.
    """
    if kind in BUILT_IN or _PATH.fullmatch(kind):
        return kind
    function = _registered.get(kind)
    if function is None:
        return None
    path = _path(function)
    return path if _PATH.fullmatch(path) and not path.startswith("__main__:") else kind


def registered_names() -> list[str]:
    """The names that `network` has given."""
    return sorted(_registered)


def build_own(
    config: NetworkConfig, image_shape: tuple[int, int, int], head_width: int, decoder_width: int, seed: int
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder from the function that the configuration names, tried on a batch of two images.

    PyTorch's default generator is seeded for it and then put back.

    Raises ConfigError: the function cannot be imported, or fails; it gives something else than two modules;
    these give other shapes than they must.
    """
    from fqvae.models.config import ConfigError

    function = _find(config.kind)
    with _seeded(seed):
        try:
            made: Any = function(image_shape, head_width, decoder_width, config)
        except Exception as error:
            raise ConfigError(f"the network {config.kind!r} cannot be made: {_one_line(error)}") from error
        if not isinstance(made, tuple) or len(made) != 2 or not all(isinstance(m, nn.Module) for m in made):
            raise ConfigError(
                f"the network {config.kind!r} must give two modules, encoder and decoder, but gave "
                f"{type(made).__name__}"
            )
        encoder, decoder = made
        if torch.empty(0).device.type != "meta":  # there only the sizes of the weights are wanted
            images, numbers = torch.zeros(2, *image_shape), torch.zeros(2, decoder_width)
            _check(config.kind, "encoder", encoder, images, (2, head_width))
            _check(config.kind, "decoder", decoder, numbers, (2, *image_shape))
    return encoder, decoder


@torch.no_grad()
def _check(kind: str, part: str, module: nn.Module, given: Tensor, wanted: tuple[int, ...]) -> None:
    """Raise ConfigError unless the module makes of what is given a float tensor of this shape."""
    from fqvae.models.config import ConfigError

    shape, training = tuple(given.shape), module.training
    try:
        out: Any = module.eval()(given)
    except Exception as error:
        raise ConfigError(
            f"the {part} of {kind!r} must give shape {wanted} for input of shape {shape}, but fails: "
            f"{_one_line(error)}"
        ) from error
    finally:
        module.train(training)
    found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if found != wanted:
        raise ConfigError(
            f"the {part} of {kind!r} must give shape {wanted} for input of shape {shape}, but gave {found}"
        )
    if not out.is_floating_point():
        raise ConfigError(f"the {part} of {kind!r} must give floating-point numbers, but gave {out.dtype}")


def _find(kind: str) -> Function:
    """The function of this name. Raises ConfigError."""
    from fqvae.models.config import ConfigError

    if kind in _registered:
        return _registered[kind]
    module, _, name = kind.partition(":")
    if not name:
        raise ConfigError(
            f"model.network.kind is {kind!r}, but no function is registered by that name: import the module "
            "that registers it first"
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as for `python -m fqvae`; the command `fqvae` does not have it
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # of any type: the module is somebody's
        raise ConfigError(
            f"model.network.kind is {kind!r}, which cannot be imported: {_one_line(error)}"
        ) from error
    if not callable(found):
        raise ConfigError(f"model.network.kind is {kind!r}, which must be a function, but is {found!r}")
    function: Function = found
    return function


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def _path(function: Function) -> str:
    return f"{function.__module__}:{function.__qualname__}"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
