#!/usr/bin/env bash
# Tries what pyproject.toml declares: tools/versions.sh [oldest] [middle] [newest]; all three if none is named.
#
# For each pair of Python and PyTorch: a fresh virtual environment, PyTorch with the Triton that it pins, the package
# with its extra `test` built with FQVAE_BUILD=cpu from a copy of the tree, and the tests below. One line a pair on
# standard output; what happened is in build/versions/PAIR.log. Status 1 if a pair fails.
#
# Each needs python3.X on the PATH or in pyenv, and 3 to 7 GB while it runs: PyPI's PyTorch for Linux on x86-64 brings
# CUDA's libraries. pip's own settings (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL) can name a place that has smaller ones.
#   FQVAE_VERSIONS_DIR    keeps environments and builds in this folder, and takes those that are there
#   FQVAE_VERSIONS_JOBS   processes that run tests; 2
#   FQVAE_VERSIONS_TESTS  other tests than those below: paths, and options of pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The oldest pair is the lower bound that pyproject.toml declares (tests/test_versions.py holds it to that).
declare -A PYTHON=([oldest]=3.10 [middle]=3.12 [newest]=3.13)
declare -A TORCH=([oldest]=2.8.0 [middle]=2.11.0 [newest]=2.14.1)

# The kernel package's tests, and of fqvae's those that depend most on PyTorch and Lightning. Not those of the build,
# of compilers and of GPU machine code, which no release of Python or PyTorch changes.
tests=(
    $(ls tests/test_*.py | grep -vE 'test_(build|cuda_support|gpu_|host_cost|native_sanit|portab|readme|sass|versions)')
    tests/triton_backend/test_triton_{amd,interpreted,keys,torch}.py
    tests/models tests/metrics/test_dci.py tests/data/test_readers.py
    tests/training/test_{checkpoint,cli,step}.py
)

if [[ -n ${FQVAE_VERSIONS_TESTS:-} ]]; then
    read -r -a tests <<<"$FQVAE_VERSIONS_TESTS"
fi

# The interpreter of a release such as 3.10. A shim of pyenv's is on the PATH but may run nothing.
interpreter() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if "$candidate" -c '' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "there is no Python $1: neither python$1 on the PATH nor one of pyenv's" >&2
    return 1
}

# Prints the versions that are installed.
installed() {
    python -c '
import importlib.metadata, platform
found = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()}
names = ("torch", "triton", "numpy", "lightning")
print(f"Python {platform.python_version()},", ", ".join(f"{name} {found.get(name, None)}" for name in names))'
}

# One pair, in a subshell that ends with its first error: environment, build and tests.
try() {
    local pair=$1 venv=$kept/venv-$1 tree=$kept/tree-$1 python
    if [[ ! -e $venv/bin/python ]]; then
        python=$(interpreter "${PYTHON[$pair]}")
        "$python" -m venv "$venv"
    fi
    source "$venv/bin/activate"
    mkdir -p "$tree"
    find "$tree" -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp -p --parents -t "$tree"
    cd "$tree"
    pip install "torch==${TORCH[$pair]}"
    # PyTorch is named again: pip must find a set of packages that goes with it.
    FQVAE_BUILD=cpu pip install "torch==${TORCH[$pair]}" -e ".[test]"
    installed
    OMP_NUM_THREADS=1 pytest -q -n "${FQVAE_VERSIONS_JOBS:-2}" -p no:cacheprovider "${tests[@]}"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
kept=$(realpath -m "${FQVAE_VERSIONS_DIR:-$scratch}")
mkdir -p build/versions
export PYTHONDONTWRITEBYTECODE=1 TORCHINDUCTOR_CACHE_DIR="$scratch/inductor"

failed=0
(($#)) || set -- oldest middle newest
for pair in "$@"; do
    if [[ -z ${PYTHON[$pair]:-} ]]; then
        echo "there is no pair '$pair': it may be oldest, middle or newest" >&2
        exit 2
    fi
done
for pair in "$@"; do
    log=build/versions/$pair.log
    status=0
    # In the background, and not in a condition: there `set -e` would count for nothing inside.
    try "$pair" >"$log" 2>&1 &
    wait $! || status=$?
    versions=$(grep -m1 '^Python .*torch' "$log" || echo "Python ${PYTHON[$pair]}, torch ${TORCH[$pair]}")
    result=$(grep -E '^(=+ )?[0-9]+ (passed|failed|error|skipped).* in ' "$log" | tail -1 || true)
    if ((status != 0)); then
        failed=1
    fi
    printf '%s: %s: %s\n' "$pair" "$versions" "${result:-failed before the tests, see $log}"
    rm -rf "$scratch/venv-$pair" "$scratch/tree-$pair"  # before the next: they are large
done
exit "$failed"
