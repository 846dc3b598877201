"""What the lanes of a warp do together: shuffles, votes, matches, reductions, against their definitions."""

import numpy as np
import pytest

from . import PtxError, load
from .snippets import kernel_text

LANES = np.arange(32)
FULL = 0xFFFFFFFF


def run_warp(text, values, extra=(0, 0), **options):
    """What instructions leave in %r2 and %p1 in every lane.

    They find the lane's value in %r1, whether it is not zero in %p2, two numbers for all in %r8 and %r9.
    """
    values = np.asarray(values, np.uint32)
    results = np.zeros((2, len(values)), np.uint32)
    body = f"""
    ld.param.u64 %rd1, [p0];
    ld.param.u64 %rd2, [p1];
    ld.param.u32 %r8, [p2];
    ld.param.u32 %r9, [p3];
    mov.u32 %r0, %tid.x;
    mad.wide.u32 %rd1, %r0, 4, %rd1;
    mad.wide.u32 %rd2, %r0, 4, %rd2;
    ld.global.b32 %r1, [%rd1];
    mov.b32 %r2, 0;
    mov.u32 %r10, %ntid.x;
    setp.ne.u32 %p1, %r0, %r0;
    setp.ne.u32 %p2, %r1, 0;
    {text}
    selp.b32 %r3, 1, 0, %p1;
    st.global.b32 [%rd2], %r2;
    mad.wide.u32 %rd2, %r10, 4, %rd2;
    st.global.b32 [%rd2], %r3;
    ret;"""
    kernel = load(kernel_text(body, ("u64", "u64", "u32", "u32")))
    stats = kernel(1, len(values), [values, results, *extra], **options)
    return results[0], results[1].astype(bool), stats


@pytest.fixture
def values():
    return np.random.default_rng(2).integers(0, 2**32, 32, np.uint32)


@pytest.mark.parametrize("width", [32, 8, 4])
@pytest.mark.parametrize("amount", [0, 1, 3, 31])
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffle(mode, amount, width, values):
    """Reads what CUDA's __shfl functions of this width read: its own lane where that is out of range."""
    clamp = (32 - width) << 8 | (0 if mode == "up" else 31)
    first, position = LANES // width * width, LANES % width
    source = {
        "up": LANES - amount,
        "down": LANES + amount,
        "bfly": LANES ^ amount,
        "idx": first + amount % width,
    }[mode]
    inside = (source >= first) & (source < first + width)
    if mode == "bfly":
        inside = source < first + width  # PTX lets a butterfly reach down, not up
    text = f"shfl.sync.{mode}.b32 %r2|%p1, %r1, %r8, %r9, -1;"
    got, in_range, stats = run_warp(text, values, extra=(amount, clamp))
    np.testing.assert_array_equal(got, values[np.where(inside, source, LANES)])
    np.testing.assert_array_equal(in_range, inside)
    assert stats.collectives == 1 and position.max() == width - 1


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_butterfly_sums_a_warp_in_any_order_of_threads(order, values):
    text = "mov.b32 %r2, %r1;"
    for step in (16, 8, 4, 2, 1):
        text += f"shfl.sync.bfly.b32 %r3, %r2, {step}, 31, -1; add.u32 %r2, %r2, %r3;"
    got, _, stats = run_warp(text, values, order=order)
    assert set(got) == {values.sum(dtype=np.uint32)}
    assert stats.collectives == 5 and stats.collectives_with_exited == 0


@pytest.mark.parametrize("values", [np.zeros(32), np.ones(32), LANES % 3 == 0], ids=["none", "all", "some"])
def test_votes(values):
    votes = np.asarray(values, bool)
    for kind, want in (("all", votes.all()), ("any", votes.any()), ("uni", votes.all() or not votes.any())):
        _, got, _ = run_warp(f"vote.sync.{kind}.pred %p1, %p2, -1;", values)
        assert set(got) == {want}, kind
    ballot, _, _ = run_warp("vote.sync.ballot.b32 %r2, !%p2, -1;", values)
    assert set(ballot) == {sum(1 << lane for lane in LANES if not votes[lane])}


def test_votes_of_two_halves_of_a_warp(values):
    text = (
        "setp.lt.u32 %p3, %r0, 16; selp.b32 %r5, 0xFFFF, 0xFFFF0000, %p3; vote.sync.ballot.b32 %r2, %p2, %r5;"
    )
    got, _, stats = run_warp(text, LANES % 2)
    assert set(got[:16]) == {0xAAAA} and set(got[16:]) == {0xAAAA0000} and stats.collectives == 2


