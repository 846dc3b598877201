"""Compiles Triton kernels with no GPU, in a process of its own: in one that interprets, it cannot.

Requests come and results go as lines of JSON. A request is {"kernel": "module.name", "types": {argument: type
or "constexpr"}, "constants": {argument: value}, "arch": 90, "options": {name: value}}, a result {"ptx": text,
"shared": bytes, "registers": number, "stack": bytes} or {"error": text}. Arguments module.function=other put
another function of the module in the place of one, before anything is compiled. The argument "hip" stands for
a PyTorch for AMD's GPUs: "arch" is then a name such as gfx942, and "assembly" in the place of "ptx".
"""

import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import traceback

import torch

PACKAGE = "fqvae_kernels.backends._triton"


# As AMD's assembly names them, of a thread but for "shared".
AMD_MEASURES = {
    "registers": "vgpr_count",
    "stack": "private_segment_fixed_size",
    "shared": "group_segment_fixed_size",
}


def compile_kernel(request: dict) -> dict:
    import triton
    from triton.backends.compiler import GPUTarget

    module, name = request["kernel"].split(".")
    kernel = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    source = triton.compiler.ASTSource(kernel, request["types"], constexprs=request["constants"])
    hip = torch.version.hip is not None
    target = GPUTarget("hip", request["arch"], 64) if hip else GPUTarget("cuda", request["arch"], 32)
    compiled = triton.compile(source, target=target, options=request["options"])
    if hip:
        assembly = compiled.asm["amdgcn"]
        found = {key: re.search(rf"\.{key}:\s+(\d+)", assembly) for key in AMD_MEASURES.values()}
        return {"assembly": assembly} | {name: int(found[key][1]) for name, key in AMD_MEASURES.items()}
    return {
        "ptx": compiled.asm["ptx"],
        "shared": compiled.metadata.shared,
        **resources(compiled.asm["cubin"]),
    }


def resources(cubin: bytes) -> dict:
    """Registers and bytes of stack (which is where spilled registers go) a thread, by cuobjdump."""
    import triton

    tool = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [str(tool), "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert found is not None, text
    return {"registers": int(found[1]), "stack": int(found[2])}


def main() -> None:
    if "hip" in sys.argv:
        torch.version.hip = "6.4"
    edits = [argument for argument in sys.argv[1:] if "=" in argument]
    if edits:  # keys are taken at the import: they do not tell the edited programs from the others
        os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp(prefix="fqvae-triton-")
    for edit in edits:
        path, _, other = edit.partition("=")
        module = importlib.import_module(f"{PACKAGE}.{path.partition('.')[0]}")
        setattr(module, path.partition(".")[2], getattr(module, other))
    for line in sys.stdin:
        try:
            result = compile_kernel(json.loads(line))
        except Exception:
            result = {"error": traceback.format_exc()}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
