"""YAML as it is read here: plain values, no key twice, not nested deeper than anybody needs."""

from __future__ import annotations

from typing import Any

from fqvae.models.config import ConfigError

DEPTH = 20  # of lists and mappings in each other


def load_yaml(text: str | bytes) -> Any:
    """The content of a YAML file.

    Raises ConfigError: no YAML; a key that is there twice, of which YAML keeps the last; nested too deeply.
    """
    import yaml  # not at the top: `import fqvae.cli` goes without it

    class Loader(yaml.SafeLoader):
        """One that refuses a key that is there twice."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := {key for key in keys if keys.count(key) > 1}:
                raise ConfigError(f"line {node.start_mark.line + 1}: {min(twice)!r} is there twice")
            return super().construct_mapping(node, deep)

    try:
        depth = 0
        for event in yaml.parse(text, Loader):  # which needs no recursion, as making the values does
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ConfigError(f"line {line}: it must be nested at most {DEPTH} deep, but is deeper")
        return yaml.load(text, Loader)
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # a date that does not exist is a ValueError
        raise ConfigError(f"it is not YAML: {' '.join(str(error).split())}") from error