REDUCTIONS = {
    "add.u32": lambda x: x.sum(dtype=np.uint32),
    "min.u32": np.min,
    "max.s32": lambda x: x.view(np.int32).max(),
    "min.s32": lambda x: x.view(np.int32).min(),
    "max.u32": np.max,
    "and.b32": np.bitwise_and.reduce,
    "or.b32": np.bitwise_or.reduce,
    "xor.b32": np.bitwise_xor.reduce,
}


def test_integer_reductions(values):
    values |= np.uint32(0x00100000)
    for kind, reduction in REDUCTIONS.items():
        got, _, _ = run_warp(f"redux.sync.{kind} %r2, %r1, -1;", values)
        assert set(got) == {np.uint32(int(reduction(values)) % 2**32)}, kind


def test_reductions_of_floats():
    values = np.random.default_rng(4).normal(size=32).astype(np.float32)
    values[7] = np.nan
    for kind, want in (
        ("max", np.nanmax(values)),
        ("min", np.nanmin(values)),
        ("max.abs", np.nanmax(np.abs(values))),
        ("min.NaN", np.nan),
    ):
        got, _, _ = run_warp(f"redux.sync.{kind}.f32 %r2, %r1, -1;", values.view(np.uint32))
        np.testing.assert_array_equal(got.view(np.float32), np.full(32, want, np.float32))


def test_matches():
    values = LANES % 5
    any_, _, _ = run_warp("match.any.sync.b32 %r2, %r1, -1;", values)
    assert list(any_) == [sum(1 << i for i in LANES if i % 5 == lane % 5) for lane in LANES]
    for given, want in ((values, 0), (np.full(32, 9), FULL)):
        all_, equal, _ = run_warp("match.all.sync.b32 %r2|%p1, %r1, -1;", given)
        assert set(all_) == {want} and set(equal) == {want != 0}


def test_one_lane_is_elected():
    got, elected, _ = run_warp("elect.sync %r2|%p1, -1;", LANES)
    assert len(set(got)) == 1 and list(np.flatnonzero(elected)) == [got[0]]


def test_a_mask_that_lacks_the_calling_lane():
    with pytest.raises(
        PtxError, match=r"line \d+ .vote.sync.any.*the mask 0xffff lacks the lane that calls, 16"
    ):
        run_warp("vote.sync.any.pred %p1, %p2, 0xFFFF;", LANES)


def test_a_shuffle_from_outside_the_mask():
    text = "setp.ge.u32 %p3, %r0, 16; @%p3 bra OTHERS; shfl.sync.down.b32 %r2, %r1, 8, 31, 0xFFFF; OTHERS:"
    with pytest.raises(
        PtxError, match="shuffle reads lane 16, which is not in the mask 0xffff or has exited"
    ):
        run_warp(text, LANES)


def test_a_shuffle_from_a_lane_that_has_exited():
    text = "setp.ge.u32 %p3, %r0, 16; @%p3 exit; shfl.sync.bfly.b32 %r2, %r1, 16, 31, -1;"
    with pytest.raises(
        PtxError, match="shuffle reads lane 16, which is not in the mask 0xffffffff or has exited"
    ):
        run_warp(text, LANES)


def test_collectives_without_exited_lanes_are_counted():
    text = "setp.ge.u32 %p3, %r0, 16; @%p3 exit; vote.sync.ballot.b32 %r2, %p2, -1;"
    got, _, stats = run_warp(text, np.ones(32))
    assert set(got[:16]) == {0xFFFF} and stats.collectives_with_exited == 1


def test_lanes_that_wait_with_different_masks_never_meet():
    text = "setp.lt.u32 %p3, %r0, 16; selp.b32 %r5, -1, 0xFFFF0000, %p3;"
    text += "vote.sync.ballot.b32 %r2, %p2, %r5; bar.warp.sync -1;"
    with pytest.raises(
        PtxError, match=r"deadlock in block 0, 32 threads wait:\n  thread 0 at line \d+ .vote"
    ):
        run_warp(text, LANES)


def test_a_warp_that_is_not_full():
    got, _, stats = run_warp("vote.sync.ballot.b32 %r2, %p2, -1;", np.ones(20))
    assert set(got) == {(1 << 20) - 1} and stats.collectives_with_exited == 0
