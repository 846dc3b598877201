"""Listings of compiled GPU code for the tests of the cost model, as the disassembler prints them."""

HEAD = """
	.target	sm_90a
	.section	.text.kernel,"ax",@progbits
kernel:
.text.kernel:
"""


def listing(*lines: str) -> str:
    """A listing as the disassembler prints it; a line that ends with a colon is a label."""
    text, address = HEAD, 0
    for line in lines:
        if line.endswith(":"):
            text += f"{line}\n"
        else:
            text += f"        /*{address:04x}*/                   {line} ;\n"
            address += 16
    return text


def philox_lines(rounds: int = 10) -> list[str]:
    return [
        f"IMAD.WIDE.U32 R{2 * which}, R9, {constant}, RZ"
        for _ in range(rounds)
        for which, constant in enumerate(("-0x2daee0ad", "-0x326172a9"))
    ]
