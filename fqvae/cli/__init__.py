"""The command `fqvae`: one module for each of its commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fqvae.cli import compare, evaluate, pictures, report, sweep, train

_COMMANDS = (train, evaluate, pictures, report, compare, sweep)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 for an error, 130 for a run that was interrupted."""
    parser = argparse.ArgumentParser(prog="fqvae", description="Factor quantized variational autoencoders.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    # Options may stand between the words of a command, which argparse cannot do by itself under subcommands.
    options, words = parser.parse_known_args(arguments)
    unknown = [word for word in words if word.startswith("-")]
    if unknown:
        parser.error(f"unknown option {unknown[0]}")
    try:
        status: int = options.run(options, words)
    except ModuleNotFoundError as error:
        print(f"fqvae: error: {error}; the extra 'train' has what the command needs", file=sys.stderr)
        return 1
    except (ValueError, TypeError, OSError, ArithmeticError) as error:
        print(f"fqvae: error: {error}", file=sys.stderr)
        return 1
    return status
