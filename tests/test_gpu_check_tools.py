"""The stages of benchmarks/gpu_check that run a tool of the CUDA toolkit; a script stands in for the tool."""

import os
import sys

import pytest
from gpu_check import counters, results, sanitizer

NCU = """==PROF== Connected to process 17
"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","17","forward_z_float","sm__inst_issued.avg.pct_of_peak_sustained_active","%","81.5"
"0","17","forward_z_float","gpu__time_duration.sum","us","7.04"
"1","17","reduce","launch__registers_per_thread","register/thread","40"
"""


def test_counters_are_read():
    assert counters.launches(NCU) == [
        {"kernel": "forward_z_float", "issue slots used, %": "81.5", "time [us]": "7.04"},
        {"kernel": "reduce", "registers [register/thread]": "40"},
    ]
    assert counters.launches("==ERROR== nothing") == []


NCU_STANDS_IN = """#!/bin/sh
echo '==PROF== Connected to process 17'
echo '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
echo '"0","forward_z_float","launch__grid_size","","512"'
echo '"1","backward_z_float","launch__grid_size","","256"'
echo '"2","reduce","launch__grid_size","","2"'
echo '"3","forward_z_float","launch__grid_size","","8192"'
"""
# Says that one case was run, then finds nothing, something, or no end.
SANITIZER_STANDS_IN = """#!/bin/sh
while [ "$1" != -m ]; do
    [ "$1" = --tool ] && tool=$2
    shift
done
echo '{"number": 0}' > /proc/self/fd/$3
if [ $tool = racecheck ]; then
    echo '========= Error: Race'
    echo '========= RACECHECK SUMMARY: 2 hazards'
    exit 17
fi
[ $tool = synccheck ] && exec sleep 60
echo '========= ERROR SUMMARY: 0 errors'
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """stand_in(module, tool, script, limit): the exit status of the stage with the script as the tool."""

    def run(module, tool, script, limit):
        (tmp_path / tool).write_text(script)
        (tmp_path / tool).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(module, "ON_CPU", False)
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path), "stage", limit])
        return module.main()

    return run


def test_a_line_for_each_launch(stand_in, tmp_path):
    assert stand_in(counters, "ncu", NCU_STANDS_IN, "20") == 0
    lines = results.read(tmp_path / "ncu.jsonl")
    assert [(line["rows"], line["kernel"], line["blocks"]) for line in lines] == [
        (65_536, "forward_z_float", "512"),
        (65_536, "backward_z_float", "256"),
        (65_536, "reduce", "2"),
        (1_048_576, "forward_z_float", "8192"),
    ]


@pytest.mark.parametrize(
    ("script", "status", "key", "text"),
    [
        ("#!/bin/sh\necho '==ERROR== ERR_NVGPUCTRPERM no'\n", 0, "skipped", "only administrators"),
        (
            "#!/bin/sh\necho '==ERROR== bad metric'\nexit 5\n",
            1,
            "error",
            "exit status 5, no counters: ==ERROR==",
        ),
        ("#!/bin/sh\nexec sleep 60\n", 1, "error", "it took too long"),
    ],
)
def test_no_counters_are_said_in_a_sentence(stand_in, tmp_path, script, status, key, text):
    assert stand_in(counters, "ncu", script, "4") == status
    (line,) = results.read(tmp_path / "ncu.jsonl")
    assert text in line[key]


def test_a_line_for_each_run_of_the_sanitizer(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(sanitizer, "BACKENDS", ("cuda",))
    assert stand_in(sanitizer, "compute-sanitizer", SANITIZER_STANDS_IN, "8") == 1
    lines = {line["tool"]: line for line in results.read(tmp_path / "sanitizer.jsonl")}
    assert {name: line["clean"] for name, line in lines.items()} == {
        "memcheck": True,
        "racecheck": False,
        "synccheck": False,
    }
    assert {line["cases"] for line in lines.values()} == {1}
    assert "Error: Race" in lines["racecheck"]["text"] and lines["racecheck"]["exit"] == 17
    assert lines["synccheck"]["exit"] == "ended after 3 s"
