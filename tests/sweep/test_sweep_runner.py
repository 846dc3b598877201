"""The processes of a sweep, with stand-ins for training and evaluation."""

import fcntl
import os
import pathlib
import pty
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time

import pytest

from fqvae.runs import load_preset
from fqvae.sweep import Job
from fqvae.sweep.local import Local
from fqvae.sweep.progress import Progress
from fqvae.sweep.runner import locked, run_jobs, share_of_threads

CONFIG = load_preset("smoke", "ae")


def python(code):
    return [sys.executable, "-S", "-c", textwrap.dedent(code)]


def jobs_in(folder, *names):
    return [Job(name, 0, folder / name / "seed-0", CONFIG, ()) for name in names]


def run(jobs, stages, threads=None, **options):
    progress = Progress(len(jobs), 1)
    place = Local(stages, threads, progress.note)
    try:
        return {each.job.name: each.failure for each in run_jobs(jobs, place, progress, **options)}
    finally:
        progress.close()


def in_process(code):
    """Start Python with this code, in which SIGINT means KeyboardInterrupt whatever this process does."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def alive(process_id):
    """Whether there is such a process; one that nobody has waited for is none."""
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{process_id}/status").read_text()
    except FileNotFoundError:
        return False


def number_in(path):
    """The number in a file; None until it is there."""
    return int(path.read_text()) if path.exists() and path.read_text().endswith("\n") else None


def test_one_that_fails_does_not_stop_the_others(tmp_path, capsys):
    commands = {
        "good": "print('fine')",
        "bad": "print('step 1'); raise SystemExit('fqvae: error: the loss is NaN')",
        "crash": "import os; print('begun', flush=True); os.abort()",
        "silent": "raise SystemExit(7)",
        "bar": r"import sys; sys.stderr.write('10%\r20%\rValueError: no\n'); sys.exit(1)",
        "last": "print('fine')",
    }

    def stages(job):
        if job.name == "refused":
            raise ValueError("its checkpoint is damaged")
        yield "training", python(commands[job.name])
        (tmp_path / f"{job.name} is evaluated").write_text("")
        yield "evaluating", python("")

    errors = run(jobs_in(tmp_path, "refused", *commands), stages)
    assert errors == {
        "refused": "its checkpoint is damaged",
        "good": None,
        "bad": "fqvae: error: the loss is NaN",
        "crash": "training was ended by SIGABRT",
        "silent": "training ended with exit status 7",
        "bar": "ValueError: no",
        "last": None,
    }
    # No second stage after a first one that failed.
    assert sorted(each.name for each in tmp_path.glob("* is evaluated")) == [
        "good is evaluated",
        "last is evaluated",
    ]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["refused", *commands]
    assert lines[2] == "bad, seed 0: failed: fqvae: error: the loss is NaN, 0.0 min"
    assert lines[1] == "good, seed 0: step 0 of 3,000, evaluated, 0.0 min"
    log = (tmp_path / "good" / "seed-0.log").read_text()
    assert log.count("$ ") == 2 and "\nfine\n" in log


def test_once_no_more_may_begin_those_that_run_are_waited_for(tmp_path):
    """Two at a time; from the second look on none may begin: of four jobs two run to their end."""
    begun = []

    def stages(job):
        begun.append(job.name)
        yield (
            "training",
            python(f"import time; time.sleep(0.3); open({str(tmp_path / job.name)!r} + '.ended', 'w')"),
        )

    looks = iter([True])
    jobs = jobs_in(tmp_path, "a", "b", "c", "d")
    assert run(jobs, stages, at_a_time=2, begins=lambda: next(looks, False)) == {"a": None, "b": None}
    assert begun == ["a", "b"] and sorted(each.stem for each in tmp_path.glob("*.ended")) == ["a", "b"]


def test_a_log_is_continued_and_an_old_error_is_not_told_again(tmp_path):
    (job,) = jobs_in(tmp_path, "a")
    assert run([job], lambda _: iter([("training", python("raise SystemExit('first')"))])) == {"a": "first"}
    errors = run([job], lambda _: iter([("training", python("raise SystemExit(2)"))]))
    assert errors == {"a": "training ended with exit status 2"}
    assert "first" in job.log.read_text() and job.log.read_text().count("$ ") == 2


def test_a_program_or_folder_that_is_not_there(tmp_path):
    (tmp_path / "b").write_text("")

    def stages(job):
        yield "training", ["/no/such/program"] if job.name == "a" else python("")

    errors = run(jobs_in(tmp_path, "a", "b", "c"), stages)
    assert "/no/such/program" in errors["a"] and str(tmp_path / "b") in errors["b"] and errors["c"] is None


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_so_many_at_a_time(at_a_time, tmp_path):
    code = "import time; print(time.time(), flush=True); time.sleep(0.5); print(time.time())"
    jobs = jobs_in(tmp_path, *"abcde")
    errors = run(jobs, lambda _: iter([("training", python(code))]), at_a_time=at_a_time)
    assert errors == dict.fromkeys("abcde")
    spans = [[float(line) for line in job.log.read_text().splitlines()[-2:]] for job in jobs]
    # How many were at work when each began.
    together = [sum(begin <= moment < end for begin, end in spans) for moment, _ in spans]
    assert max(together) == at_a_time
    assert [begin for begin, _ in spans] == sorted(begin for begin, _ in spans) or at_a_time > 1


def test_the_environment(tmp_path, monkeypatch):
    code = "import os; print(os.environ.get('OMP_NUM_THREADS'), os.environ['PYTHONUNBUFFERED'])"
    printed = []
    for name, before, threads in (("a", None, 2), ("b", None, None), ("c", "5", 2)):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if before:
            monkeypatch.setenv("OMP_NUM_THREADS", before)
        (job,) = jobs_in(tmp_path, name)
        run([job], lambda _: iter([("training", python(code))]), threads=threads)
        printed.append(job.log.read_text().splitlines()[-1])
    assert printed == ["2 1", "None 1", "5 1"]  # what a person has set, stays


def test_shares(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [share_of_threads(jobs) for jobs in (1, 2, 3, 8, 20)] == [None, 4, 2, 1, 1]


def test_two_sweeps_in_one_folder(tmp_path):
    with (
        locked(tmp_path / "out"),
        pytest.raises(BlockingIOError, match="out is in use by another sweep that is running now"),
        locked(tmp_path / "out"),
    ):
        pass
    with locked(tmp_path / "out"):
        pass


SWEEP = """
    import pathlib, sys
    from fqvae.sweep import Job
    from fqvae.sweep.local import Local
    from fqvae.sweep.progress import Progress
    from fqvae.sweep.runner import run_jobs
    from fqvae.runs import load_preset

    folder = pathlib.Path({folder!r})
    child = [sys.executable, "-c", {child!r}, str(folder)]
    jobs = [Job(n, 0, folder / n / "seed-0", load_preset("smoke", "ae"), ()) for n in ("a", "b")]
    try:
        place = Local(lambda job: iter([("training", [*child, job.name])]), None, print)
        run_jobs(jobs, place, Progress(2, 2), at_a_time=2)
    except KeyboardInterrupt:
        (folder / "interrupted").write_text("1\\n")
