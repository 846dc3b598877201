"""Branches, calls, exits and barriers; deadlocks, endless loops; what is refused."""

import numpy as np
import pytest

from . import PtxError, load
from .edit import barriers, without_barrier
from .snippets import HEADER, kernel_text

START = "ld.param.u64 %rd1, [p0]; mov.u32 %r1, %tid.x; mad.wide.u32 %rd2, %r1, 4, %rd1;"


def run(body, out, threads=32, outside="", **options):
    """Runs a body that finds its thread in %r1; what it leaves in %r9 goes to out[thread]."""
    text = kernel_text(f"{START} mov.u32 %r9, 0; {body} st.global.u32 [%rd2], %r9; ret;", outside=outside)
    return load(text)(1, threads, [out], **options)


@pytest.fixture
def out():
    return np.zeros(64, np.uint32)


def test_a_loop_that_each_thread_leaves_on_its_own(out):
    stats = run("LOOP: add.u32 %r9, %r9, 3; setp.lt.u32 %p1, %r9, %r1; @%p1 bra LOOP;", out)
    np.testing.assert_array_equal(out[:32], [max(3, -(-i // 3) * 3) for i in range(32)])
    # Four instructions in front, a store and a return behind, three each time around.
    assert stats.instructions == sum(6 + 3 * max(1, -(-i // 3)) for i in range(32))


def test_a_branch_by_index(out):
    body = """
    and.b32 %r2, %r1, 3;
    TABLE: .branchtargets ONE, TWO, THREE;
    setp.eq.u32 %p1, %r2, 3; @%p1 bra END;
    brx.idx %r2, TABLE;
    ONE: mov.u32 %r9, 11; bra END;
    TWO: mov.u32 %r9, 22; bra.uni END;
    THREE: mov.u32 %r9, 33;
    END:
    """
    run(body, out)
    assert list(out[:8]) == [11, 22, 33, 0] * 2
    with pytest.raises(PtxError, match=r"the index of brx.idx is out of range \(thread 3,0,0"):
        run(body.replace("@%p1 bra END;", ""), out)


def test_scopes_have_registers_and_labels_of_their_own(out):
    part = "{ .reg .u32 t; mov.u32 t, %r1; setp.gt.u32 %p1, t, 5; @%p1 bra SKIP; add.u32 %r9, %r9, 1; SKIP: }"
    run(part + part, out)
    assert list(out[:8]) == [2] * 6 + [0] * 2


FUNCTIONS = """
.func (.param .b32 result) twice(.param .b32 x)
{
    .reg .b32 %r<3>;
    ld.param.b32 %r1, [x]; add.u32 %r2, %r1, %r1; st.param.b32 [result], %r2; ret;
}
.func (.param .align 8 .b8 result[16]) mixed(.param .b32 x, .param .align 8 .b8 pair[16])
{
    .local .align 8 .b8 depot[64];
    .reg .b32 %r<9>; .reg .b64 %rd<3>;
    ld.param.b32 %r1, [x]; ld.param.v2.b32 {%r2, %r3}, [pair+8];
    st.local.b32 [depot+60], %r2; ld.local.b32 %r2, [depot+60];
    {
        .param .b32 give; .param .b32 take;
        st.param.b32 [give], %r1;
        call.uni (take), twice, (give);
        ld.param.b32 %r4, [take];
    }
    add.u32 %r4, %r4, %r2;
    st.param.v2.b32 [result+8], {%r4, %r3};
    ret;
}
"""


def test_calls_of_functions(out):
    body = """
    {
        .param .b32 x; .param .align 8 .b8 pair[16]; .param .align 8 .b8 result[16];
        st.param.b32 [x], %r1;
        st.param.b32 [pair+8], 1000; st.param.b32 [pair+12], 7;
        call.uni (result), mixed, (x, pair);
        ld.param.v2.b32 {%r2, %r3}, [result+8];
        mad.lo.u32 %r9, %r3, 100000, %r2;
    }
    """
    run(body, out, outside=FUNCTIONS)
    np.testing.assert_array_equal(out[:32], 701000 + 2 * np.arange(32))
    with pytest.raises(PtxError, match=r"twice calls itself"):
        run(body, out, outside=FUNCTIONS.replace("add.u32 %r2, %r1, %r1", "call (result), twice, (x)"))
    with pytest.raises(PtxError, match="no function absent in the module"):
        run(body.replace("mixed", "absent"), out, outside=FUNCTIONS)
    with pytest.raises(PtxError, match=r"pair is not a \.param variable of 24 bytes"):
        run(body, out, outside=FUNCTIONS.replace("pair[16]", "pair[24]"))
    with pytest.raises(PtxError, match=r'"st.param.b32 \[pair\+12\], 7": 4 bytes at pair\+12, which has 12'):
        run(body.replace("pair[16]", "pair[12]"), out, outside=FUNCTIONS)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_barriers_that_count_and_vote(order, out):
    body = """
    setp.lt.u32 %p1, %r1, 40;
    bar.red.popc.u32 %r2, 0, %p1;
    bar.red.and.pred %p2, 0, 64, %p1; selp.u32 %r3, 100, 0, %p2;
    barrier.red.or.pred %p3, 1, %p1; selp.u32 %r4, 1000, 0, %p3;
    add.u32 %r9, %r2, %r3; add.u32 %r9, %r9, %r4;
    """
    stats = run(body, out, threads=64, order=order)
    assert set(out) == {1040} and stats.barriers == 3


def test_a_barrier_of_some_warps(out):
    body = "setp.ge.u32 %p1, %r1, 32; @%p1 bra END; barrier.sync 3, 32; mov.u32 %r9, 1; END:"
    stats = run(body, out, threads=64)
    assert list(out) == [1] * 32 + [0] * 32 and stats.barriers == 1 and stats.barriers_with_exited == 0


def test_a_barrier_that_a_thread_never_reaches(out):
    body = "setp.eq.u32 %p1, %r1, 5; LOOP: @%p1 bra LOOP; bar.sync 0;"
    with pytest.raises(
        PtxError, match=r'line \d+ "@%p1 bra LOOP": the thread seems to loop for ever \(thread 5,0,0'
    ):
        run(body, out)
    body = "setp.lt.u32 %p1, %r1, 32; @%p1 bra END; bar.sync 0, 64; END:"
    with pytest.raises(PtxError, match=r'32 threads wait:\n  thread 32 at line \d+ "bar.sync 0, 64"'):
        run(body, out, threads=64)


def test_barriers_after_an_exit_are_counted(out):
    stats = run("setp.eq.u32 %p1, %r1, 5; @%p1 exit; bar.sync 0; mov.u32 %r9, 1;", out)
    assert stats.barriers == 1 and stats.barriers_with_exited == 1
    assert list(out[:7]) == [1, 1, 1, 1, 1, 0, 1]


def test_a_warp_at_two_aligned_barriers(out):
    body = "setp.lt.u32 %p1, %r1, 16; @%p1 bra ONE; {0} 0; bra END; ONE: {0} 0; END:"
    with pytest.raises(PtxError, match="threads of one warp are at different aligned barriers"):
        run(body.format("bar.sync"), out)
    assert run(body.format("barrier.sync"), out).barriers == 1


def test_a_thread_that_waits_for_a_later_one(out):
    """Threads run on their own: one that spins on a flag lets the others run meanwhile."""
    body = """
    setp.ne.u32 %p1, %r1, 0; @%p1 bra OTHERS;
    SPIN: ld.volatile.global.u32 %r2, [%rd1+124]; setp.eq.u32 %p2, %r2, 0; @%p2 bra SPIN;
    mov.u32 %r9, 5; bra END;
    OTHERS: mov.u32 %r9, 1;
    END:
    """
    run(body, out)
    assert out[0] == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wgmma.fence.sync.aligned;", '"wgmma.fence.sync.aligned": this instruction is not supported'),
        ("add.foo.u32 %r1, %r1, %r1;", "the modifier .foo is not supported here"),
        ("add.rn.u32 %r1, %r1, %r1;", "the modifier .rn is not supported here"),
        ("prmt.b32.f4e %r1, %r1, %r1, %r1;", "the modifier .f4e is not supported here"),
        ("add.u32 %r1, %r1, %r1, %r1;", "the operand %r1 is not supported here"),
        ("add.u32 %r1, %r1;", "3 operands expected, 2 given"),
        ("add.u32 %r1, %r1, %r99;", "%r99 is not known"),
        ("add.u64 %r1, %rd1, %rd1;", "%r1 cannot hold .u64"),
        ("add.f128 %rd1, %rd1, %rd1;", "none of .f128 is a type that is supported"),
        ("mov.u32 %r1, %clusterid.x;", "%clusterid.x is not known"),
        ("setp.lt.f16x2 %p1|%p2, %r1, %r2;", "comparison of two packed values"),
        ("bar.arrive 0, 64;", "expected one of .sync, .red"),
        ("ld.global.u32 %r1, %rd1;", "the address %rd1 is not understood"),
        ("bra NOWHERE;", "no label NOWHERE"),
        ("cp.async.bulk.commit_group;", "the modifier .bulk is not supported here"),
        ("tex.2d.v4.f32.s32 {%f1, %f2, %f3, %f4}, [t, {%r1, %r2}];", "this instruction is not supported"),
        ("add.u32 %r1, %r1, %p1;", "%p1 is a predicate"),
    ],
)
def test_refused_with_line_and_name(text, message):
    with pytest.raises(PtxError) as error:
        load(kernel_text(f"ret;\n    {text}"))
    assert message in str(error.value) and str(error.value).startswith("line 12:")


def test_text_that_is_not_ptx():
    with pytest.raises(PtxError, match="line 4: not understood: int main"):
        load(HEADER + "int main() { return 0; };")


def test_barriers_are_found_and_taken_out(out):
    body = "bar.sync 0; // not this: bar.sync 9;\n bar.warp.sync -1;\n @%p1 barrier.sync.aligned 1, 64;\n"
    body += "bar.red.popc.u32 %r2, 0, %p1;"
    text = kernel_text(body)
    lines = text.splitlines()
    places = barriers(text)
    assert [lines[line - 1].split(";")[0].split(".")[0].split()[-1] for line in places] == [
        "bar",
        "bar",
        "barrier",
        "bar",
    ]
    assert places == list(range(places[0], places[0] + 4))
    for n in range(3):
        rest = without_barrier(text, n)
        assert barriers(rest) == places[:n] + places[n + 1 :] and rest.count("\n") == text.count("\n")
        load(rest)
    with pytest.raises(ValueError, match="computes something"):
        without_barrier(text, 3)
    with pytest.raises(IndexError):
        without_barrier(text, 4)
