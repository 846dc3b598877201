"""Typed configurations from flat keys such as `model.weights.kl`, and back."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from fqvae.models.config import ConfigError
from fqvae.runs.words import HINTS, SHORT

_ALIKE = 0.75  # share of letters that two words have in common, from which they are alike


def to_flat(config: object) -> dict[str, Any]:
    """The values of a configuration by their dotted keys: what `from_flat` takes."""
    flat: dict[str, Any] = {}
    for each in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            flat.update({f"{each.name}.{key}": inner for key, inner in to_flat(value).items()})
        else:
            flat[each.name] = value
    return flat


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message about a word that is not known: the one that was meant, or a full stop.

    Meaning goes before spelling: first `fqvae.runs.words`, then what follows the last dot of a known word,
    then what is spelt alike. Words that resemble nothing get no suggestion.
    """
    known = list(known)
    meant = {each.rsplit(".", 1)[-1].lower(): each for each in known}
    meant.update({each.lower(): each for each in known})
    meant.update({hint: key for hint, key in HINTS.items() if key in known})
    meant.update({short.lower(): short for short, key in SHORT.items() if key in known})
    plain = word.lower().replace("-", "_")
    near = difflib.get_close_matches(plain, meant, n=1, cutoff=_ALIKE)
    return f"; did you mean {meant[near[0]]!r}?" if near else "."


def build(kind: type[Any], values: Mapping[str, object], prefix: str = "") -> Any:
    """A configuration of this kind from its flat keys, each behind the prefix. Raises ConfigError."""
    hints = typing.get_type_hints(kind)
    arguments = {}
    for each in dataclasses.fields(kind):
        key, hint = prefix + each.name, hints[each.name]
        if dataclasses.is_dataclass(hint):
            arguments[each.name] = build(typing.cast("type[Any]", hint), values, key + ".")
        elif key in values:
            arguments[each.name] = _convert(key, values[key], hint)
    return kind(**arguments)


def _convert(key: str, value: object, hint: Any) -> object:
    """value as the type that the field has, or ConfigError."""
    if typing.get_origin(hint) is types.UnionType:
        if value is None or value == "none":
            return None
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    if typing.get_origin(hint) is typing.Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            raise ConfigError(
                f"{key} cannot be {value!r}{did_you_mean(str(value), allowed)} "
                f"It may be {', '.join(map(repr, allowed))}"
            )
        return value
    if hint is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if hint is str and isinstance(value, str):
        return value
    if hint in (int, float) and isinstance(value, str | int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value) if hint is float else _whole_number(value)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    raise ConfigError(f"{key} must be {names[hint]}, but was {value!r}")


def _whole_number(value: str | float) -> int:
    """The value as an int. Raises ValueError, OverflowError if it is no whole number."""
    try:
        return int(str(value))  # exact: a float has only 53 bits
    except ValueError:
        number = int(float(value))
        if number != float(value):
            raise
        return number
