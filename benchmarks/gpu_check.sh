#!/usr/bin/env bash
# On a machine with a GPU: confirms what the other checks can only model, and leaves the results beside the others.
# The same by hand: pytest -m gpu; python benchmarks/quantize_bench.py --device cuda. PYTHON names an interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}

device=$("$python" -c '
import sys
try:
    import torch
except ImportError:
    sys.exit("This check needs PyTorch.")
if not torch.cuda.is_available():
    sys.exit("PyTorch finds no CUDA device on this machine: there is nothing to check.")
print("".join(c if c.isalnum() else "_" for c in torch.cuda.get_device_name().lower()))
') || exit 2

tests="benchmarks/results/gpu_tests_$device.txt"
status=0
{
    "$python" -m fqvae_kernels
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
    "$python" -m pytest -m gpu tests/gpu -q
} 2>&1 | tee "$tests" || status=$?
echo "Written: $tests"
"$python" benchmarks/quantize_bench.py --device cuda
exit "$status"
