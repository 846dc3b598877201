"""Loads, stores, atomic operations, asynchronous copies and address spaces to C++."""

from . import datatypes
from .instructions_float import each_half
from .operation import Operation
from .parse import PtxError

_SPACES = ("global", "shared", "local", "param", "const")
# Modifiers about caches, and about the order in which others see an access. There is no cache here, and one
# thread runs at a time, until it waits for others.
_CACHING = (
    *("ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc"),
    *(
        f"L1::{word}"
        for word in ("evict_normal", "evict_unchanged", "evict_first", "evict_last", "no_allocate")
    ),
    *(f"L2::{word}" for word in ("64B", "128B", "256B", "evict_normal", "evict_first", "evict_last")),
)
_ORDERING = ("weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys")


def _space(op: Operation, named: str | None) -> str:
    """The state space of an access; named: that of the variable in the address."""
    space = op.one_of(*_SPACES, *(f"{space}::cta" for space in ("shared", "param")), default="")
    return named or space.removesuffix("::cta") or "generic"


def _cpp_space(space: str) -> str:
    return f"Space::{'constant' if space == 'const' else space}"


def _vector_length(op: Operation) -> int:
    return int(op.one_of("v2", "v4", "v8", default="v1")[1:])


def _cache_policy(op: Operation, index: int) -> None:
    if op.flag("L2::cache_hint"):
        op.text(index)


def load(op: Operation) -> str:
    op.ignore(*_CACHING, *_ORDERING)
    count, size = _vector_length(op), datatypes.size(op.type)
    named, address = op.address(1, size * count)
    space = _space(op, named)
    _cache_policy(op, 2)
    type_ = op.type if datatypes.is_integer(op.type) else f"b{datatypes.width(op.type)}"
    cell = datatypes.memory(type_)
    names = op.vector(0)
    if len(names) != count:
        raise PtxError(f"{count} destinations expected")
    if named == "param":
        code = f"const {cell} *const at = (const {cell} *)({address});"
    else:
        total = size * count
        where = f"T, {_cpp_space(space)}, {address}, {total}, {total}, {op.number}, Access::read"
        code = f"const {cell} *const at = (const {cell} *)checked({where});"
    values = f"const {cell} " + ", ".join(f"x{i} = at[{i}]" for i in range(count)) + ";" if count > 1 else ""
    parts = [op.assign_to(name, type_, f"x{i}" if count > 1 else "*at") for i, name in enumerate(names)]
    return " ".join([code, values, *parts])


def store(op: Operation) -> str:
    op.ignore(*_CACHING, *_ORDERING)
    count, size = _vector_length(op), datatypes.size(op.type)
    named, address = op.address(0, size * count)
    space = _space(op, named)
    _cache_policy(op, 2)
    cell = datatypes.unsigned(op.type)
    values = [op.value_of(value, f"b{datatypes.width(op.type)}") for value in op.vector(1)]
    if len(values) != count:
        raise PtxError(f"{count} values expected")
    array = f"const {cell} x[] = {{{', '.join(f'{cell}({value})' for value in values)}}};"
    if named == "param":
        return f"{array} __builtin_memcpy((u8 *)({address}), x, {size * count});"
    return f"{array} store(T, {_cpp_space(space)}, {address}, x, {size * count}, {op.number});"


