"""The keys by which Triton's cache knows the kernels: the same in every process, whatever it uses first."""

import itertools

from cases import run_python

MODULES = ("noise", "forward", "drawn", "backward")
SCRIPT = """
import importlib, sys
import triton
for name in sys.argv[1:]:
    importlib.import_module("fqvae_kernels.backends._triton." + name)
kernels = {}
for name in sorted(sys.argv[1:]):
    module = sys.modules["fqvae_kernels.backends._triton." + name]
    for key, value in vars(module).items():
        if isinstance(value, triton.JITFunction) and key.endswith("_kernel"):
            kernels[key] = value
for key in reversed(list(kernels)) if sys.argv[1] == "backward" else kernels:
    kernels[key].cache_key
print(sorted((key, value.cache_key) for key, value in kernels.items()))
"""


def test_keys_do_not_depend_on_what_is_used_first(compile_only, tmp_path):
    script = tmp_path / "keys.py"
    script.write_text(SCRIPT)
    said = set()
    for modules, first in itertools.product((MODULES, MODULES[::-1]), range(len(MODULES))):
        order = modules[first:] + modules[:first]
        done = run_python(str(script), *order)
        assert done.returncode == 0, done.stderr
        said.add(done.stdout)
    assert len(said) == 1 and "backward_kernel" in said.pop()
