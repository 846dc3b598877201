#!/usr/bin/env bash
# Prepares a check on a machine without network, on one without a GPU: builds the extension modules for one
# architecture and Python, compiles Triton's programs ahead, and leaves both in build/gpu_check/packed.
#     PYTHON=python3.12 benchmarks/gpu_check/pack.sh [extension] [programs]
# PYTHON must be of the releases, and have the packages, of the machine with the GPU. FQVAE_CUDA_ARCHS: default 90.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$(dirname "$here")")
python=${PYTHON:-python3}
packed="$root/build/gpu_check/packed"
work="$root/build/gpu_check/work"
mkdir -p "$packed"
cd "$root"
parts=("${@:-extension programs}")

if [[ " ${parts[*]} " == *" extension "* ]]; then
    FQVAE_BUILD=cuda FQVAE_CUDA_ARCHS=${FQVAE_CUDA_ARCHS:-90} \
        "$python" setup.py -q build --build-base "$work" --build-lib "$work/lib"
    suffix=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
    cp "$work/lib/fqvae_kernels/"{"_native$suffix","_cuda$suffix",_build.json} "$packed"
    # The tests that ask for Triton's programs take their results from the CPU kernels.
    cp "$packed/_native$suffix" fqvae_kernels
fi
if [[ " ${parts[*]} " == *" programs "* ]]; then
    PYTHONPATH="$root/benchmarks:$root" "$python" -m gpu_check.triton_cache make
fi
ls -l "$packed"
