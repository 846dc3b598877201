"""Reading compiled GPU code: instructions, pipes, loops and the ways through a kernel."""

import pytest
from listings import HEAD, listing

from gpu_model import flow as flows
from gpu_model import sass


def flow_of(*lines: str) -> flows.Flow:
    (function,) = sass.parse(listing(*lines))
    return flows.Flow(function)


def once(flow: flows.Flow, heads=(), inside=()):
    """Instructions of the longest way from the start to the end through some blocks, others not counted."""
    free = dict.fromkeys(inside, 0.0)
    return flow.counts(flow.through(0, heads, flow.exits, times=free), free)


# The second of these loops has a branch in it: four instructions a turn, or six.
TWO_LOOPS = (
    "LDC R1, c[0x0][0x28]",
    "S2R R0, SR_TID.X",
    ".L_x_0:",
    "LDS.128 R4, [UR5]",
    "UIADD3 UR4, UR4, 0x4, URZ",
    "FSETP.GEU.AND P2, PT, |R5|, R4, PT",
    "@!P0 BRA `(.L_x_0)",
    "BAR.SYNC.DEFER_BLOCKING 0x0",
    ".L_x_1:",
    "FFMA R4, R4, R13, R5",
    "@P1 BRA `(.L_x_2)",
    "MUFU.LG2 R4, R4",
    "@P3 FADD R4, R4, 1",
    ".L_x_2:",
    "SHFL.BFLY PT, R5, R4, 0x1, 0x1f",
    "BRA.U !UP0, `(.L_x_1)",
    "@P0 EXIT",
    "STG.E.64 desc[UR6][R2.64], R4",
    "EXIT",
    ".L_x_3:",
    "BRA `(.L_x_3)",
)


def test_instructions_are_read():
    (function,) = sass.parse(listing(*TWO_LOOPS))
    assert (function.name, function.architecture) == ("kernel", "sm_90")
    assert len(function.instructions) == 17
    assert function.labels == {
        "kernel": 0,
        ".text.kernel": 0,
        ".L_x_0": 0x20,
        ".L_x_1": 0x70,
        ".L_x_2": 0xB0,
        ".L_x_3": 0x100,
    }
    load = function.instructions[2]
    assert (load.opcode, load.modifiers, load.operands) == ("LDS", ".128", "R4, [UR5]")
    assert (load.pipe, load.access_bytes) == ("shared", 16)
    branch = function.instructions[5]
    assert (branch.predicate, branch.opcode, branch.target) == ("!P0", "BRA", ".L_x_0")
    assert function.instructions[14].access_bytes == 8


@pytest.mark.parametrize(
    ("text", "pipe"),
    [
        ("FADD R1, R2, R3", "float32"),
        ("HFMA2.MMA R14, -RZ, RZ, 0, 0", "float32"),
        ("IMAD.WIDE.U32 R4, R2, -0x326172a9, RZ", "integer multiply"),
        ("IMAD.MOV.U32 R4, RZ, RZ, R2", "integer multiply"),
        ("LOP3.LUT R8, R9, UR11, R3, 0x96, !PT", "alu"),
        ("FSETP.GT.AND P1, PT, R27.reuse, -0.0625, PT", "alu"),
        ("MUFU.EX2 R33, R22", "special"),
        ("DFMA R2, R4, R6, R8", "float64"),
        ("STS [R11], R2", "shared"),
        ("LDG.E.CONSTANT R2, desc[UR12][R2.64]", "global"),
        ("SHFL.BFLY PT, R5, R4, 0x1, 0x1f", "shuffle"),
        ("UIMAD.WIDE.U32 UR6, UR4, -0x2daee0ad, URZ", "uniform"),
        ("R2UR UR10, R4", "uniform"),
        ("BSSY B0, `(.L_x_0)", "control"),
        ("LDC R1, c[0x0][0x28]", "other"),
    ],
)
def test_pipes(text, pipe):
    (function,) = sass.parse(listing(text))
    assert function.instructions[0].pipe == pipe


def test_unknown_instructions_are_named():
    with pytest.raises(sass.CodeError, match=r"QUUX\.F32 at 0x10"):
        once(flow_of("FADD R1, R2, R3", "QUUX.F32 R1, R2", "EXIT"))


def test_unreadable_lines_are_shown():
    with pytest.raises(sass.CodeError, match="lower case"):
        sass.parse(HEAD + "        /*0000*/   lower case R1 ;\n")


