"""Starts the program: `python tools/gpu_model`, or `python -m gpu_model` with `tools` on the path."""

import sys
from pathlib import Path

if not __package__:
    # Started by the name of its folder, Python puts that folder on the path instead of its parent.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from gpu_model.program import main

if __name__ == "__main__":
    sys.exit(main())
