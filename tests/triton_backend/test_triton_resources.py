"""Registers, shared memory and stack of every compiled kernel, against the table under version control.

tests/triton_backend/kernel_list.py says how to record it anew.
"""

import csv

import kernel_list
import pytest


@pytest.fixture
def measured(serves_cpu):
    return kernel_list.measured()


def test_no_kernel_spills(measured):
    """A spilled register lies on the stack, of which the kernels have no other use."""
    assert not [line for line in measured if line["stack"] != 0]


def test_no_kernel_is_worse_than_recorded(measured):
    """No more registers or shared memory than recorded, by the release of Triton that the table is of."""
    with kernel_list.TABLE.open() as file:
        table = list(csv.DictReader(file))
    if table[0]["triton"] != measured[0]["triton"]:
        pytest.skip(f"the table is of triton {table[0]['triton']}, this is {measured[0]['triton']}")
    recorded = {(line["kernel"], line["variant"], int(line["arch"])): line for line in table}
    assert {(line["kernel"], line["variant"], line["arch"]) for line in measured} == set(recorded)
    for line in measured:
        limits = recorded[line["kernel"], line["variant"], line["arch"]]
        for name in kernel_list.MEASURES:
            assert line[name] <= int(limits[name]), (line, limits)
