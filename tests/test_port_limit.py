"""benchmarks/port_limit.py: the same instructions without dependencies, and what they take."""

import ctypes
import math
import platform
import re
import time
from collections import Counter
from pathlib import Path

import cpu_ports
import port_limit
import pytest
from _contenders import native_module

# Each waits for the one before: through a register, a mask, memory, and what a destination held.
LOOP = """
mov %r13d,%ecx
shl $0x4,%rcx
vmovups 0x40(%rdi,%rcx,1),%zmm1
vpsrld $0x12,%zmm1,%zmm2
vpermi2ps %zmm1,%zmm1,%zmm2
vfmadd132ps (%rax){1to16},%zmm2,%zmm1
vcmplt_oqps %zmm1,%zmm2,%k1
vpbroadcastd 0x4(%rdx),%zmm1{%k1}
vmovshdup %zmm1,%zmm3{%k1}{z}
vpternlogd $0x96,%zmm3,%zmm2,%zmm1
vmulps 0x1234(%rip),%zmm1,%zmm2
vmovups %zmm2,0x40(%rdi,%rcx,1)
add $0x4,%r13d
cmp %edx,%r13d
""".strip().splitlines()

# By name: is what the last operand held before read too? Of all that is written to, no other operand is.
ALSO_READ = {"shl", "add", "vpermi2ps", "vfmadd132ps", "vpbroadcastd", "vpternlogd"}


def registers(text):
    """Registers by the number of their physical one: %r8d is %r8, %eax is %rax."""
    names = re.findall(r"%(\w+)", text)
    return {re.sub(r"^e(?=[a-ds])", "r", re.sub(r"^(r\d+)d$", r"\1", name)) for name in names}


def read_and_written(line):
    """Of LOOP's instructions: what one reads and doesn't write; what it writes; whether it reads that too."""
    name, operands = line.split(" ", 1)
    *sources, last = re.split(r",(?![^(]*\))", operands)
    if name == "cmp" or last.rstrip("})").endswith(")") or "(" in last:
        return registers(operands), set(), False
    masks = registers("".join(re.findall(r"\{.*", last)))
    return registers(" ".join(sources)) | masks, registers(last.split("{")[0]), name in ALSO_READ


def shape(line):
    """An instruction without the numbers of its registers and addresses."""
    line = re.sub(r"%([xyz]mm|k)\d+", r"%\1", line)
    line = re.sub(r"-?(0x)?[0-9a-f]*\([^)]*\)", "(memory)", line)
    line = re.sub(r"%(r\d+d|e[a-ds][xip])", "%32", line)
    return re.sub(r"%(r\d+|r[a-ds][xip])", "%64", line)


def test_the_loop_is_one_whose_instructions_wait():
    written = set()
    waiting = 0
    for line in LOOP:
        reads, writes, _ = read_and_written(line)
        waiting += bool(reads & written)
        written |= writes
    assert waiting >= 10


def test_every_instruction_is_kept():
    made = port_limit.independent(LOOP)
    assert [shape(line) for line in made] == [shape(line) for line in LOOP]


def test_nothing_that_is_written_is_read():
    made = [read_and_written(line) for line in port_limit.independent(LOOP * 20)]
    read = set().union(*(reads for reads, _, _ in made))
    written = set().union(*(writes for _, writes, _ in made))
    assert read and written and not read & written
    # A destination that is an operand too was last written by an instruction long before, of its own kind.
    only_written = set().union(*(writes for _, writes, both in made if not both))
    both = [next(iter(writes)) for _, writes, both in made if both]
    assert not only_written & set(both)
    vectors = [name for name in both if name.startswith("zmm")]
    last = {}
    for position, name in enumerate(vectors):
        assert position - last.get(name, -99) >= 20
        last[name] = position


def test_no_load_has_the_low_address_bits_of_a_store():
    made = port_limit.independent(LOOP * 40)
    stores = {line for line in made if re.search(r",[^,]*\([^)]*\)$", line) and not line.startswith("cmp")}
    lines = {True: set(), False: set()}
    for line in made:
        place = re.search(r"(0x[0-9a-f]+)\(%rsi(,%r8,1)?\)", line)
        if place:
            lines[line in stores].add(int(place[1], 16))
    assert lines[True] and lines[False] and not lines[True] & lines[False]
    assert all(line % 64 == 0 and line < 4096 for line in lines[True] | lines[False])


