"""benchmarks/_bar_sheet.py and _bars.py: what meets a bar, several processors side by side, the ratios."""

import json

import _bar_sheet
import _bars
import pytest
import quantize_bench
from _bar_sheet import BARS, OTHERS, Line, Record
from _timing import BACKWARD, BOTH, FORWARD, Measured

LIMIT_FORWARD, LIMIT_BACKWARD, PUBLIC_FORWARD, PUBLIC_BOTH, FAST_FORWARD, FAST_BOTH, INFERENCE, MEMORY = (
    line.keys[0] for line in BARS
)
FIGURES = {
    LIMIT_FORWARD: 1.2,
    LIMIT_BACKWARD: 1.08,
    PUBLIC_FORWARD: 1.05,
    PUBLIC_BOTH: 1.051,
    FAST_FORWARD: 15,
    FAST_BOTH: 9.9,
    INFERENCE: 1.09,
    MEMORY: 29.8,
}


def rows(text):
    """The tables of a page as {first cell: other cells}."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for line in lines for cells in [line.strip("| ").split(" | ")]}


def test_the_bars_are_ratios_and_sizes_alone():
    assert [(line.most, line.least) for line in BARS] == [
        (1.08, 0),
        (1.08, 0),
        (1.05, 0),
        (1.05, 0),
        (0, 15),
        (0, 10),
        (1.1, 0),
        (64, 0),
    ]
    assert not any(line.most or line.least for line in OTHERS)
    names = [line.name for line in BARS + OTHERS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("line", "value", "met"),
    [
        (Line("", ("x",), most=1.08), 1.08, True),
        (Line("", ("x",), most=1.08), 1.081, False),
        (Line("", ("x",), least=15), 15.0, True),
        (Line("", ("x",), least=15), 14.99, False),
        (Line("", ("x",), least=15), "no compiler", None),
        (Line("", ("y",), least=15), 20.0, None),
    ],
)
def test_what_meets_a_bar(line, value, met):
    assert line.met({"x": value}) is met


def test_a_verdict_names_what_is_missed_and_what_is_not_measured():
    figures = {**FIGURES, LIMIT_BACKWARD: "objdump not installed"}
    del figures[MEMORY]
    assert _bar_sheet.verdict(Record("Chip", "", figures)) == (
        "Chip: Meets 3 of 8 bars. Misses bare kernel over its port limit, forward (1.20); "
        "public API over bare kernel, both (1.051); times as fast as compiled, both (9.90). "
        "Not measured (objdump not installed): bare kernel over its port limit, backward. "
        "Not measured yet: extra memory, MiB."
    )


def test_processors_stand_side_by_side():
    public, bare = _bar_sheet.floor_keys("avx512", FORWARD)
    one = Record("One", "One, measured once", {**FIGURES, public: 2.7, bare: 2.5})
    other = Record("Other", "Other, measured twice", {LIMIT_FORWARD: 1.07, FAST_BOTH: "no compiler", bare: 3})
    text = _bar_sheet.tables([one, other])
    table = rows(text)
    assert table["ratio"] == ["bar", "One", "Other"] and table["figure"] == ["One", "Other"]
    assert table[BARS[0].name] == ["at most 1.08", "1.20", "**1.07**"]
    assert table[BARS[1].name] == ["at most 1.08", "**1.08**", "-"]
    assert table["times as fast as compiled, forward"] == ["at least 15", "**15.00**", "-"]
    assert table["times as fast as compiled, both"] == ["at least 10", "9.90", "-"]
    assert table["avx512: forward over floor"] == ["2.70 / 2.50", "- / 3.00"]
    assert len({len(cells) for name, cells in table.items() if name in {line.name for line in BARS}}) == 1
    for record in (one, other):
        assert f"- {record.about}\n" in text and f"- {_bar_sheet.verdict(record)}\n" in text
    assert text.lower().count("miss") == 1  # of one processor, once


def test_a_run_keeps_the_columns_of_other_processors(tmp_path):
    Record("Intel Xeon (family 6, model 143)", "then", {LIMIT_FORWARD: 1.1}).write(tmp_path)
    Record("AMD EPYC (family 26, model 2)", "then", {LIMIT_FORWARD: 1.2}).write(tmp_path)
    path = Record("AMD EPYC (family 26, model 2)", "now", {LIMIT_FORWARD: 1.3}).write(tmp_path)
    assert path.name == "bars_amd_epyc_family_26_model_2.json"
    found = _bar_sheet.read_records(tmp_path)
    assert [(record.about, record.figures[LIMIT_FORWARD]) for record in found] == [
        ("now", 1.3),
        ("then", 1.1),
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"processor": "x"}'])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    (tmp_path / "bars_x.json").write_text(text)
    with pytest.raises(ValueError, match="is no record of the bars"):
        _bar_sheet.read_records(tmp_path)


def test_the_records_in_the_repository_hold_known_figures():
    found = _bar_sheet.read_records(quantize_bench.ROOT / "benchmarks" / "results")
    known = {key for line in BARS + OTHERS for key in line.keys}
    assert found and all(set(record.figures) <= known for record in found)
    page = (quantize_bench.ROOT / "docs" / "performance.md").read_text()
    assert _bar_sheet.tables(found) in page, "quantize_bench.py --bars --readme writes it"


@pytest.mark.parametrize(
    ("name", "cpuinfo", "processor"),
    [
        (
            "AMD EPYC",
            "cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n",
            "AMD EPYC (family 26, model 2)",
        ),
        ("Intel(R) Xeon(R) Processor", "", "Intel Xeon Processor"),
    ],
)
def test_processors_are_told_apart(name, cpuinfo, processor):
    assert _bars.name_processor(name, cpuinfo) == processor


class FakeNative:
    """What _bars asks of the native module."""

    __file__ = "module.so"

    def __init__(self, *sets):
        self.sets, self.current = sets, sets[0]

    def instruction_sets(self):
        return self.sets

    def instruction_set(self):
        return self.current

    def use_instruction_set(self, name):
        self.current = name


class FakeContender:
    def __init__(self, *_):
        pass

    def prepare(self, case):
        pass


class FakeLimit:
    missing = ""

    def __init__(self, *_):
        self.turns = 0

    def turn(self):
        self.turns += 1

    def seconds(self, name):
        assert self.turns == _bars._LEAST_ROUNDS
        return {FORWARD: 2e-9, BACKWARD: 4e-9}[name]


def measured(forward, backward):
    result = Measured()
    for name, seconds in ((FORWARD, forward), (BACKWARD, backward), (BOTH, forward + backward)):
        result.seconds[name] = [9.0, seconds, seconds]
    return result


@pytest.fixture
def fakes(monkeypatch):
    for name in ("Ours", "BareKernel", "Floor", "CompiledTextbook", "Textbook"):
        monkeypatch.setattr(_bars, name, FakeContender)
    monkeypatch.setattr(_bars, "PortLimit", FakeLimit)
    monkeypatch.setattr(_bars.torch, "set_num_threads", lambda _: None)
    group = 65_536 * 64 / 16
    turns = iter([(9.0, 9.0), (group * 2.5e-9, group * 4.4e-9)] + [(9.0, 9.0)] * 500)
    monkeypatch.setattr(
        _bars, "time_settled_turn", lambda *_: dict(zip((FORWARD, BACKWARD), next(turns), strict=True))
    )
    monkeypatch.setattr(
        _bars, "_measure", lambda contenders, *_: [measured(6, 6), measured(5, 10), measured(75, 45)]
    )
    monkeypatch.setattr(_bars, "seconds_of", lambda call: 6 if call.__name__ == "module" else 4)
    monkeypatch.setattr(_bars, "peak_extra_bytes", lambda *_: (3 * 2**20, None))
    monkeypatch.setattr(_bars, "time_turn", lambda *_: None)
    monkeypatch.setattr(_bars, "call_overhead", lambda *_: (15e-6, 5e-6))


def test_the_ratios(fakes, monkeypatch, tmp_path, capsys):
    """6 and 6 s through the public API, 5 and 10 bare, 75 and 45 compiled; and 75 for the floor."""
    monkeypatch.setattr(_bars, "native_module", lambda: FakeNative("avx512", "avx2"))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bars:begin -->\nold\n<!-- bars:end -->\nafter\n")
    Record("Another", "then", {LIMIT_FORWARD: 1.1}).write(tmp_path)
    assert _bars.run(2, tmp_path, page, 0.4) == 0
    (path,) = set(tmp_path.glob("bars_*.json")) - {tmp_path / "bars_another.json"}
    record = Record(**json.loads(path.read_text()))
    assert {key: record.figures[key] for key in FIGURES} == pytest.approx(
        {
            LIMIT_FORWARD: 2.5 / 2,
            LIMIT_BACKWARD: 4.4 / 4,
            PUBLIC_FORWARD: 6 / 5,
            PUBLIC_BOTH: 12 / 15,
            FAST_FORWARD: 75 / 6,
            FAST_BOTH: 120 / 12,
            INFERENCE: 6 / 4,
            MEMORY: 3,
        }
    )
    assert record.figures[_bar_sheet.compiled_keys(65_536, BOTH)[1]] == pytest.approx(120 / 15)
    assert record.figures[_bar_sheet.floor_keys("avx2", BACKWARD)[1]] == pytest.approx(10 / 75)
    assert record.figures[_bar_sheet.limit_time_key(FORWARD)] == pytest.approx(2)
    assert record.figures[_bar_sheet.CALL] == pytest.approx(10)
    assert {key for line in BARS + OTHERS for key in line.keys} == set(record.figures)
    assert page.read_text() == (
        f"before\n<!-- bars:begin -->\n{_bar_sheet.tables(_bar_sheet.read_records(tmp_path))}\n"
        "<!-- bars:end -->\nafter\n"
    )
    assert rows(page.read_text())["figure"][0] in ("Another", record.processor)
    assert record.about in capsys.readouterr().out
    assert "busy" not in record.about


def test_a_record_of_a_busy_machine_says_so(fakes, monkeypatch, tmp_path):
    monkeypatch.setattr(_bars, "native_module", lambda: FakeNative("avx512"))
    assert _bars.run(1, tmp_path, None, 3.2) == 0
    assert "busy (load average 3.2)" in _bar_sheet.read_records(tmp_path)[0].about


def test_without_avx512_there_is_no_port_limit_and_the_rest_is_measured(fakes, monkeypatch, tmp_path):
    monkeypatch.setattr(_bars, "native_module", lambda: FakeNative("portable"))
    monkeypatch.setattr(_bars.PortLimit, "missing", "objdump not installed")
    assert _bars.run(1, tmp_path, None, None) == 0
    (record,) = _bar_sheet.read_records(tmp_path)
    assert record.figures[LIMIT_FORWARD] == record.figures[LIMIT_BACKWARD] == "objdump not installed"
    assert record.figures[PUBLIC_FORWARD] == pytest.approx(6 / 5)


def test_a_textbook_that_does_not_compile_is_no_figure(fakes, monkeypatch, tmp_path):
    class Failing(FakeContender):
        def prepare(self, case):
            raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(_bars, "native_module", lambda: FakeNative("avx2"))
    monkeypatch.setattr(_bars, "CompiledTextbook", Failing)
    assert _bars.run(1, tmp_path, None, None) == 0
    (record,) = _bar_sheet.read_records(tmp_path)
    assert record.figures[FAST_FORWARD] == "torch.compile fails: RuntimeError: no C++ compiler"
    assert "no C++ compiler" in _bar_sheet.verdict(record)
