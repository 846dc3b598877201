"""Small PTX kernels for the tests of the runner."""

import re
from collections.abc import Iterable

import numpy as np

from . import Kernel, load

HEADER = ".version 8.0\n.target sm_90\n.address_size 64\n"


def kernel_text(body: str, parameters: Iterable[str] = ("u64",), outside: str = "") -> str:
    """A kernel named kernel with parameters p0, p1 ...; its body may use %r, %rd, %f, %fd, %h and %p."""
    listed = ", ".join(f".param .{type_} p{i}" for i, type_ in enumerate(parameters))
    return f"""{HEADER}{outside}
.visible .entry kernel({listed})
{{
    .reg .pred %p<10>;
    .reg .b16 %h<20>;
    .reg .b32 %r<40>, %f<20>;
    .reg .b64 %rd<20>, %fd<20>;
    {body}
}}
"""


def each_instruction_text(instructions: Iterable[str], count: int) -> str:
    """A kernel whose i-th thread puts the results of all instructions for operands[i] in results[:, i].

    Sources are a, b, c followed by their number of bits, and the predicate p, which is c's lowest bit. The
    result is d16, d32, d64 or the predicate q.
    """
    widths = (16, 32, 64)
    loads = [f"ld.global.b64 {name}64, [%rd2+{8 * i}];" for i, name in enumerate("abc")]
    loads += [f"cvt.u{width}.u64 {name}{width}, {name}64;" for name in "abc" for width in widths[:2]]
    pieces = []
    for number, instruction in enumerate(instructions):
        place = f"[%rd3+{8 * count * number}]"
        results = re.findall(r"\b(?:d16|d32|d64|q)\b", instruction.split(";")[-1])
        store = (
            "selp.b64 d64, 1, 0, q; st.global.b64 {0}, d64;"
            if results[0] == "q"
            else "st.global.b{1} {0}, d{1};"
        )
        pieces.append(
            "{ .reg .b16 d16; .reg .b32 d32; .reg .b64 d64; .reg .pred q, r;\n"
            f"{instruction};\n{store.format(place, results[0][1:])} }}"
        )
    registers = " ".join(f".reg .b{width} a{width}, b{width}, c{width};" for width in widths)
    body = f"""
    {registers} .reg .pred p;
    ld.param.u64 %rd0, [p0];
    ld.param.u64 %rd1, [p1];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r0, %r2, %r3, %r4;
    setp.ge.u32 %p0, %r0, {count};
    @%p0 exit;
    mad.wide.u32 %rd2, %r0, 24, %rd0;
    mad.wide.u32 %rd3, %r0, 8, %rd1;
    {" ".join(loads)}
    and.b32 %r1, c32, 1;
    setp.ne.u32 p, %r1, 0;
    {chr(10).join(pieces)}
    ret;"""
    return kernel_text(body, ("u64", "u64"))


def run_each(
    instructions: Iterable[str], operands: np.ndarray, *, jitter: float = 0, seed: int = 1
) -> np.ndarray:
    """Results (instructions, count) as bits in uint64; operands: uint64 (count, 3)."""
    instructions = list(instructions)
    count = len(operands)
    results = np.zeros((len(instructions), count), np.uint64)
    kernel: Kernel = load(each_instruction_text(instructions, count))
    kernel(-(-count // 128), 128, [np.ascontiguousarray(operands), results], jitter=jitter, seed=seed)
    return results
