"""The native build: one CMake project, compiled where the machine can and left out where it cannot.

The environment variable FQVAE_BUILD says what to build:

auto    the default: the CPU kernels if a C++17 compiler works here, else the pure-Python package
        and a notice
cpu     the CPU kernels, or stop with one sentence
cuda    not part of this release: stops with one sentence
none    the pure-Python package

CXX names the compiler, FQVAE_WERROR=1 makes its warnings errors, CMAKE_BUILD_PARALLEL_LEVEL or MAX_JOBS
sets the number of jobs. What was built, and why not more, is written to fqvae_kernels/_build.json. Neither
this file nor the C++ knows torch, so the build works in isolation and its result serves every torch release.
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
PACKAGE = "fqvae_kernels"
MODULE = f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
CHOICES = ("auto", "cpu", "cuda", "none")
PROBE = "#include <optional>\nint main() { std::optional<int> x = 0; return *x; }\n"


class BuildError(Exception):
    """The native module cannot be built; the message is one sentence without its full stop."""


@dataclass(frozen=True)
class Plan:
    """What to build: `compiler` is None for the pure-Python package, and `reason` then says why."""

    requested: str
    compiler: list[str] | None
    reason: str | None


def find_compiler(environ) -> list[str]:
    """The command of a compiler that can build and link C++17. Raises BuildError."""
    named = environ.get("CXX", "").strip()
    with contextlib.suppress(ValueError):  # unbalanced quotes: not a command, so not found
        for candidate in [named] if named else ["c++", "g++", "clang++"]:
            command = shlex.split(candidate)
            if shutil.which(command[0], path=environ.get("PATH")):
                probe(command, environ)
                return command
    where = f"CXX={named} names no program" if named else "none of c++, g++ and clang++ is on the PATH"
    raise BuildError(f"there is no C++ compiler ({where})")


def probe(command: list[str], environ) -> None:
    """Builds a small C++17 program. Raises BuildError."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text(PROBE)
        command = [*command, "-std=c++17", str(source), "-o", str(source.with_suffix(""))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environ)
            problem = first_error(done.stderr) if done.returncode != 0 else ""
        except OSError as error:
            problem = str(error)
    if problem:
        raise BuildError(f"the C++ compiler {command[0]} cannot build a C++17 program ({problem})")


def make_plan(environ) -> Plan:
    """Reads FQVAE_BUILD. Raises SystemExit with one sentence where an explicit choice cannot be met."""
    requested = environ.get("FQVAE_BUILD", "").strip() or "auto"
    if requested not in CHOICES:
        raise SystemExit(f"FQVAE_BUILD={requested} is unknown: it may be auto, cpu, cuda or none.")
    if requested == "cuda":
        raise SystemExit("FQVAE_BUILD=cuda cannot be met: the CUDA backend is not part of this release yet.")
    if requested == "none":
        return Plan(requested, None, "FQVAE_BUILD=none asked for the pure-Python package")
    try:
        return Plan(requested, find_compiler(environ), None)
    except BuildError as error:
        if requested == "cpu":
            raise SystemExit(f"FQVAE_BUILD=cpu cannot be met: {error}.") from None
        return Plan(requested, None, str(error))


def first_error(log: str) -> str:
    """The first error in the output of a compiler or of CMake, on one line."""
    lines = log.splitlines()
    for i, line in enumerate(lines):
        if line.startswith("CMake Error"):
            # CMake puts the place on one line and the text, indented, on the next ones.
            text = " ".join(part.strip() for part in lines[i + 1 : i + 6] if part.startswith("  "))
            return text or line
        if re.search(r"\berror\b", line, re.IGNORECASE):
            return line.strip()
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def tool(name: str) -> str:
    """The path of cmake or ninja: in a build environment it is on the PATH, else it may lie beside Python."""
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        raise BuildError(f"{name} is missing: install it with pip, or let pip isolate the build")
    return path


