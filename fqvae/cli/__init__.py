"""The command `fqvae`: one module for each of its commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from signal import SIGINT

import fqvae
from fqvae.cli.printing import is_out_of_memory, make_printable, nobody_reads
from fqvae.packages import explain
from fqvae.signals import Terminated, raising_terminated, status_of

_SIGPIPE = 13  # which Windows has no name for


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        Its exit status: 0; 1 for an error; 128 + signal for a command that a signal has ended (130 on Ctrl-C,
        143 on SIGTERM). An error and a signal are told in one line on standard error. 141, without a word, if
        nobody reads what it prints any more: so a shell has it of other commands (SIGPIPE).
    """
    make_printable(sys.stdout, sys.stderr)
    try:
        with raising_terminated():
            status = _run(arguments)
            sys.stdout.flush()
            return status
    except KeyboardInterrupt:
        print("fqvae: interrupted", file=sys.stderr)
        return status_of(SIGINT)
    except Terminated as error:
        print(f"fqvae: {error}", file=sys.stderr)
        return status_of(error.number)
    except ModuleNotFoundError as error:
        print(f"fqvae: error: {explain(error)}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, OSError, ArithmeticError) as error:
        if isinstance(error, BrokenPipeError) and nobody_reads(sys.stdout):
            return status_of(_SIGPIPE)
        print(f"fqvae: error: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first = str(error).strip().splitlines()[:1]
        print(f"fqvae: error: out of memory{f': {first[0]}' if first else ''}", file=sys.stderr)
        return 1


def _run(arguments: Sequence[str] | None) -> int:
    # Not at the top: PyTorch takes seconds to import, and Ctrl-C may come meanwhile.
    from fqvae.cli import compare, evaluate, pictures, report, sweep, train

    parser = argparse.ArgumentParser(prog="fqvae", description="Factor quantized variational autoencoders.")
    parser.add_argument("--version", action="version", version=f"fqvae {fqvae.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (train, evaluate, pictures, report, compare, sweep):
        command.add(commands)
    # Options may stand between the words of a command, which argparse cannot do by itself under subcommands.
    options, words = parser.parse_known_args(arguments)
    unknown = [word for word in words if word.startswith("-")]
    if unknown:
        parser.error(f"unknown option {unknown[0]}")
    status: int = options.run(options, words)
    return status