def atomic(op: Operation) -> str:
    """atom, red. The blocks run one after another, the threads one at a time: a plain update is atomic."""
    op.ignore(*_CACHING, *_ORDERING, "noftz")
    first = 0 if op.opcode == "red" else 1
    named, address = op.address(first)
    space = _space(op, named)
    kind = op.one_of("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")
    last = first + (2 if kind == "cas" else 1)
    _cache_policy(op, last + 1)
    type_ = op.type
    cell, size = datatypes.memory(type_), datatypes.size(type_)
    where = f"T, {_cpp_space(space)}, {address}, {size}, {size}, {op.number}, Access::atomic"
    code = f"{cell} &cell = *({cell} *)checked({where}); const {datatypes.unsigned(type_)} old = cell; "
    bits = f"b{datatypes.width(type_)}"
    if type_ in datatypes.HALVES:
        if kind != "add":
            raise PtxError(f"atomic .{kind} of .{type_}")
        code += f"const {datatypes.unsigned(type_)} b = {op.value(first + 1)}; "
        new = each_half(op, ["old", "b"], "{0} + {1}".format)
    elif type_ in datatypes.FLOATS:
        a = f"as_{datatypes.computing(type_)}(old)"
        if kind not in ("add", "exch"):
            raise PtxError(f"atomic .{kind} of .{type_}")
        new = f"bits({a} + {op.value(first + 1)})" if kind == "add" else op.value(first + 1, bits)
    else:
        computing = datatypes.computing(type_)
        code += f"const {computing} a = {computing}(old), b = {op.value(first + 1)}; "
        formulas = {
            "add": "u64(a) + u64(b)",
            "min": "minimum(a, b)",
            "max": "maximum(a, b)",
            "and": "a & b",
            "or": "a | b",
            "xor": "a ^ b",
            "exch": "b",
            "inc": "a >= b ? 0 : a + 1",
            "dec": "a == 0 || a > b ? b : a - 1",
        }
        new = f"a == b ? {op.value(first + 2)} : a" if kind == "cas" else formulas[kind]
    code += f"cell = {new};"
    return code if op.opcode == "red" else f"{code} {op.assign(0, bits, 'old')}"


def copy_asynchronously(op: Operation) -> str:
    """cp.async: sixteen bytes or fewer from global to shared memory, there when they have been waited for."""
    if not op.flag("async"):
        raise PtxError("only cp.async")
    if op.flag("commit_group"):
        return "commit_copies(T);"
    if op.flag("wait_group"):
        return f"finish_copies(T, {op.value(0, 'u32')});"
    if op.flag("wait_all"):
        return "finish_all_copies(T);"
    op.one_of("ca", "cg")
    op.ignore(*(word for word in _CACHING if "::" in word), "global")
    op.one_of("shared", "shared::cta")
    shared, source = op.address(0)[1], op.address(1)[1]
    size = op.value(2, "u32")
    given = size
    if op.flag("L2::cache_hint"):
        op.text(op.count - 1)
        extra = op.count == 5
    else:
        extra = op.count == 4
    if extra:
        register = op.scope.register(op.text(3).lstrip("! "))
        is_predicate = register is not None and register[1] == "pred"
        given = f"{op.value(3, 'pred')} ? 0u : {size}" if is_predicate else op.value(3, "u32")
    return f"copy_later(T, {shared}, {source}, {size}, {given}, {op.number});"


def convert_address(op: Operation) -> str:
    """cvta: only shared memory has other addresses in its own space than in the generic one."""
    to_space = op.flag("to")
    space = op.one_of(*_SPACES, "shared::cta", "param::entry").partition("::")[0]
    address = op.value(1, "u64")
    if space == "shared":
        address = f"{address} {'-' if to_space else '+'} u64(block.shared)"
    return op.assign(0, op.type, address)


def is_in_space(op: Operation) -> str:
    address = op.value(1, "u64")
    space = op.one_of("global", "shared", "shared::cta", "local").partition("::")[0]
    expression = {
        "shared": f"in_shared({address})",
        "local": f"in_local(T, {address})",
        "global": f"!in_shared({address}) && !in_local(T, {address})",
    }[space]
    return op.assign(0, "pred", expression)


def prefetch(op: Operation) -> str:
    op.ignore("global", "L1", "L2", "L2::evict_last", "L2::evict_normal")
    op.address(0)
    return ""


def create_policy(op: Operation) -> str:
    """How a cache should keep data; nothing here reads it."""
    for i in range(1, op.count):
        op.text(i)
    op.one_of("fractional")
    op.ignore(*_CACHING)
    return op.assign(0, "b64", "0")


TRANSLATORS = {
    **dict.fromkeys(("ld", "ldu"), load),
    "st": store,
    **dict.fromkeys(("atom", "red"), atomic),
    "cp": copy_asynchronously,
    "cvta": convert_address,
    "isspacep": is_in_space,
    **dict.fromkeys(("prefetch", "prefetchu"), prefetch),
    "createpolicy": create_policy,
}
