"""Loads, stores, atomic operations and copies; accesses that are refused; races."""

import numpy as np
import pytest
import torch

from . import PtxError, load
from .snippets import kernel_text

ADDRESS = """
    ld.param.u64 %rd1, [p0];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mad.wide.u32 %rd2, %r1, 4, %rd1;
"""


def run(body, args, threads=32, grid=1, outside="", parameters=None, **options):
    """Runs a body that finds p0 in %rd1, its thread in %r1, its block in %r2, &p0[thread] in %rd2."""
    text = kernel_text(ADDRESS + body + "\nret;", parameters or ["u64"] * len(args), outside)
    return load(text)(grid, threads, args, **options)


def test_loads_and_stores_of_every_width():
    data = np.arange(256, dtype=np.uint8)
    out = np.zeros(9, np.uint64)
    body = """
    ld.param.u64 %rd3, [p1];
    ld.global.u8 %r3, [%rd1+200];  cvt.u64.u32 %rd4, %r3;  st.global.u64 [%rd3], %rd4;
    ld.global.s8 %r4, [%rd1+200];  cvt.s64.s32 %rd4, %r4;  st.global.u64 [%rd3+8], %rd4;
    ld.global.s16 %r5, [%rd1+200]; cvt.s64.s32 %rd4, %r5;  st.global.u64 [%rd3+16], %rd4;
    ld.global.b64 %rd4, [%rd1+8];                          st.global.b64 [%rd3+24], %rd4;
    ld.global.v2.b32 {%r6, %r7}, [%rd1+16];                st.global.v2.b32 [%rd3+32], {%r7, %r6};
    ld.global.nc.L1::no_allocate.v4.u16 {%h1, _, %h2, %h3}, [%rd1+32];
    st.global.v4.b16 [%rd3+40], {%h3, %h2, 7, %h1};
    ld.u16 %h4, [%rd1+2];                                  st.u8 [%rd3+48], %h4;
    ld.volatile.global.v2.b64 {%rd5, %rd6}, [%rd1+48];     st.global.b64 [%rd3+56], %rd6;
    st.weak.global.wb.b64 [%rd3+64], %rd5;
    """
    run(body, [data, out], threads=1)
    words = data.view(np.uint16)
    quads = data.view(np.uint64)
    assert [int(x) for x in out[:4]] == [200, 2**64 - 56, 2**64 - (2**16 - int(words[100])), int(quads[1])]
    assert out[4] == int(data.view(np.uint32)[5]) | int(data.view(np.uint32)[4]) << 32
    assert list(out[5:6].view(np.uint16)) == [words[19], words[18], 7, words[16]]
    assert [int(x) for x in out[6:]] == [2, int(quads[7]), int(quads[6])]


def test_atomic_operations_return_what_was_there():
    kinds = [
        "add.u32",
        "min.s32",
        "max.u32",
        "and.b32",
        "or.b32",
        "xor.b32",
        "exch.b32",
        "inc.u32",
        "dec.u32",
    ]
    start = np.arange(100, 110, dtype=np.uint32)
    cells, old = start.copy(), np.zeros(10, np.uint32)
    body = "ld.param.u64 %rd3, [p1];"
    for i, kind in enumerate(kinds):
        body += f"atom.global.{kind} %r3, [%rd1+{4 * i}], 103; st.global.u32 [%rd3+{4 * i}], %r3;"
    body += "atom.relaxed.gpu.global.cas.b32 %r3, [%rd1+36], 109, 5; st.global.u32 [%rd3+36], %r3;"
    run(body, [cells, old], threads=1)
    np.testing.assert_array_equal(old, start)
    x = [int(v) for v in start]
    want = [x[0] + 103, min(x[1], 103), max(x[2], 103), x[3] & 103, x[4] | 103, x[5] ^ 103, 103, 0, 103, 5]
    np.testing.assert_array_equal(cells, want)


def test_atomic_sums_of_all_threads_and_blocks():
    sums = np.zeros(4, np.float64)
    halves = sums[3:].view(np.float16)
    body = """
    red.global.add.f64 [%rd1], 0d3FE0000000000000;
    atom.global.add.f32 %f1, [%rd1+8], 0f3F000000;
    red.global.add.u64 [%rd1+16], 3;
    mov.b32 %r4, 0x3C003800;
    red.global.add.noftz.f16x2 [%rd1+24], %r4;
    """
    stats = run(body, [sums], threads=64, grid=4, race=True)
    assert sums[0] == 128 and sums[1:2].view(np.float32)[0] == 128 and sums[2:3].view(np.uint64)[0] == 768
    assert halves[0] == 128 and halves[1] == 256
    assert stats.races == 0


