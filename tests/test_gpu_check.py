"""benchmarks/gpu_check.sh without a GPU: its stages, its limits, and what a kill leaves behind."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from gpu_check import packed, place, results, run, smoke_cases, stages, supervise

from fqvae_kernels.backends._cuda.geometry import Device

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu_check.sh"
ORDER = ("facts", "smoke", "timings", "cuda", "ncu", "triton", "sanitizer", "long")


def environment(**more):
    paths = [ROOT / "benchmarks", ROOT, os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(map(str, filter(None, paths)))
    return os.environ | {"PYTHONPATH": path, "PYTHON": sys.executable} | more


def names(*arguments):
    return [stage.name for stage in run.parse_arguments(["--out", "x", *arguments]).stages]


def test_stages_come_in_their_order():
    assert names() == list(ORDER)
    assert names("triton", "facts", "triton") == ["facts", "triton"]


def test_limits_fit_two_calls():
    limits = [stage.limit for stage in stages.STAGES]
    assert sum(limits[:5]) <= 8 * 60 and sum(limits) <= 15 * 60
    assert stages.LONG_TESTS + stages.COMPILE_TESTS < 0.6
    (stage,) = run.parse_arguments(["--out", "x", "--limit", "smoke=3", "smoke"]).stages
    assert stage.limit == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["smok"], "STAGE was 'smok'; it may be facts, smoke, timings,"),
        (["--limit", "smoke=soon"], "--limit was 'smoke=soon'; it may be STAGE=SECONDS"),
        (["--limit", "smok=3"], "--limit was 'smok=3'; it may be STAGE=SECONDS"),
    ],
)
def test_what_is_unknown_is_refused(capsys, arguments, text):
    with pytest.raises(SystemExit) as stop:
        names(*arguments)
    assert stop.value.code == 2 and text in capsys.readouterr().err


def test_no_gpu_is_said_in_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(run, "ON_CPU", False)
    monkeypatch.setattr(run, "has_gpu", lambda: False)
    assert run.main(["--out", str(tmp_path / "out")]) == 2
    assert "This machine shows no NVIDIA GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def two_stages(monkeypatch, tmp_path):
    """Stage "slow" writes a line every 20 ms, with a child that outlives it; stage "next" writes one."""
    (tmp_path / "slow_stage.py").write_text(
        "import os, pathlib, subprocess, sys, time\n"
        "from gpu_check.results import Lines\n"
        "lines = Lines(pathlib.Path(sys.argv[1]) / 'slow.jsonl', fresh=True)\n"
        "child = subprocess.Popen(['sleep', '100'])\n"
        "for number in range(10**6):\n"
        "    lines.write(number=number, here=os.getpid(), child=child.pid)\n"
        "    time.sleep(0.02)\n"
    )
    (tmp_path / "next_stage.py").write_text(
        "import pathlib, sys\n"
        "pathlib.Path(sys.argv[1], 'next.txt').write_text(sys.argv[2])\n"
        "print('all well')\n"
    )
    table = (
        stages.Stage("slow", 1.5, "slow_stage", ""),
        stages.Stage("next", 20, "next_stage", ""),
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return table


def runs(pid):
    """Whether the process is there and has not ended: one that nobody has waited for yet is still listed."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_stage_over_its_limit_is_killed_and_the_next_one_runs(two_stages, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run, "STAGES", two_stages)
    monkeypatch.setattr(run, "NAMES", ("slow", "next"))
    monkeypatch.setattr(run, "ON_CPU", True)
    monkeypatch.setattr(run, "STAND_IN_FACTOR", 1)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    out = tmp_path / "out"
    assert run.main(["--out", str(out), "--packed", str(tmp_path / "none")]) == 1
    ends = [line for line in results.read(out / "stages.jsonl") if line["event"] == "end"]
    assert [(line["stage"], line["exit"]) for line in ends] == [("slow", 124), ("next", 0)]
    assert ends[0]["ended"] == "killed at its limit" and 1.5 <= ends[0]["seconds"] < 10
    assert (out / "next.txt").read_text() == "next"
    assert "next: exit 0" in capsys.readouterr().out
    lines = results.read(out / "slow.jsonl")
    assert len(lines) > 3
    until(lambda: not runs(lines[0]["here"]) and not runs(lines[0]["child"]))


def test_a_kill_of_everything_leaves_the_lines_so_far(two_stages, tmp_path):
    out = tmp_path / "out"
    script = (
        "from gpu_check import run, stages\n"
        f"run.STAGES = tuple(stages.Stage(*x) for x in {[(s[0], 100, *s[2:]) for s in two_stages]!r})\n"
        "run.NAMES, run.ON_CPU = ('slow', 'next'), True\n"
        f"run.main(['--out', {str(out)!r}, '--packed', 'none'])\n"
    )
    whole = subprocess.Popen([sys.executable, "-c", script], env=environment())
    try:
        until(lambda: len(results.read(out / "slow.jsonl")) > 5)
    finally:
        whole.send_signal(signal.SIGKILL)
        whole.wait()
    before = results.read(out / "slow.jsonl")
    assert [line["number"] for line in before] == list(range(len(before)))
    assert [line["event"] for line in results.read(out / "stages.jsonl")] == ["start"]
    # The stage ends with the whole, though that could not tell it.
    until(lambda: not runs(before[0]["here"]))
    os.kill(before[0]["child"], signal.SIGKILL)


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a":')
    assert results.read(path) == [{"a": 1}, {"a": 2}]


