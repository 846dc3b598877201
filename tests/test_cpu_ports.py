"""benchmarks/cpu_ports.py: its loops, its bounds, and what it does without llvm-mca."""

import cpu_ports
import pytest

LISTING = """
0000000000000000 <kernel>:
   0:\tvxorps %xmm0,%xmm0,%xmm0
   8:\tvmovups (%rax),%zmm1
   e:\tvmulps %zmm1,%zmm2,%zmm3        # 40 <table>
  14:\tcmp    %rax,%rbx
  17:\tjne    8 <kernel+0x8>
  19:\tjmp    0 <kernel>
"""


def bound(*lines):
    return cpu_ports.zen4_bound(cpu_ports.zen4_work(list(lines))[0])


def test_a_loop_is_what_its_jump_goes_back_over():
    assert cpu_ports.loops(LISTING) == [
        ["vmovups (%rax),%zmm1", "vmulps %zmm1,%zmm2,%zmm3", "cmp    %rax,%rbx"]
    ]


@pytest.mark.parametrize(
    ("lines", "cycles", "pipes"),
    [
        (["vmulps %zmm1,%zmm2,%zmm3"], 1, "01"),
        (["vmulps %zmm1,%zmm2,%zmm3", "vaddps %zmm1,%zmm2,%zmm3"], 1, "0123"),
        (["vmulps %zmm1,%zmm2,%zmm3"] * 2 + ["vaddps %zmm1,%zmm2,%zmm3"], 2, "01"),
        (["vscalefps %zmm1,%zmm2,%zmm3"], 2, "23"),
        (["vpermps %zmm1,%zmm2,%zmm3", "vaddps %zmm1,%zmm2,%zmm3"], 4 / 3, "123"),
        (["vpxord %zmm1,%zmm2,%zmm3"] * 4 + ["vmovups (%rax),%zmm1"], 2, "0123"),
    ],
)
def test_bounds_on_zen_4(lines, cycles, pipes):
    """Throughputs that were measured: docs/cpu_ports.md."""
    assert bound(*lines) == (pytest.approx(cycles), pipes)


def test_stores_are_counted_and_loads_are_not():
    lines = ["vmovaps %zmm1,0x40(%rax)", "vmovaps 0x40(%rax),%zmm1", "vaddps (%rax){1to16},%zmm1,%zmm2"]
    assert cpu_ports.zen4_work(lines)[1] == 1


def test_an_unknown_instruction_is_an_error():
    with pytest.raises(ValueError, match="vgatherdps"):
        cpu_ports.zen4_work(["vgatherdps (%rax,%zmm1,4),%zmm2{%k1}"])


def test_without_llvm_mca_it_says_so(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["cpu_ports.py"])
    assert cpu_ports.main() == 0
    assert "llvm-mca" in capsys.readouterr().err