SHARED = ".shared .align 16 .b8 tile[128];\n.extern .shared .align 16 .b8 more[];\n"
ROTATE = """
    mov.u32 %r3, tile;
    shl.b32 %r4, %r1, 2;
    add.u32 %r5, %r3, %r4;
    st.shared.u32 [%r5], %r1;
    bar.sync 0;
    xor.b32 %r6, %r4, 4;
    add.u32 %r7, %r3, %r6;
    ld.shared.u32 %r8, [%r7];
    st.global.u32 [%rd2], %r8;
"""


@pytest.mark.parametrize("order", [0, 1, 2])
def test_shared_memory_and_a_barrier(order):
    out = np.zeros(32, np.uint32)
    stats = run(ROTATE, [out], outside=SHARED, race=True, order=order)
    np.testing.assert_array_equal(out, np.arange(32) ^ 1)
    assert (stats.barriers, stats.races, stats.race, stats.barriers_with_exited) == (1, 0, "", 0)


def test_shared_memory_starts_as_nan_in_every_block():
    out = np.zeros(64, np.float32)
    body = "ld.shared.u32 %r3, [tile]; st.shared.u32 [tile], 0; mad.lo.u32 %r4, %r2, 128, 0;"
    body += "cvt.u64.u32 %rd4, %r4; add.u64 %rd4, %rd4, %rd2; st.global.u32 [%rd4], %r3;"
    run(body.replace("st.shared", "bar.warp.sync -1; st.shared"), [out], grid=2, outside=SHARED)
    assert np.isnan(out).all()


def test_dynamic_shared_memory_follows_static_and_has_a_size():
    out = np.zeros(32, np.uint32)
    body = (
        "mov.u32 %r3, more; mov.u32 %r4, %dynamic_smem_size; add.u32 %r5, %r3, %r4; st.shared.u32 [tile], 1;"
    )
    body += "st.shared.u8 [%r5+-1], 1; st.global.u32 [%rd2], %r3;"
    run(body, [out], outside=SHARED, shared=40)
    assert set(out) == {128}
    with pytest.raises(PtxError, match="write of 1 bytes out of bounds: shared address 0xa8"):
        run(body.replace("+-1", "+0"), [out], outside=SHARED, shared=40)


def test_generic_addresses():
    out = np.zeros(32, np.uint32)
    body = """
    mov.u64 %rd3, tile; cvta.shared.u64 %rd4, %rd3; st.u32 [%rd4+4], 77; isspacep.shared %p1, %rd4;
    cvta.to.shared.u64 %rd5, %rd4; ld.shared.u32 %r3, [%rd5+4];
    isspacep.global %p2, %rd1; and.pred %p1, %p1, %p2;
    @%p1 st.u32 [%rd2], %r3;
    """
    run(body, [out], outside=SHARED)
    assert set(out) == {77}


def test_constant_and_global_variables():
    outside = ".const .align 4 .f32 table[3] = {0f3F800000, 2.5, -1.0};\n.global .align 4 .u32 one = 1;\n"
    outside += ".global .align 1 .b8 bytes[4] = {1, 2, 0x3, 255};\n"
    out = np.zeros(32, np.float32)
    body = """
    ld.const.f32 %f1, [table+4]; mov.u64 %rd3, table; cvta.const.u64 %rd3, %rd3; ld.f32 %f2, [%rd3+8];
    add.f32 %f1, %f1, %f2; ld.global.u32 %r3, [one]; cvt.rn.f32.u32 %f3, %r3; add.f32 %f1, %f1, %f3;
    ld.global.u8 %r4, [bytes+3]; cvt.rn.f32.u32 %f4, %r4; add.f32 %f1, %f1, %f4;
    st.global.f32 [%rd2], %f1;
    """
    run(body, [out], outside=outside)
    assert set(out) == {2.5 - 1 + 1 + 255}
    with pytest.raises(PtxError, match="write of 4 bytes in a read-only buffer"):
        run("mov.u64 %rd3, table; cvta.const.u64 %rd3, %rd3; st.u32 [%rd3], 0;", [out], outside=outside)


def test_local_memory_is_checked():
    out = np.zeros(32, np.uint32)
    body = """
    .local .align 4 .b8 depot[16];
    mov.u64 %rd3, depot; cvta.local.u64 %rd4, %rd3;
    st.local.u32 [%rd3+4], %r1; bar.sync 0; ld.u32 %r3, [%rd4+4]; st.global.u32 [%rd2], %r3;
    """
    run(body, [out])
    np.testing.assert_array_equal(out, np.arange(32))
    for access in (
        "st.local.u32 [%rd3+16], 0;",
        "ld.local.u32 %r3, [%rd3+-4];",
        "st.u32 [%rd4+16], 0;",
        "ld.local.v4.b64 {%rd5, %rd6, %rd7, %rd8}, [%rd3];",
    ):
        with pytest.raises(PtxError, match="out of bounds"):
            run(body + access, [out])