def test_a_case_that_crashes_or_hangs_costs_itself_alone(monkeypatch, tmp_path):
    (tmp_path / "bad_cases.py").write_text(
        "import os, time\n"
        "def fail(): raise ValueError('no such thing')\n"
        "def well(): return {'ok': True, 'lanes': 4}\n"
        "runs = [well, fail, lambda: os._exit(9), lambda: time.sleep(60), well]\n"
        "def cases(backend): return [({'what': i, 'lanes': None}, r) for i, r in enumerate(runs)]\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    lines = []
    supervise.supervise("bad_cases", "cuda", lambda **fields: lines.append(fields), patience=1.0)
    assert [line["what"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["ok"] for line in lines] == [True, False, False, False, True]
    # A field that the case and its results share has the value of the results.
    assert [line["lanes"] for line in lines] == [4, None, None, None, 4]
    assert lines[1]["error"] == "ValueError: no such thing"
    assert lines[2]["error"] == "its process died: exit status 9"
    assert lines[3]["error"] == "no answer in 1 s"


def test_cases_that_cannot_be_listed_are_one_line():
    lines = []
    supervise.supervise("no_such_module", "cuda", lambda **fields: lines.append(fields), patience=1.0)
    assert lines == [{"backend": "cuda", "ok": False, "error": "no case could begin: exit status 1"}]


def test_errors_of_the_smoke():
    values = torch.tensor([1.0, float("nan"), 300.0])
    assert smoke_cases.error_of(values, values, None, False) == 0.0
    assert smoke_cases.error_of(values, values.nan_to_num(), None, False) == float("inf")
    assert smoke_cases.error_of(values, values + 3, None, False) == pytest.approx(0.75)
    assert smoke_cases.error_of(
        values, values + 3, torch.tensor([True, False, False]), False
    ) == pytest.approx(3 / 303)
    assert smoke_cases.error_of(values, values + 3, None, True) == pytest.approx(3 / 303)


def test_the_smoke_finds_a_wrong_kernel(cpu_backend, monkeypatch):
    from fqvae_kernels.backends import cpu

    monkeypatch.setattr(place, "ON_CPU", True)
    about, check = next(
        case
        for case in smoke_cases.cases(cpu_backend)
        if case[0]["what"] == "backward z" and case[0]["codes"] == 5
    )
    assert about["dtype"] == "float32" and check()["ok"]
    right = cpu.backward

    def wrong(*arguments):
        gradients = right(*arguments)
        gradients[0][3] += 1e-2
        return gradients

    monkeypatch.setattr(cpu, "backward", wrong)
    assert not check()["ok"]


@pytest.mark.parametrize("what", ["z, straight_through", "logits, straight_through, codebooks"])
def test_a_row_with_another_code_is_left_out_of_the_sums(cpu_backend, monkeypatch, what):
    """Costs that are equal to within rounding give two codes, and the gradients of a drawn code differ."""
    from fqvae_kernels.backends import cpu

    monkeypatch.setattr(place, "ON_CPU", True)
    check = next(
        case
        for about, case in smoke_cases.cases(cpu_backend)
        if about["what"] == f"backward {what}" and about["codes"] == 5
    )
    right = cpu.forward

    def ties(*arguments):
        made = right(*arguments)
        made[1].view(-1)[4] = (made[1].view(-1)[4] + 1) % 5
        return made

    monkeypatch.setattr(cpu, "forward", ties)
    found = check()
    assert found["ok"] and found["ties"] == 1


class Recording:
    """A launcher that runs nothing."""

    def __init__(self):
        self.launched = []

    def unavailable_reason(self, device):
        return None

    def describe(self, device):
        return Device(132, 228 * 1024)

    def launch(self, launch, *rest):
        self.launched.append(launch.kernel)


def test_geometries_are_forced_and_kernels_left_out(monkeypatch):
    from gpu_check import geometries, timing_cases

    from fqvae_kernels.backends import cuda

    launcher = Recording()
    monkeypatch.setattr(cuda, "launcher", launcher)
    monkeypatch.setattr(timing_cases, "device_name", lambda: "cpu")
    with geometries.forced(lanes=8, blocks=264) as seen:
        steps = timing_cases.pass_steps("cuda", 3072, 64)
        launcher.launched.clear()
        with geometries.only("reduce"):
            steps["both"]()
    assert launcher.launched == ["reduce"]
    assert {(got.lanes, got.blocks) for got in seen} == {(8, 264)}
    with geometries.forced() as seen:
        steps["forward"]()
    assert launcher.launched == ["reduce", "forward_z_float"] and len(seen) == 1
    many = timing_cases.pass_steps("cuda", 2**20, 64)
    with geometries.only("posterior"):
        many["forward"]()
    assert launcher.launched[-1] == "posterior_float"
    with geometries.forced(lanes=4):
        many["forward"]()
    assert launcher.launched[-1] == "forward_z_float"
    with geometries.only("backward"):
        timing_cases.pass_steps("cuda", 3072, 64, frozen=True)["both"]()
    assert launcher.launched[-1] == "backward_slopes_float"
    with (
        pytest.raises(geometries.MismatchError, match="no kernel began with 'none'"),
        geometries.only("none"),
    ):
        steps["forward"]()
    with (
        pytest.raises(geometries.MismatchError, match="asked for lanes 16"),
        geometries.forced(lanes=16) as seen,
    ):
        seen.append(geometries.geometry.Geometry(1, 64, 1, 0, 0))


def program(folder, name, hash):
    """A program as Triton's cache keeps it, under another folder than it was made in."""
    folder.mkdir(parents=True)
    (folder / f"{name}.cubin").write_bytes(b"code")
    (folder / f"{name}.source").write_text("not read again")
    (folder / f"{name}.json").write_text(json.dumps({"name": name, "hash": hash}))
    children = {
        f"{name}.{end}": f"/elsewhere/{folder.name}/{name}.{end}" for end in ("cubin", "source", "json")
    }
    (folder / f"__grp__{name}.json").write_text(json.dumps({"child_paths": children}))


def test_a_cache_travels(tmp_path):
    """Packed: programs asked for, and launchers. Unpacked anywhere: group files name the files there."""
    made = tmp_path / "made"
    program(made / "ONE", "kernel", "abcdefghijklm")
    program(made / "OLD", "kernel", "zzzzzzzzzzzzz")
    (made / "LAUNCHER").mkdir()
    (made / "LAUNCHER" / "launcher.so").write_bytes(b"")
    packed.pack(made, tmp_path / packed.CACHE, {"kernel-abcdefghij"})
    there = tmp_path / "there"
    variables = packed.take(tmp_path, there, package=tmp_path / "package")
    assert variables == {"TRITON_CACHE_DIR": str(there)}
    found = sorted(str(path.relative_to(there)) for path in there.glob("*/*"))
    assert found == ["LAUNCHER/launcher.so", "ONE/__grp__kernel.json", "ONE/kernel.cubin", "ONE/kernel.json"]
    group = json.loads((there / "ONE" / "__grp__kernel.json").read_text())["child_paths"]
    assert group == {f"kernel.{end}": str(there / "ONE" / f"kernel.{end}") for end in ("cubin", "json")}


def test_the_extension_travels(tmp_path):
    """Into a package that has none for this Python, and over none that is there."""
    suffix = packed.sysconfig.get_config_var("EXT_SUFFIX")
    packing, package = tmp_path / "packed", tmp_path / "package"
    packing.mkdir()
    package.mkdir()
    for name in (f"_native{suffix}", f"_cuda{suffix}", "_build.json"):
        (packing / name).write_text("packed")
    (package / f"_native{suffix}").write_text("there before")
    assert packed.take(packing, tmp_path / "cache", package=package) == {}
    assert (package / f"_native{suffix}").read_text() == "there before"
    assert (package / f"_cuda{suffix}").read_text() == (package / "_build.json").read_text() == "packed"


def test_sizes_that_only_a_device_has_are_asked_for():
    """sizes_cases.py stands for the tests whose sizes are smaller where the CPU stands in."""
    from gpu_check import sizes_cases

    source = (ROOT / "tests" / "gpu" / "test_gpu_devices.py").read_text()
    marked = re.findall(r"@pytest.mark.long\ndef test_more_than_2_to_the_31_(\w+)\(", source)
    names = [about["what"] for about, _ in sizes_cases.cases("triton")]
    assert names == [*marked, "million"]
    assert source.count('device.type == "cuda" else 2**') == len(marked)


def test_the_command_with_the_cpu_as_stand_in(tmp_path):
    done = subprocess.run(
        ["bash", str(SCRIPT), "--out", "out", "--packed", "none", "facts", "ncu"],
        cwd=tmp_path,
        env=environment(FQVAE_GPU_TESTS_ON="cpu"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fqvae_kernels" in (tmp_path / "out" / "facts.txt").read_text()
    (line,) = results.read(tmp_path / "out" / "ncu.jsonl")
    assert line["skipped"]
    told = [line["stage"] for line in results.read(tmp_path / "out" / "stages.jsonl")]
    assert told == ["facts", "facts", "ncu", "ncu"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["smoke", "timings"])
def test_a_stage_with_the_cpu_as_stand_in(tmp_path, stage, native):
    done = subprocess.run(
        ["bash", str(SCRIPT), "--out", "out", "--packed", "none", "--limit", f"{stage}=900", stage],
        cwd=tmp_path,
        env=environment(FQVAE_GPU_TESTS_ON="cpu"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = results.read(tmp_path / "out" / f"{stage}.jsonl")
    assert len(lines) >= {"smoke": 900, "timings": 39}[stage]
    assert not [line for line in lines if "error" in line]