@pytest.mark.parametrize(
    "line",
    [
        "vgatherdps (%rax,%zmm1,4),%zmm2{%k1}",
        "push %rax",
        "mov %fs:0x28,%rax",
        "add %eax,(%rdi)",
        "xchg %eax,%ecx",
        "mov %al,%cl",
    ],
)
def test_an_instruction_that_it_does_not_know_is_an_error(line):
    with pytest.raises(ValueError, match="unknown"):
        port_limit.independent([line])


def test_other_orders_hold_the_same_instructions_but_the_last_comparison():
    first, *others = port_limit.orders(LOOP)
    assert first == LOOP[:-1] and others
    assert all(order != first and Counter(order) == Counter(first) for order in others)


def test_without_its_tools_it_says_so(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PATH", "")
    assert port_limit.PortLimit(Path("none"), ["avx512"]).missing == "objdump and gcc not installed"
    assert "AVX-512" in port_limit.PortLimit(Path("none"), ["avx2"]).missing


def unlike(*_):
    return None


def strange(*_):
    return ["vpmuludq %zmm1,%zmm2,%zmm3", "vgatherdps (%rax,%zmm1,4),%zmm2{%k1}"]


@pytest.mark.parametrize(
    ("pick", "missing"),
    [(unlike, "this compiler's loops are unlike those known: words, log2"), (strange, "vgatherdps")],
)
def test_where_the_loops_are_others_it_says_so(monkeypatch, pick, missing):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(port_limit.shutil, "which", lambda tool: tool)
    monkeypatch.setattr(port_limit, "disassemble", lambda _: "")
    monkeypatch.setattr(port_limit, "pick", pick)
    assert missing in port_limit.PortLimit(Path("none"), ["avx512"]).missing


@pytest.fixture(scope="module")
def limit():
    native = native_module()
    if native is None:
        pytest.skip("no native module here")
    made = port_limit.PortLimit(Path(native.__file__), native.instruction_sets())
    if made.missing:
        # The loops are those of GCC's builds.
        by_gcc = native.build_info()["compiler"].startswith("gcc")
        allowed = ["not installed", "AVX-512", *([] if by_gcc else ["unlike"])]
        assert any(reason in made.missing for reason in allowed), made.missing
        pytest.skip(made.missing)
    return made


def test_loops_take_no_less_than_on_any_processor(limit):
    """No processor takes more than eight instructions and two multiplications of 512 bits a cycle."""
    for _ in range(20):
        limit.turn()
    for stage in cpu_ports.STAGES:
        multiplications = stage.also.get("vfm", 0) or stage.each  # for each code
        cycles = limit.loop_seconds(stage.name) / limit.cycle_seconds()
        # The clock may have gone up between one reading and another; and with one multiplication in 12
        # cycles it would be no limit.
        assert 0.8 * multiplications / 2 < cycles < 12 * multiplications
    words = limit.loop_seconds("words") + limit.loop_seconds("log2")
    assert limit.seconds("forward") == pytest.approx(
        words + limit.loop_seconds("costs") + limit.loop_seconds("weights and sums")
    )
    assert limit.seconds("backward") == pytest.approx(
        words + limit.loop_seconds("log2 w") + limit.loop_seconds("gradients")
    )


def test_a_loop_without_dependencies_takes_less(limit):
    """Two multiplications of which each waits for the other, and two apart."""
    chain = ["vfmadd132ps %zmm1,%zmm2,%zmm3", "vfmadd132ps %zmm1,%zmm3,%zmm2"] * 8
    functions, page = port_limit.load([chain, port_limit.independent(chain)]), port_limit.page_of_ones()
    best = [math.inf] * 2
    for _ in range(50):
        for number, function in enumerate(functions):
            start = time.perf_counter()
            function(2000, ctypes.addressof(page))
            best[number] = min(best[number], time.perf_counter() - start)
    assert best[1] < 0.5 * best[0]