@pytest.mark.parametrize(
    ("access", "message"),
    [
        ("st.global.u32 [%rd1+128], 1;", "write of 4 bytes out of bounds: global address"),
        ("ld.global.u32 %r3, [%rd1+-4];", "read of 4 bytes out of bounds: global address"),
        ("ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd1+120];", "misaligned read of 16 bytes"),
        ("st.global.u32 [%rd1+2], 1;", "misaligned write of 4 bytes"),
        ("atom.global.add.u64 %rd3, [%rd1+4], 1;", "misaligned atomic operation of 8 bytes"),
        ("ld.shared.u32 %r3, [tile+128];", "read of 4 bytes out of bounds: shared address 0x80"),
        ("mov.u64 %rd3, 0; ld.u32 %r3, [%rd3];", "read of 4 bytes out of bounds: global address 0x0"),
        ("trap;", "trap executed"),
    ],
)
def test_faulty_accesses_name_line_and_thread(access, message):
    data = np.zeros(128, np.uint8).view(np.uint32)
    with pytest.raises(
        PtxError, match=rf'kernel: line \d+ ".*": {message}.* \(thread 0,0,0 of block 0,0,0\)'
    ):
        run(access, [data], outside=SHARED)


def test_a_read_only_array_is_not_written():
    data = np.zeros(32, np.uint32)
    data.flags.writeable = False
    run("ld.global.u32 %r3, [%rd2];", [data])
    for given in (data, (torch.zeros(32), False)):
        with pytest.raises(
            PtxError, match=r'"st.global.u32 \[%rd2\], 1": write of 4 bytes in a read-only buffer'
        ):
            run("st.global.u32 [%rd2], 1;", [given])
    run("st.global.u32 [%rd2], 1;", [(torch.zeros(32), True)])


def test_asynchronous_copies_are_there_when_waited_for():
    data, out = np.arange(1, 33, dtype=np.uint32), np.zeros((2, 32), np.uint32)
    body = """
    ld.param.u64 %rd3, [p1]; mad.wide.u32 %rd3, %r1, 4, %rd3; mov.u32 %r3, tile; mad.lo.u32 %r3, %r1, 4, %r3;
    st.shared.u32 [%r3], 0;
    cp.async.ca.shared.global [%r3], [%rd2], 4; cp.async.commit_group;
    ld.shared.u32 %r4, [%r3]; st.global.u32 [%rd3], %r4;
    cp.async.wait_group 0;
    ld.shared.u32 %r4, [%r3]; st.global.u32 [%rd3+128], %r4;
    """
    run(body, [data, out], outside=SHARED)
    np.testing.assert_array_equal(out, [np.zeros(32), data])
    run(body.replace("wait_group 0", "wait_group 1"), [data, out], outside=SHARED)
    np.testing.assert_array_equal(out[1], np.zeros(32))
    with pytest.raises(PtxError, match=r'"cp\.async.*, 4": read of 4 bytes out of bounds'):
        run(
            body.replace("[%rd2], 4;", "[%rd2+4], 4;").replace("cp.async.wait_group 0;", ""),
            [data, out],
            outside=SHARED,
        )
    with pytest.raises(PtxError, match=r"cp\.async of 4 bytes from a source of 5"):
        run(body.replace("[%rd2], 4;", "[%rd2], 4, 5;"), [data, out], outside=SHARED)
    # Fewer bytes than asked for: the rest is zero.
    run(body.replace("[%rd2], 4;", "[%rd2], 4, 1;"), [data, out], outside=SHARED)
    np.testing.assert_array_equal(out[1], data & 255)


