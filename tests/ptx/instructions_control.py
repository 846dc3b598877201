"""Branches, calls, barriers and what a warp's lanes do together, to C++."""

from . import datatypes
from .operation import Operation
from .parse import PtxError, split_list


def _jump(op: Operation, name: str) -> str:
    label, is_back = op.scope.label(name)
    return f"{f'jump_back(T, {op.number}); ' if is_back else ''}goto {label};"


def branch(op: Operation) -> str:
    op.ignore("uni")
    return _jump(op, op.text(0))


def branch_by_index(op: Operation) -> str:
    op.one_of("idx")
    op.ignore("uni")
    index = op.value(0, "u32")
    cases = " ".join(
        f"case {i}: {_jump(op, label)}" for i, label in enumerate(op.scope.branch_targets(op.text(1)))
    )
    return f"switch ({index}) {{ {cases} default: {_fail(op, 'the index of brx.idx is out of range')} }}"


def _fail(op: Operation, message: str) -> str:
    return f'T->statement = {op.number}; fail(T, "{message}");'


def leave(op: Operation) -> str:
    op.ignore("uni")
    return "return;" if op.opcode == "ret" else f"exit_thread(T, {op.number});"


def trap(op: Operation) -> str:
    return _fail(op, "trap executed")


def call(op: Operation) -> str:
    op.ignore("uni")
    operands = [op.text(i) for i in range(op.count)]
    results = split_list(operands.pop(0)[1:-1]) if operands[0].startswith("(") else ()
    name = operands[0]
    arguments = split_list(operands[1][1:-1]) if len(operands) > 1 else ()
    if len(operands) > 2:
        raise PtxError("a call through a pointer")
    if name == "__assertfail":
        return _fail(op, "a device assertion failed")
    return op.scope.call(name, results + arguments)


def fence(op: Operation) -> str:
    """Here each thread sees at once what others wrote. To the race detector it orders nothing."""
    op.ignore("cta", "gl", "sys", "gpu", "sc", "acq_rel", "acquire", "release")
    return ""


def sleep(op: Operation) -> str:
    op.value(0, "u32")
    return f"T->statement = {op.number}; yield(T);"


def dependent_launch(op: Operation) -> str:
    """griddepcontrol: about the kernels before and after, of which there are none."""
    op.one_of("wait", "launch_dependents")
    return ""


def barrier(op: Operation) -> str:
    if op.flag("warp"):
        op.one_of("sync")
        return f"collective(T, {op.number}, Collective::warp_barrier, {op.value(0, 'u32')});"
    op.ignore("cta")
    is_aligned = op.opcode == "bar" or op.flag("aligned")
    aligned = str(is_aligned).lower()
    if op.one_of("sync", "red") == "sync":
        count = op.value(1, "u32") if op.count > 1 else "0"
        return f"barrier(T, {op.number}, {aligned}, {op.value(0, 'u32')}, {count});"
    kind = op.one_of("popc", "and", "or")
    last = op.count - 1
    count = op.value(2, "u32") if op.count > 3 else "0"
    combined = {"popc": "popc", "and": "all", "or": "any"}[kind]
    predicate = f"BarrierResult::{combined}, {op.value(last, 'pred')}"
    wait = f"barrier(T, {op.number}, {aligned}, {op.value(1, 'u32')}, {count}, {predicate});"
    return f"{wait} {op.assign(0, 'u32' if kind == 'popc' else 'pred', 'T->result')}"


def _collective(op: Operation, kind: str, mask: str, *values: str) -> str:
    return f"collective(T, {', '.join([str(op.number), f'Collective::{kind}', mask, *values])})"


def _with_predicate(op: Operation, type_: str, call: str) -> str:
    """A collective whose destination is d or d|p."""
    result, predicate = op.pair(0)
    code = f"const u32 result = {call}; {op.assign_to(result, type_, 'result')}"
    return code + (f" {op.assign_to(predicate, 'pred', 'T->predicate')}" if predicate else "")


def shuffle(op: Operation) -> str:
    op.one_of("sync")
    kind = op.one_of("up", "down", "bfly", "idx")
    value, lane, clamp, mask = op.value(1, "b32"), *(op.value(i, "u32") for i in (2, 3, 4))
    exchange = f"shuffle(T, {op.number}, Collective::shuffle_{kind}, {mask}, {value}, {lane}, {clamp})"
    return _with_predicate(op, "b32", exchange)


def vote(op: Operation) -> str:
    op.one_of("sync")
    kind = op.one_of("all", "any", "uni", "ballot")
    call = _collective(op, f"vote_{kind}", op.value(2, "u32"), op.value(1, "pred"))
    return op.assign(0, "b32" if kind == "ballot" else "pred", call)


def match(op: Operation) -> str:
    op.one_of("sync")
    kind = op.one_of("any", "all")
    bits = f"b{datatypes.width(op.type)}"
    value = op.value(1, bits)
    call = _collective(op, f"match_{kind}", op.value(2, "u32"), f"u32({value})", f"u32(u64({value}) >> 32)")
    return _with_predicate(op, "b32", call)


def reduce(op: Operation) -> str:
    op.one_of("sync")
    kind = op.one_of("add", "min", "max", "and", "or", "xor")
    value = op.value(1, "b32")
    if kind in ("min", "max"):
        kind += "_s" if datatypes.is_signed(op.type) else "_f" if op.type == "f32" else "_u"
    elif op.type == "f32":
        raise PtxError("redux of .f32 by .min and .max only")
    if op.type == "f32":
        value = f"{value} & 0x7fffffffu" if op.flag("abs") else value
        kind += "_nan" if op.flag("NaN") else ""
    return op.assign(0, "b32", _collective(op, f"reduce_{kind}", op.value(2, "u32"), value))


def elect(op: Operation) -> str:
    op.one_of("sync")
    return _with_predicate(op, "b32", _collective(op, "elect", op.value(1, "u32")))


def active_mask(op: Operation) -> str:
    """Any set of lanes that run together may be the answer; the lane by itself is the smallest."""
    return op.assign(0, "b32", "1u << T->lane")


TRANSLATORS = {
    "bra": branch,
    "brx": branch_by_index,
    **dict.fromkeys(("ret", "exit"), leave),
    "trap": trap,
    "call": call,
    **dict.fromkeys(("membar", "fence"), fence),
    "nanosleep": sleep,
    "griddepcontrol": dependent_launch,
    **dict.fromkeys(("bar", "barrier"), barrier),
    "shfl": shuffle,
    "vote": vote,
    "match": match,
    "redux": reduce,
    "elect": elect,
    "activemask": active_mask,
}

# After these, what follows may not be executed.
ENDS_OF_BLOCKS = ("bra", "brx", "ret", "exit", "trap")