def run(command: list[str], environ, log: list[str]) -> None:
    """Runs a command, passes its output on and appends it to `log`. Raises BuildError if it fails."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environ
    )
    output = []
    for line in process.stdout:
        sys.stdout.write(line)
        output.append(line)
    sys.stdout.flush()
    log.extend(output)
    if process.wait() != 0:
        raise BuildError(f"{Path(command[0]).name} failed ({first_error(''.join(output))})")


def compile_native(compiler: list[str], build_base: Path) -> Path:
    """Builds the extension module and returns its path. Raises BuildError."""
    try:
        import pybind11
    except ImportError:
        raise BuildError("pybind11 is missing: install it with pip, or let pip isolate the build") from None
    environ = dict(os.environ, CXX=shlex.join(compiler))
    if environ.get("MAX_JOBS"):  # what torch's own extension builds read
        environ.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", environ["MAX_JOBS"])
    # CMake cannot change a build folder's compiler, flags or source folder, so each combination has its own.
    choices = [str(ROOT), sysconfig.get_path("include")]
    choices += [environ.get(name, "") for name in ("CXX", "CXXFLAGS", "LDFLAGS")]
    key = hashlib.sha256("\0".join(choices).encode()).hexdigest()[:8]
    folder = build_base / f"cmake-{sys.implementation.cache_tag}-{key}"
    werror = environ.get("FQVAE_WERROR", "").strip().lower() in ("1", "on", "yes", "true")
    # Tools and headers are named anew each time: every isolated build has them in another place.
    configure = [
        *(tool("cmake"), "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DFQVAE_WERROR={'ON' if werror else 'OFF'}",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    log: list[str] = []
    try:
        run(configure, environ, log)
        run([tool("cmake"), "--build", str(folder), "--target", "_native"], environ, log)
    finally:
        (folder / "build.log").write_text("".join(log))
    return folder / MODULE


def announce(text: str) -> None:
    """Prints a notice, also to the terminal itself: pip hides the output of a build that succeeds."""
    notice = f"\n*** {PACKAGE}: {text}\n\n"
    sys.stderr.write(notice)
    if not sys.stderr.isatty():
        with contextlib.suppress(OSError), open("/dev/tty", "w") as terminal:
            terminal.write(notice)


class BuildNative(Command):
    """The part of `build` that places _native*.so and _build.json into the package.

    They go into the build folder, or into the source tree for an editable install.
    """

    description = "compile the native module"
    user_options: ClassVar = []

    def initialize_options(self):
        self.build_lib = None
        self.build_base = None
        self.editable_mode = False

    def finalize_options(self):
        self.set_undefined_options("build", ("build_lib", "build_lib"), ("build_base", "build_base"))

    def run(self):
        plan = self.distribution.plan
        package = (ROOT if self.editable_mode else Path(self.build_lib)) / PACKAGE
        package.mkdir(parents=True, exist_ok=True)
        module, reason = None, plan.reason
        if plan.compiler is not None:
            try:
                module = compile_native(plan.compiler, Path(self.build_base).resolve())
            except BuildError as error:
                reason = str(error)
        if module is None and plan.requested == "cpu":
            raise SystemExit(f"FQVAE_BUILD=cpu cannot be met: {reason}.")
        # Removed even where nothing replaces it; never overwritten, as a running process may have it mapped.
        (package / MODULE).unlink(missing_ok=True)
        if module is not None:
            shutil.copy2(module, package / MODULE)
        built = [] if module is None else ["cpu"]
        if not built and plan.requested == "auto":
            announce(
                f"the CPU kernels were NOT built: {reason}. The package works without them, slower, on plain "
                f"PyTorch. FQVAE_BUILD=cpu makes this an error; FQVAE_BUILD=none says that it is meant."
            )
        record = {"requested": plan.requested, "built": built, "reason": reason}
        (package / "_build.json").write_text(json.dumps(record) + "\n")

    def get_source_files(self):
        return []

    def get_outputs(self):
        return []

    def get_output_mapping(self):
        return {}


class Build(build):
    """`build` that forgets its last result: whatever lies in that folder is packed into the wheel."""

    sub_commands: ClassVar = [*build.sub_commands, ("build_native", None)]

    def run(self):
        for package in ("fqvae", PACKAGE):
            shutil.rmtree(Path(self.build_lib, package), ignore_errors=True)
        super().run()


class NativeDistribution(Distribution):
    """Knows the plan, and so whether the wheel belongs to one platform: CMake compiles, not setuptools."""

    plan: Plan

    def has_ext_modules(self):
        return self.plan.compiler is not None


if __name__ == "__main__":
    NativeDistribution.plan = make_plan(dict(os.environ))
    setup(distclass=NativeDistribution, cmdclass={"build": Build, "build_native": BuildNative})
