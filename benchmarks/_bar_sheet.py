"""The bars and the other figures: what each is, a record of them for each processor, and the tables.

A bar means the same on every machine: a ratio to what the same machine does otherwise in the same run, or a
size. Figures that depend on the processor (a rate, a time, a ratio to the floor) are told without a bar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from _timing import BACKWARD, BOTH, FORWARD, PASSES

# The figures of a record: a number, or a sentence that says why there is none.
Figures = dict[str, float | str]

_DEFINITIONS = """\
- bare kernel over its port limit: the native calls on preallocated outputs / their loops' instructions
  without dependencies on this processor (`benchmarks/port_limit.py`); AVX-512, least times of runs in turn
- public API over bare kernel: `gumbel_quantize`, and `torch.autograd.grad` / the native calls; median times
- times as fast as compiled: the textbook under `torch.compile` / the public API, at the paper's batch of
  3,072 scalars; the threads named above, median times
- `ScalarQuantizer` in `eval()` over `nearest_quantize`: a call that counts its codes / the function alone,
  without gradients; median of the ratios in turn
- extra memory: what forward and backward through the public API add to the peak of resident memory, at
  1,048,576 scalars"""


class Line(NamedTuple):
    """A row of a table: its name, the keys of its figures, and the bar: `most` or `least`, if it has one."""

    name: str
    keys: tuple[str, ...]
    most: float = 0
    least: float = 0

    def met(self, figures: Mapping[str, float | str]) -> bool | None:
        """Whether the first figure meets the bar; None where it is not measured."""
        value = figures.get(self.keys[0])
        if value is None or isinstance(value, str):
            return None
        return value >= self.least if self.least else value <= self.most

    @property
    def bar(self) -> str:
        return f"at least {self.least:g}" if self.least else f"at most {self.most:g}"


def limit_key(name: str) -> str:
    return f"bare kernel / port limit, {name}"


def public_key(name: str) -> str:
    return f"public API / bare kernel, {name}"


def compiled_keys(scalars: int, name: str) -> tuple[str, str]:
    """Through the public API, and the bare kernel."""
    return f"compiled / public API, {scalars}, {name}", f"compiled / bare kernel, {scalars}, {name}"


def floor_keys(isa: str, name: str) -> tuple[str, str]:
    """Through the public API, and the bare kernel."""
    return f"{isa}, public API / floor, {name}", f"{isa}, bare kernel / floor, {name}"


def rate_keys(isa: str) -> tuple[str, str]:
    """Through the public API, and the bare kernel."""
    return f"{isa}, public API, forward, G pairs/s", f"{isa}, bare kernel, forward, G pairs/s"


def words_key(isa: str) -> str:
    return f"{isa}, floor, G words/s"


def limit_time_key(name: str) -> str:
    return f"port limit, {name}, ns for 16 pairs"


INFERENCE = "ScalarQuantizer in eval() / nearest_quantize"
MEMORY, TEXTBOOK_MEMORY = "extra memory, MiB", "extra memory of the textbook, MiB"
EMPTY_CALL, CALL = "empty autograd function, us", "forward call of 16 scalars on top, us"
SETS = ("avx512", "avx2")

BARS = (
    *(Line(f"bare kernel over its port limit, {p}", (limit_key(p),), most=1.08) for p in (FORWARD, BACKWARD)),
    *(Line(f"public API over bare kernel, {p}", (public_key(p),), most=1.05) for p in (FORWARD, BOTH)),
    Line("times as fast as compiled, forward", compiled_keys(3072, FORWARD)[:1], least=15),
    Line("times as fast as compiled, both", compiled_keys(3072, BOTH)[:1], least=10),
    Line("`ScalarQuantizer` in `eval()` over `nearest_quantize`", (INFERENCE,), most=1.1),
    Line("extra memory, MiB", (MEMORY,), most=64),
)
OTHERS = (
    *(Line(f"port limit, {p}: ns for 16 pairs", (limit_time_key(p),)) for p in (FORWARD, BACKWARD)),
    *(
        line
        for isa in SETS
        for line in (
            Line(f"{isa}: floor, G words/s", (words_key(isa),)),
            *(Line(f"{isa}: {p} over floor", floor_keys(isa, p)) for p in PASSES),
            Line(f"{isa}: forward, G pairs/s", rate_keys(isa)),
        )
    ),
    *(
        Line(f"times as fast as compiled, {scalars:,} scalars, {p}", compiled_keys(scalars, p))
        for scalars in (3072, 65_536)
        for p in (FORWARD, BOTH)
    ),
    Line("extra memory of the textbook, MiB", (TEXTBOOK_MEMORY,)),
    Line("an empty `torch.autograd.Function`, us a call", (EMPTY_CALL,)),
    Line("a forward call of 16 scalars, 64 codes, us on top of that", (CALL,)),
)


class Record(NamedTuple):
    """What one run measured. processor: the heading of its column; about: where, with what and when."""

    processor: str
    about: str
    figures: Figures

    def write(self, folder: Path) -> Path:
        """Write bars_<processor>.json, in place of what was measured on the same processor before."""
        path = folder / f"bars_{slug(self.processor)}.json"
        path.write_text(json.dumps(self._asdict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path


def slug(processor: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", processor.lower()).strip("_")


def read_records(folder: Path) -> list[Record]:
    """All records of the folder, by the names of their files.

    Raises ValueError for a file that is none.
    """
    return [_read(path) for path in sorted(folder.glob("bars_*.json"))]


def _read(path: Path) -> Record:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return Record(**content)
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no record of the bars ({error})") from error


def _cell(figures: Figures, keys: Sequence[str]) -> str:
    values = [figures.get(key) for key in keys]
    if all(value is None or isinstance(value, str) for value in values):
        return "-"
    return " / ".join("-" if value is None or isinstance(value, str) else _number(value) for value in values)


def _number(value: float) -> str:
    """Two decimals, and a third near 1, where the bars of ratios are."""
    text = f"{value:.3f}" if value < 2 else f"{value:,.2f}"
    return text[:-1] if value < 2 and text.endswith("0") else text


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(first: Sequence[str], records: Sequence[Record]) -> list[str]:
    rule = ["---" if cell in ("ratio", "figure") else "---:" for cell in first] + ["---:"] * len(records)
    return [_row([*first, *(record.processor for record in records)]), _row(rule)]


def verdict(record: Record) -> str:
    """One sentence: which bars a processor misses, and which were not measured there."""
    by_met: dict[bool | None, list[Line]] = {True: [], False: [], None: []}
    for line in BARS:
        by_met[line.met(record.figures)].append(line)
    parts = [f"meets {len(by_met[True])} of {len(BARS)} bars"]
    if by_met[False]:
        parts.append(
            "misses " + "; ".join(f"{x.name} ({_cell(record.figures, x.keys)})" for x in by_met[False])
        )
    why: dict[str, list[str]] = {}
    for line in by_met[None]:
        reason = record.figures.get(line.keys[0])
        text = "not measured yet" if reason is None else f"not measured ({reason})"
        why.setdefault(text, []).append(line.name)
    parts += [f"{text}: {'; '.join(names)}" for text, names in why.items()]
    return f"{record.processor}: " + ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def tables(records: Sequence[Record]) -> str:
    """The bars of all records side by side, what each means, and the other figures."""
    lines = [f"- {record.about}" for record in records]
    lines += ["", *_head(["ratio", "bar"], records)]
    for line in BARS:
        cells = [_cell(record.figures, line.keys) for record in records]
        marked = [
            f"**{cell}**" if line.met(record.figures) else cell
            for cell, record in zip(cells, records, strict=True)
        ]
        lines.append(_row([line.name, line.bar, *marked]))
    lines += ["", 'Bold: meets its bar. "-": not measured.', ""]
    lines += [f"- {verdict(record)}" for record in records]
    lines += [
        "",
        "The ratios, all at 64 codes; those of one call over another on one thread, at 65,536 scalars:",
        "",
        _DEFINITIONS,
    ]
    lines += [
        "",
        "Without a bar, since they differ by processor; public API / bare kernel where there are two:",
        "",
    ]
    lines += _head(["figure"], records)
    lines += [_row([line.name, *(_cell(r.figures, line.keys) for r in records)]) for line in OTHERS]
    return "\n".join(lines)
