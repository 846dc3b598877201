#!/usr/bin/env bash
# Checks and measures the GPU backends on a machine with a GPU, in stages, each of which leaves its results at once:
#     benchmarks/gpu_check.sh --out DIR [STAGE ...]
# PYTHON names an interpreter. With FQVAE_GPU_TESTS_ON=cpu the CPU stands in for the GPU. --help says the rest.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$here:$(dirname "$here")${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m gpu_check.run "$@"