def test_a_race_in_shared_memory():
    out = np.zeros(32, np.uint32)
    stats = run(ROTATE.replace("bar.sync 0;", ""), [out], outside=SHARED, race=True)
    assert stats.races > 0
    # Thread 0 runs first, and reads its neighbour's cell before the neighbour has written it.
    assert '"st.shared.u32 [%r5], %r1": write by thread 1 of block 0, not ordered with' in stats.race
    assert '"ld.shared.u32 %r8, [%r7]": read by thread 0 of block 0' in stats.race
    warp_barrier = ROTATE.replace("bar.sync 0;", "bar.warp.sync -1;")
    assert run(warp_barrier, [out], outside=SHARED, race=True).races == 0
    # A shuffle makes the lanes wait for each other, but promises nothing about memory.
    shuffle = ROTATE.replace("bar.sync 0;", "shfl.sync.idx.b32 %r9, %r1, 0, 31, -1;")
    assert run(shuffle, [out], outside=SHARED, race=True).races > 0
    # Lanes that meet in pairs are ordered in pairs: enough for the neighbour, not for the next pair.
    pairs = "and.b32 %r10, %r1, 30; shl.b32 %r11, 3, %r10; bar.warp.sync %r11;"
    assert run(ROTATE.replace("bar.sync 0;", pairs), [out], outside=SHARED, race=True).races == 0
    further = ROTATE.replace("bar.sync 0;", pairs).replace("xor.b32 %r6, %r4, 4", "xor.b32 %r6, %r4, 8")
    assert run(further, [out], outside=SHARED, race=True).races > 0


def test_a_warp_barrier_does_not_order_two_warps():
    out = np.zeros(64, np.uint32)
    body = ROTATE.replace("%r4, 4;", "%r4, 128;").replace("bar.sync 0;", "bar.warp.sync -1;")
    outside = SHARED.replace("128", "256")
    assert run(body, [out], threads=64, outside=outside, race=True).races > 0
    whole = body.replace("bar.warp.sync -1;", "barrier.sync.aligned 0;")
    assert run(whole, [out], threads=64, outside=outside, race=True).races == 0
    np.testing.assert_array_equal(out, np.arange(64) ^ 32)


def test_races_in_global_memory():
    data = np.zeros(64, np.uint32)
    assert run("st.global.u32 [%rd2], %r1;", [data], race=True).races == 0
    # The same value by all is forgiven; different ones are not, nor those of two blocks.
    assert run("st.global.u32 [%rd1], 7;", [data], grid=2, race=True).races == 0
    assert run("st.global.u32 [%rd1], %r1;", [data], race=True).races == 31
    stats = run("st.global.u32 [%rd2], %r2;", [data], grid=2, race=True)
    assert stats.races == 32 and "write by thread 0 of block 1, not ordered with" in stats.race
    assert run("st.global.u32 [%rd2], %r2;", [data], grid=2).races == 0
    # Who read it last does not matter: a write conflicts with every read before it.
    reads_then_write = "ld.global.u32 %r3, [%rd1]; setp.eq.u32 %p1, %r1, 31; @%p1 st.global.u32 [%rd1], 9;"
    assert run(reads_then_write, [data], race=True).races == 1
    assert run("red.global.add.u32 [%rd1], 1;", [data], race=True).races == 0
    # An atomic operation by one thread conflicts with reads and writes by all others.
    for access in ("ld.global.u32 %r3, [%rd1];", "st.global.u32 [%rd1], 5;"):
        body = f"setp.eq.u32 %p1, %r1, 0; @%p1 red.global.add.u32 [%rd1], 1; @!%p1 {access}"
        assert run(body, [data], race=True).races == (31 if "ld" in access else 1)


def test_a_race_through_two_views_of_one_buffer():
    data = np.zeros(40, np.uint32)
    body = "ld.param.u64 %rd3, [p1]; mad.wide.u32 %rd3, %r1, 4, %rd3; ld.global.u32 %r3, [%rd3];"
    body += "add.u32 %r3, %r3, %r1; st.global.u32 [%rd2], %r3;"
    assert run(body, [data[:32], data[1:33]], race=True).races > 0
    # Also where one view may be written and the other not.
    assert run(body, [data[1:33], (data[:32], False)], race=True).races > 0
    assert run(body, [data[1:33].copy(), (data[:32], False)], race=True).races == 0


def test_a_copy_that_is_not_waited_for_is_a_race():
    data = np.arange(32, dtype=np.uint32)
    body = """
    mov.u32 %r3, tile; mad.lo.u32 %r4, %r1, 4, %r3; cp.async.ca.shared.global [%r4], [%rd2], 4; {wait}
    bar.sync 0; xor.b32 %r5, %r4, 4; ld.shared.u32 %r6, [%r5]; bar.sync 0; cp.async.wait_all;
    """
    assert run(body.format(wait="cp.async.wait_all;"), [data], outside=SHARED, race=True).races == 0
    early = body.replace("bar.sync 0; cp.async.wait_all;", "cp.async.wait_all;")
    assert run(early.format(wait=""), [data], outside=SHARED, race=True).races > 0
    # The copy may be done at any time until it is waited for, so also before the second barrier.
    assert run(body.format(wait=""), [data], outside=SHARED, race=True).races > 0