"""
# Tells that it runs, and on an interrupt takes its time to write what a training would write.
WRITES = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
(folder / f"{name}.pid").write_text(f"{os.getpid()}\\n")
try:
    time.sleep(100)
except KeyboardInterrupt:
    time.sleep(0.5)
    (folder / f"{name}.saved").write_text("1\\n")
"""
STUBBORN = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
(folder / f"{name}.pid").write_text(f"{os.getpid()}\\n")
time.sleep(100)
"""


def test_an_interrupt_is_passed_on_and_waited_for(tmp_path):
    parent = in_process(SWEEP.format(folder=str(tmp_path), child=WRITES))
    wait_for(lambda: all(number_in(tmp_path / f"{name}.pid") for name in "ab"))
    parent.send_signal(signal.SIGINT)
    assert parent.wait(60) == 0 and "Traceback" not in parent.communicate()[1]
    # All of it was there before the parent ended.
    assert all((tmp_path / name).exists() for name in ("a.saved", "b.saved", "interrupted"))
    assert not any(alive(number_in(tmp_path / f"{name}.pid")) for name in "ab")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_an_interrupt_while_a_process_is_started_does_not_lose_it(tmp_path):
    started = """
        import os, pathlib, signal, subprocess

        class Popen(subprocess.Popen):
            def __init__(self, command, **options):
                super().__init__(command, **options)
                pathlib.Path(command[-2], f"{self.pid}.started").write_text(f"{self.pid}\\n")
                os.kill(os.getpid(), signal.SIGINT)

        subprocess.Popen = Popen
    """
    code = textwrap.dedent(started) + textwrap.dedent(SWEEP.format(folder=str(tmp_path), child=WRITES))
    parent = in_process(code)
    parent.communicate(timeout=60)
    files = list(tmp_path.glob("*.started"))
    assert files and (tmp_path / "interrupted").exists()
    assert not any(alive(number_in(file)) for file in files)


def test_a_second_interrupt_kills(tmp_path):
    parent = in_process(SWEEP.format(folder=str(tmp_path), child=STUBBORN))
    wait_for(lambda: all(number_in(tmp_path / f"{name}.pid") for name in "ab"))
    parent.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert parent.poll() is None and all(alive(number_in(tmp_path / f"{name}.pid")) for name in "ab")
    parent.send_signal(signal.SIGINT)
    parent.communicate(timeout=60)
    assert (tmp_path / "interrupted").exists()
    assert not any(alive(number_in(tmp_path / f"{name}.pid")) for name in "ab")


# The command that stands in for `fqvae` is run the way a sweep runs that one.
KEPT = """
import os, pathlib, subprocess, sys, time
import fqvae.sweep.child as child

