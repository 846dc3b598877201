"""Launching: arguments, buffers, names, the cache, statistics."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from . import PtxError, Stats, load
from .compile import cache_folder
from .snippets import HEADER, kernel_text

COPY_PARAMETERS = """
    ld.param.u64 %rd1, [p0];
    ld.param.u32 %r1, [p1];   st.global.u32 [%rd1], %r1;
    ld.param.f32 %f1, [p2];   st.global.f32 [%rd1+4], %f1;
    ld.param.f64 %fd1, [p3];  st.global.f64 [%rd1+8], %fd1;
    ld.param.u8 %r2, [p4];    st.global.u32 [%rd1+16], %r2;
    ld.param.s64 %rd2, [p5];  st.global.s64 [%rd1+24], %rd2;
    ld.param.u16 %r3, [p6+2]; st.global.u32 [%rd1+20], %r3;
    ret;
"""
TYPES = ["u64", "u32", "f32", "f64", "u8", "s64"]


@pytest.fixture(scope="module")
def copying():
    text = kernel_text(COPY_PARAMETERS, TYPES).replace("p5)", "p5, .param .align 4 .b8 p6[6])")
    return load(text)


def test_arguments_of_every_kind(copying):
    out = torch.zeros(32, dtype=torch.uint8)
    copying(1, 1, [out, 7, 1.5, 2.5, True, -3, b"\1\2\3\4\5\6"])
    words = out.numpy()
    assert (
        words.view(np.uint32)[0] == 7
        and words.view(np.float32)[1] == 1.5
        and words.view(np.float64)[1] == 2.5
    )
    assert (
        words.view(np.uint32)[4] == 1 and words.view(np.uint32)[5] == 0x0403 and words.view(np.int64)[3] == -3
    )
    copying(1, 1, [out, np.uint32(2**32 - 1), 2, np.float32(0.5), 255, np.int64(9), bytes(6)])
    assert words.view(np.uint32)[0] == 2**32 - 1 and words.view(np.float32)[1] == 2.0


@pytest.mark.parametrize(
    ("index", "value", "error"),
    [
        (1, 2**32, "argument 1 is 4294967296; the parameter has 4 bytes"),
        (1, -(2**31) - 1, "argument 1 is"),
        (4, 1.5, "argument 4 is 1.5; the parameter has 1 bytes"),
        (6, b"123", "argument 6 has 3 bytes; the parameter has 6"),
        (1, "x", "argument 1 must be an array, a number or bytes, got str"),
        (1, np.zeros(3), "argument 1 is"),
        (0, torch.zeros(8, device="meta"), "a CPU tensor expected, got one on meta"),
    ],
)
def test_arguments_that_do_not_fit(copying, index, value, error):
    args = [np.zeros(4), 1, 1.0, 1.0, 1, 1, bytes(6)]
    args[index] = value
    with pytest.raises((ValueError, TypeError), match=error):
        copying(1, 1, args)


def test_the_number_of_arguments(copying):
    with pytest.raises(ValueError, match="kernel takes 7 arguments, got 6"):
        copying(1, 1, [None] * 6)
    # Two pointers at the end, as Triton adds them, may be left out; they are null.
    out = np.zeros(1, np.uint64)
    text = kernel_text(
        "ld.param.u64 %rd1, [p0]; ld.param.u64 %rd2, [p2]; st.global.u64 [%rd1], %rd2; ret;", ["u64"] * 3
    )
    load(text)(1, 1, [out])
    with pytest.raises(ValueError, match="takes 4 arguments, got 1"):
        load(text.replace("p2)", "p2, .param .u64 p3)"))(1, 1, [out])


def test_grid_and_block():
    text = kernel_text(
        """
    ld.param.u64 %rd1, [p0]; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ctaid.y; mov.u32 %r3, %ctaid.z;
    mov.u32 %r4, %nctaid.x; mov.u32 %r5, %nctaid.y;
    mad.lo.u32 %r6, %r3, %r5, %r2; mad.lo.u32 %r6, %r6, %r4, %r1;
    mov.u32 %r1, %tid.x; mov.u32 %r2, %tid.y; mov.u32 %r3, %tid.z; mov.u32 %r4, %ntid.x; mov.u32 %r5, %ntid.y;
    mov.u32 %r8, %ntid.z; mad.lo.u32 %r7, %r3, %r5, %r2; mad.lo.u32 %r7, %r7, %r4, %r1;
    mul.lo.u32 %r4, %r4, %r5; mul.lo.u32 %r4, %r4, %r8; mad.lo.u32 %r6, %r6, %r4, %r7;
    mad.wide.u32 %rd1, %r6, 4, %rd1; st.global.u32 [%rd1], %r6; ret;"""
    )
    for order in (0, 1, 2):
        out = np.full(2 * 3 * 4 * 5 * 6 * 7, -1, np.int32)
        load(text)((2, 3, 4), (5, 6, 7), [out], order=order, race=True)
        np.testing.assert_array_equal(out, np.arange(out.size))
    for grid, block in (((2, 0), 1), ((), 1), ((1, 1, 1, 1), 1), (1, 1025)):
        with pytest.raises(ValueError, match="must be one to three positive extents"):
            load(text)(grid, block, [out])
    with pytest.raises(ValueError, match="order must be 0, 1 or 2, got 3"):
        load(text)(1, 1, [out], order=3)


def test_the_block_that_a_kernel_was_compiled_for():
    text = kernel_text("ret;")
    with pytest.raises(ValueError, match=r"block has 96 threads; the kernel says \.maxntid"):
        load(text.replace("\n{", "\n.maxntid 64, 1, 1\n{"))(1, 96, [None])
    with pytest.raises(ValueError, match=r"block has 32 threads; the kernel says \.reqntid"):
        load(text.replace("\n{", "\n.reqntid 64\n{"))(1, 32, [None])


def test_strided_views_and_pointers_within_structs():
    body = "ld.param.u64 %rd1, [p0]; ld.param.u64 %rd2, [p0+8];"
    body += "ld.global.u32 %r1, [%rd1+-8]; st.global.u32 [%rd2], %r1; ret;"
    text = kernel_text(body).replace(".param .u64 p0", ".param .align 8 .b8 p0[16]")
    kernel = load(text)
    data, out = np.arange(8, dtype=np.int32), np.zeros(1, np.int32)
    struct = np.array([data.ctypes.data + 16, out.ctypes.data], np.uint64).tobytes()
    kernel(1, 1, [struct], buffers=[data, out])
    assert out[0] == 2
    kernel(1, 1, [struct], buffers=[data[::-2], torch.from_numpy(out)])  # from element 1 to 7
    with pytest.raises(PtxError, match="read of 4 bytes out of bounds"):
        kernel(1, 1, [struct], buffers=[data[4:], out])
    with pytest.raises(PtxError, match="write of 4 bytes out of bounds"):
        kernel(1, 1, [struct], buffers=[data])
    with pytest.raises(PtxError, match="in a read-only buffer"):
        kernel(1, 1, [struct], buffers=[data, (out, False)])
    with pytest.raises(TypeError, match="a NumPy array or a tensor expected, got int"):
        kernel(1, 1, [struct], buffers=[5])


def two_kernels():
    first = kernel_text("ret;").replace("entry kernel", "entry _Z5firstPf")
    return first + kernel_text("wgmma.fence; ret;").replace("entry kernel", "entry _Z6secondPf").replace(
        HEADER, ""
    )


def test_only_the_kernel_that_is_named_is_translated():
    assert load(two_kernels(), "_Z5firstPf").name == load(two_kernels(), "first").name == "_Z5firstPf"
    for name in ("third", None, "Pf"):
        with pytest.raises(ValueError, match="the module has _Z5firstPf, _Z6secondPf"):
            load(two_kernels(), name)
    with pytest.raises(PtxError, match="wgmma"):
        load(two_kernels(), "second")


@pytest.fixture
def fresh_cache(monkeypatch, tmp_path):
    """A folder with the compiled runtime and no kernel."""
    load(kernel_text("ret;"))
    for compiled in cache_folder().glob("*.o"):
        shutil.copy(compiled, tmp_path)
    monkeypatch.setenv("FQVAE_PTX_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("fresh_cache")
def test_what_does_not_matter_is_not_compiled_again():
    text = kernel_text("mov.u32 %r1, 1;\n add.u32 %r2, %r1, 2; trap;")
    load(text)
    compiled = sorted(cache_folder().iterdir())
    assert sum(path.suffix == ".so" for path in compiled) == 1
    other = (
        text.replace("sm_90", "sm_80")
        .replace("8.0", "9.1")
        .replace("\n", " // a comment\n\n")
        .replace("%r1", "%r31")
    )
    with pytest.raises(PtxError, match=rf"line {other[: other.index('trap')].count(chr(10)) + 1} "):
        load(other)(1, 1, [None])
    assert sorted(cache_folder().iterdir()) == compiled
    load(text.replace("1;", "3;"))
    assert len(list(cache_folder().glob("*.so"))) == 2


def test_processes_that_compile_the_same_at_once(fresh_cache):
    program = (
        "from ptx import load; from ptx.snippets import kernel_text; "
        "print(load(kernel_text('mov.u32 %r1, 5; ret;'))(1, 64, [None]).instructions)"
    )
    tests = str(pathlib.Path(__file__).parent.parent)
    environment = os.environ | {"FQVAE_PTX_CACHE": str(fresh_cache), "PYTHONPATH": tests}
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate()[0] for process in running] == [b"128\n"] * 3


def test_statistics_of_a_launch():
    stats = load(kernel_text("bar.sync 0; bar.warp.sync -1; ret;"))(3, 64, [None])
    assert stats == Stats(
        instructions=3 * 64 * 3,
        collectives=3 * 2,
        barriers=3,
        races=0,
        race="",
        barriers_with_exited=0,
        collectives_with_exited=0,
    )
