"""Labels of any kind, as factors: each column's different values in order, numbered from 0."""

from __future__ import annotations

import base64
import csv
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_FACTORS = 1000


@dataclass(frozen=True, eq=False)
class Labels:
    """names: of the factors. values: of each, what its numbers mean. codes: int64 (images, factors)."""

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    codes: NDArray[np.int64]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each factor has."""
        return tuple(map(len, self.values))

    def to_plain(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        packed = zlib.compress(self.codes.astype("<i4").tobytes(), 1)
        values = [list(each) for each in self.values]
        return {"names": list(self.names), "values": values, "codes": base64.b64encode(packed).decode()}

    @staticmethod
    def from_plain(plain: dict[str, Any], images: int) -> Labels:
        """The inverse, for so many images. Raises ValueError if it is none."""
        try:
            names = tuple(plain["names"])
            size = images * len(names) * 4
            data = zlib.decompressobj().decompress(base64.b64decode(plain["codes"]), size + 1)
            codes = np.frombuffer(data, "<i4").reshape(images, len(names)).astype(np.int64)
            return Labels(names, tuple(map(tuple, plain["values"])), codes)
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise ValueError(f"the labels are damaged ({error})") from error


def no_labels(images: int) -> Labels:
    """Of a set without any."""
    return Labels((), (), np.zeros((images, 0), np.int64))


def check_labels(where: str, shape: tuple[int, ...], dtype: np.dtype[Any], images: int) -> None:
    """Raise ValueError unless labels of this shape and dtype are some for each image."""
    columns = shape[1] if len(shape) == 2 else 1
    if len(shape) not in (1, 2) or shape[0] != images or not 1 <= columns <= _MOST_FACTORS:
        raise ValueError(
            f"{where} must be of shape ({images},) or ({images}, 1 to {_MOST_FACTORS}), but are {shape}"
        )
    if dtype.kind not in "biufUS":
        raise ValueError(f"{where} must be whole numbers, numbers or texts, but are {dtype}")


def code_labels(where: str, columns: Sequence[NDArray[Any]], names: Sequence[str]) -> Labels:
    """Columns, (images,) each, as factors of these names; numbers are ordered by size, texts by letters.

    where: the file, for the message. Raises ValueError: NaN; names that are empty or not different.
    """
    if len(set(names)) != len(names) or not all(names):
        raise ValueError(f"{where}: the names of factors must be different texts, but are {list(names)}")
    values, codes = [], []
    for name, column in zip(names, columns, strict=True):
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            raise ValueError(
                f"{where}: {name} must be finite numbers, but has {column[~np.isfinite(column)][0]}"
            )
        different, numbers = np.unique(column, return_inverse=True)
        if different.dtype.kind == "S":
            different = np.char.decode(different, "utf-8", "replace")
        values.append(tuple(map(str, different.tolist())))
        codes.append(numbers.astype(np.int64).reshape(-1))
    return Labels(tuple(names), tuple(values), np.stack(codes, 1))


def read_csv(path: Path, files: Sequence[str]) -> Labels:
    """A table with a row for each of these files, and a column for each factor.

    The files stand in the column "file", or in the first one if there is none of that name. A column in
    which all are numbers is ordered by size. Raises ValueError for a table that is not so.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            head, *rows = [row for row in csv.reader(file) if row]
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table ({error})") from error
    head = [each.strip() for each in head]
    place = head.index("file") if "file" in head else 0
    table: dict[str, list[str]] = {}
    for number, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise ValueError(f"{path}: row {number} must have {len(head)} columns, but has {len(row)}")
        name = Path(row[place].strip().replace("\\", "/")).as_posix()
        if name in table:
            raise ValueError(f"{path}: there must be one row for each file, but {name} has several")
        table[name] = [each.strip() for each in row]
    for name in files:
        if name not in table:
            raise ValueError(f"{path}: there must be a row for each image, but there is none for {name}")
    if len(table) > len(files):
        strange = min(table.keys() - set(files))
        raise ValueError(f"{path}: there must be an image for each row, but there is no {strange}")
    if not 1 <= len(head) - 1 <= _MOST_FACTORS:
        raise ValueError(
            f"{path}: there must be 1 to {_MOST_FACTORS} columns of factors, but there are {len(head) - 1}"
        )
    factors = [column for column in range(len(head)) if column != place]
    columns = [_numbers([table[name][column] for name in files]) for column in factors]
    return code_labels(str(path), columns, [head[column] for column in factors])


def _numbers(texts: list[str]) -> NDArray[Any]:
    """Whole numbers if all texts are such, or else numbers, or else the texts.

    With an underscore, which Python's numbers may have anywhere, they are texts: 1_12 is not 11_2.
    """
    if any("_" in text for text in texts):
        return np.array(texts)
    for kind in (int, float):
        try:
            numbers = [kind(text) for text in texts]
        except ValueError:
            continue
        if all(math.isfinite(number) and abs(number) < 2**62 for number in numbers):
            return np.array(numbers)
    return np.array(texts)
