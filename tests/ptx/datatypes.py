"""PTX's types: how wide they are, and which C++ type computes in them."""

import struct

WIDTHS = {
    **{kind + width: int(width) for kind in "usb" for width in ("8", "16", "32", "64")},
    "pred": 1,
    "b128": 128,
    "f16": 16,
    "bf16": 16,
    "f32": 32,
    "f64": 64,
    "f16x2": 32,
    "bf16x2": 32,
    "f32x2": 64,
}
FLOATS = ("f32", "f64")
HALVES = ("f16", "bf16", "f16x2", "bf16x2")
PAIR = "f32x2"


def width(type_: str) -> int:
    """Bits."""
    return WIDTHS[type_]


def size(type_: str) -> int:
    """Bytes in memory."""
    return WIDTHS[type_] // 8


def is_integer(type_: str) -> bool:
    return type_ not in (*FLOATS, *HALVES, PAIR)


def is_signed(type_: str) -> bool:
    return type_[0] == "s"


def unsigned(type_: str) -> str:
    """The unsigned C++ integer of the type's width: what a register holds."""
    return "bool" if type_ == "pred" else f"u{WIDTHS[type_]}"


def computing(type_: str) -> str:
    """The C++ type that an instruction of this type computes in. 16-bit floats are passed as their bits."""
    if type_ == "pred":
        return "bool"
    if type_ in FLOATS:
        return "float" if type_ == "f32" else "double"
    return f"s{WIDTHS[type_]}" if is_signed(type_) else f"u{WIDTHS[type_]}"


def memory(type_: str) -> str:
    """The C++ type, allowed to alias, that a value of this type is read from and written to memory as."""
    return f"m{WIDTHS[type_]}"


def integer_literal(text: str) -> int:
    """Decimal, 0x, 0b or octal with a leading zero; U at the end says unsigned."""
    digits = text.rstrip("U")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits.isdigit():
        return sign * int(digits, 8)
    return sign * int(digits, 0)


def float_literal(text: str) -> float:
    """0f and 0d with the bits in hexadecimal, or decimal."""
    if text[:2] in ("0f", "0F"):
        return float(struct.unpack(">f", bytes.fromhex(text[2:]))[0])
    if text[:2] in ("0d", "0D"):
        return float(struct.unpack(">d", bytes.fromhex(text[2:]))[0])
    return float(text)