def main():
    folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
    if "stubborn" in str(folder):  # as an evaluation that computes in processes of its own
        worker = subprocess.Popen(["sleep", "100"])
        (folder / f"{name}-worker.pid").write_text(f"{worker.pid}\\n")
    (folder / f"{name}.pid").write_text(f"{os.getpid()}\\n")
    try:
        time.sleep(100)
    except KeyboardInterrupt:
        (folder / f"{name}.saved").write_text("1\\n")
        while "stubborn" in str(folder):
            time.sleep(1)
    return 0

child.main, child.GRACE = main, 1.0
sys.exit(child.run())
"""


@pytest.mark.parametrize("name", ["obedient", "obedient, SIGINT blocked", "stubborn"])
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_children_end_with_their_parent(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    # In the background of a shell, SIGINT is ignored, and that is handed down.
    code = SWEEP.format(folder=str(folder), child=KEPT)
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + textwrap.dedent(code)
    if "blocked" in name:  # as by a worker of Ray
        code = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n" + code
    parent = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: all(number_in(folder / f"{each}.pid") for each in "ab"))
    processes = [number_in(file) for file in folder.glob("*.pid")]
    assert all(alive(each) for each in processes) and len(processes) == (4 if name == "stubborn" else 2)
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(alive(each) for each in processes), 10)
    assert all((folder / f"{each}.saved").exists() for each in "ab")


def test_the_next_sweep_waits_for_what_was_left(tmp_path, capsys):
    """A process of a sweep that was killed may still write its checkpoint when the next one begins."""
    (job,) = jobs_in(tmp_path, "a")
    slow = f"""
        import os, sys, time
        if os.fork() == 0:  # holds the log open, as a run does that outlives its sweep
            time.sleep(2)
            open({str(tmp_path / "left")!r}, "w").close()
    """
    assert run([job], lambda _: iter([("training", python(slow))])) == {"a": None}
    assert not (tmp_path / "left").exists()
    check = f"import os; assert os.path.exists({str(tmp_path / 'left')!r})"
    assert run([job], lambda _: iter([("training", python(check))])) == {"a": None}
    assert "a, seed 0: waiting for a process of an earlier sweep to end" in capsys.readouterr().err


def test_on_a_terminal(tmp_path):
    """A bar over the runs, a line for the one at work, a line for each that ended; all on standard error."""
    (job,) = jobs_in(tmp_path, "a")
    job.folder.mkdir(parents=True)
    (job.folder / "metrics.csv").write_text("step,loss\n1,0.5\n1200,0.1\n")
    code = SWEEP.format(folder=str(tmp_path), child="import time; time.sleep(1)")
    own, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 30, 120, 0, 0))
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=terminal)
    os.close(terminal)
    printed = b""
    try:
        while part := os.read(own, 4096):
            printed += part
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(own)
    assert parent.wait() == 0
    text = printed.decode()
    assert "a, seed 0: training, step 1,200 of 3,000, 0.0 min" in text
    assert "a, seed 0: step 1,200 of 3,000, evaluated, 0.0 min" in text
    assert "runs: 0 of 2 |" in text and "runs: 1 of 2 |" in text
