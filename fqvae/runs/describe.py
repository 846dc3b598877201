"""Every key of a run with its type, its value and what it is, from the docstring of its configuration."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from dataclasses import dataclass
from typing import Any

from fqvae.runs.config import RunConfig
from fqvae.runs.words import SHORT


@dataclass(frozen=True)
class Key:
    """One key. short: its short name, or "". kind: its type in words. value: in the configuration at hand."""

    name: str
    short: str
    kind: str
    value: object
    meaning: str

    def __str__(self) -> str:
        name = f"{self.name} (or {self.short})" if self.short else self.name
        value = self.value
        if value is None or isinstance(value, bool):
            value = str(value).lower()  # as YAML and the command line have it
        return f"{name} = {value}  [{self.kind}]\n    {self.meaning}"


def describe_keys(config: RunConfig) -> list[Key]:
    """All keys of a run, in the order of its config.yaml, with the values of this one."""
    return _describe(config, "")


def _describe(config: Any, prefix: str) -> list[Key]:
    hints = typing.get_type_hints(type(config))
    meanings = field_meanings(type(config))
    short = {key: name for name, key in SHORT.items()}
    found = []
    for each in dataclasses.fields(config):
        name, value = prefix + each.name, getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            found += _describe(value, f"{name}.")
        else:
            kind, meaning = _kind(hints[each.name]), meanings.get(each.name, "")
            found.append(Key(name, short.get(name, ""), kind, value, meaning))
    return found


def field_meanings(kind: type[Any]) -> dict[str, str]:
    """What a configuration's docstring says about each of its fields.

    The form is "name: text", or "name, name: text" for several, at the beginning of a line or after a full
    stop; a text ends where the next begins, or at an empty line.
    """
    names = "|".join(re.escape(each.name) for each in dataclasses.fields(kind))
    entry = re.compile(rf"(?:^|(?<=\n)|(?<=\. )|(?<=\.\n))\s*((?:{names})(?:, (?:{names}))*): ")
    meanings: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", inspect.getdoc(kind) or ""):
        found = list(entry.finditer(paragraph))
        ends = [*(each.start() for each in found), len(paragraph)][1:]
        for each, end in zip(found, ends, strict=True):
            text = " ".join(paragraph[each.end() : end].split())
            meanings.update(dict.fromkeys(each[1].split(", "), text))
    return meanings


def _kind(hint: Any) -> str:
    """A type in words."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = [each for each in typing.get_args(hint) if each is not type(None)]
        return " or ".join([*map(_kind, inner), "none"])
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(map(str, typing.get_args(hint)))
    return {bool: "true or false", int: "whole number", float: "number", str: "text"}[hint]