def test_loops_and_the_ways_through_them():
    flow = flow_of(*TWO_LOOPS)
    first, second = flow.loops
    assert (first.begin, first.end, first.slots, first.shortest) == (0x20, 0x50, 4, 4)
    assert first.turn == {"shared": 1, "uniform": 1, "alu": 1, "control": 1}
    assert (second.begin, second.slots, second.shortest) == (0x70, 6, 4)
    assert second.turn == {"float32": 2, "special": 1, "shuffle": 1, "control": 2}
    # Outside: two before, the barrier, and three at the end; the endless loop behind EXIT is never reached.
    heads, inside = [first.head, second.head], first.blocks | second.blocks
    assert once(flow, heads, inside) == {"other": 2, "control": 3, "global": 1}
    assert flow.through(0, heads, flow.exits, second.blocks) is None


def test_a_loop_within_a_loop_is_left_by_the_outer_head():
    """The outer loop tests at its top, so the only forward way out of the inner one leads past that test."""
    flow = flow_of(
        ".L_x_0:",
        "ISETP.GE.AND P0, PT, R0, R1, PT",
        "@P0 BRA `(.L_x_2)",
        "MOV R2, R3",
        ".L_x_1:",
        "FADD R2, R2, R3",
        "@P1 BRA `(.L_x_1)",
        "BRA `(.L_x_0)",
        ".L_x_2:",
        "STG.E [R4.64], R2",
        "EXIT",
    )
    outer, inner = flow.loops
    assert (outer.innermost, inner.innermost) == (False, True)
    assert once(flow, [inner.head], inner.blocks) == {"alu": 2, "control": 3, "global": 1}


def test_a_kernel_may_end_under_a_condition_alone():
    flow = flow_of("MOV R1, R2", ".L_x_0:", "FADD R1, R2, R3", "@P0 EXIT", "BRA `(.L_x_0)")
    assert once(flow) == {"alu": 1, "float32": 1, "control": 1}


def test_calls_that_never_return_are_jumps():
    never = flow_of(
        "CALL.REL.NOINC `(.L_x_0)", "FADD R1, R2, R3", "EXIT", ".L_x_0:", "MUFU.RCP R1, R1", "EXIT"
    )
    assert once(never) == {"control": 2, "special": 1}
    returns = flow_of(
        "CALL.REL.NOINC `(.L_x_0)",
        "FADD R1, R2, R3",
        "EXIT",
        ".L_x_0:",
        "MUFU.RCP R1, R1",
        "RET.REL.NODEC R2 `(kernel)",
    )
    assert once(returns) == {"control": 2, "float32": 1}


def test_computed_jumps_lead_to_every_label_that_is_listed():
    lines = ".L_x_0:", "FADD R1, R2, R3", "FADD R1, R2, R3", ".L_x_1:", "MUFU.RCP R1, R1", "EXIT"
    flow = flow_of('BRX R2 -0xaf0 (*"BRANCH_TARGETS .L_x_0,.L_x_1"*)', "DADD R2, R2, R4", *lines)
    assert once(flow) == {"control": 2, "float32": 2, "special": 1}
    shortest = flow.counts(flow.through(0, [], flow.exits, sign=-1))
    assert shortest == {"control": 2, "special": 1}
    with pytest.raises(sass.CodeError, match=r"computed jump \(BRX\) at 0x0"):
        flow_of("BRX R2 -0xaf0", *lines)


def test_diverged_warps_do_not_count():
    flow = flow_of("BRA.DIV UR4, `(.L_x_0)", "FADD R1, R2, R3", "EXIT", ".L_x_0:", "FMUL R1, R2, R3", "EXIT")
    assert once(flow) == {"control": 2, "float32": 1}
    assert len(flow.exits) == 1


@pytest.mark.parametrize(
    ("counts", "blocks"),
    [((10, 10), 1), ((9, 9), 1), ((8, 10), 1), ((18, 19), 2), ((32, 33), 4), ((40, 40), 4)],
)
def test_blocks_of_philox(counts, blocks):
    assert flows.philox_blocks(counts) == blocks


@pytest.mark.parametrize("counts", [(7, 7), (10, 20), (0, 9), (15, 15), (1, 1)])
def test_multiplications_that_are_no_blocks_of_philox_are_refused(counts):
    with pytest.raises(sass.CodeError, match="no whole number"):
        flows.philox_blocks(counts)
