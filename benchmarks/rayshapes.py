"""Trains the runs on RayShapes that docs/results.md reports, and makes its tables and plots of them.

    python benchmarks/rayshapes.py run EXPERIMENT [--jobs 2] [--minutes M] [--commit]
    python benchmarks/rayshapes.py choose          which weights each model gets, of the runs of `choose`
    python benchmarks/rayshapes.py table           tables and plots, of the results that are there

An experiment is a sweep of the package (`fqvae sweep --help` names them); `run` goes on with it where it was.
What is kept of a run lies in benchmarks/results/rayshapes/EXPERIMENT/RUN/seed-N.
"""

import sys

from rayshapes_runs.command import main

if __name__ == "__main__":
    sys.exit(main())
