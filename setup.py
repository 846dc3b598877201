"""The native build: one CMake project, compiled where the machine can and left out where it cannot.

The environment variable FQVAE_BUILD says what to build:

auto    the default: the CPU kernels if a C++17 compiler works here, the CUDA kernels besides if there is
        an nvcc, else the pure-Python package and a notice
cpu     the CPU kernels, or stop with one sentence
cuda    the CPU and the CUDA kernels, or stop with one sentence
none    the pure-Python package

CXX names the C++ compiler and CUDACXX nvcc, which is looked for on the PATH and in CUDA_HOME/bin otherwise.
FQVAE_CUDA_ARCHS lists the GPU architectures ("80 90"); the default is those of CUDA_ARCHITECTURES that this
nvcc knows. PTX of the last one serves the GPUs that come after. "native" is those of the GPUs in this
machine, or stops with one sentence, under FQVAE_BUILD=auto too. FQVAE_WERROR=1 makes warnings errors,
CMAKE_BUILD_PARALLEL_LEVEL or MAX_JOBS sets the number of jobs. What was built, and why not more, is written
to fqvae_kernels/_build.json. Neither this file nor the C++ knows torch, so the build works in isolation and
its result serves every torch release.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
PACKAGE = "fqvae_kernels"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
CUDA_ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
CHOICES = ("auto", "cpu", "cuda", "none")
PROBE = "#include <optional>\nint main() { std::optional<int> x = 0; return *x; }\n"


class BuildError(Exception):
    """The native module cannot be built; the message is one sentence without its full stop."""


@dataclass(frozen=True)
class Plan:
    """What to build: `compiler` is None for the pure-Python package, and `reason` then says why.

    `nvcc` is None without CUDA kernels, and `cuda_reason` says why.
    """

    requested: str
    compiler: list[str] | None
    reason: str | None
    nvcc: str | None = None
    architectures: tuple[int, ...] = ()
    cuda_reason: str | None = None  # why there will be no CUDA kernels


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
    if requested == "none":
        reason = "FQVAE_BUILD=none asked for the pure-Python package"
        return Plan(requested, None, reason, cuda_reason=reason)
    try:
        compiler = find_compiler(environ)
    except BuildError as error:
        if requested != "auto":
            raise SystemExit(f"FQVAE_BUILD={requested} cannot be met: {error}.") from None
        return Plan(requested, None, str(error), cuda_reason=str(error))
    if requested == "cpu":
        return Plan(requested, compiler, None, cuda_reason="FQVAE_BUILD=cpu asked for the CPU kernels alone")
    try:
        nvcc = find_nvcc(environ)
        return Plan(requested, compiler, None, nvcc, cuda_architectures(nvcc, environ))
    except BuildError as error:
        if requested == "cuda":
            raise SystemExit(f"FQVAE_BUILD=cuda cannot be met: {error}.") from None
        if asked_architectures(environ) == ["native"]:
            raise SystemExit(f"FQVAE_CUDA_ARCHS=native cannot be met: {error}.") from None
        return Plan(requested, compiler, None, cuda_reason=str(error))


def find_nvcc(environ) -> str:
    """The path of the CUDA compiler. Raises BuildError."""
    named = environ.get("CUDACXX", "").strip()
    home = environ.get("CUDA_HOME", "").strip()
    found = shutil.which(named or "nvcc", path=environ.get("PATH"))
    if found is None and not named and home:
        found = shutil.which("nvcc", path=str(Path(home, "bin")))
    if found is None:
        where = f"CUDACXX={named} names no program" if named else "nvcc is not on the PATH"
        raise BuildError(f"there is no CUDA compiler ({where})")
    return found


def cuda_architectures(nvcc: str, environ) -> tuple[int, ...]:
    """The GPU architectures to build for, in rising order. Raises BuildError."""
    done = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, env=environ)
    known = {int(number) for number in re.findall(r"compute_(\d+)\b", done.stdout)}
    if not known:
        raise BuildError(f"{nvcc} does not say which GPUs it compiles for ({first_error(done.stderr)})")
    asked = asked_architectures(environ)
    if not asked:
        return tuple(number for number in CUDA_ARCHITECTURES if number in known)
    native = asked == ["native"]
    numbers = set()
    for name in native_architectures(environ) if native else asked:
        number = name.replace(".", "")
        if not number.isdigit() or int(number) not in known:
            names = f"a GPU here is of {name}" if native else f"FQVAE_CUDA_ARCHS names {name}"
            raise BuildError(f"{names}, and this nvcc knows {', '.join(map(str, sorted(known)))}")
        numbers.add(int(number))
    return tuple(sorted(numbers))


def asked_architectures(environ) -> list[str]:
    """The words of FQVAE_CUDA_ARCHS."""
    return environ.get("FQVAE_CUDA_ARCHS", "").replace(",", " ").replace(";", " ").split()


def native_architectures(environ) -> list[str]:
    """The compute capabilities ("8.6") of the GPUs in this machine, as its driver says. Raises BuildError."""
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if program is None:
        raise BuildError("it cannot be seen which GPU is here (nvidia-smi is not on the PATH)")
    query = [program, "--query-gpu=compute_cap", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, errors="replace", env=environ)
    found = re.findall(r"^\s*(\d+\.\d+)\s*$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or not found:
        raise BuildError(f"nvidia-smi names no GPU here ({first_error(done.stderr or done.stdout)})")
    return found


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
        sys.stdout.flush()  # at once: the lines say how far a build has come, which takes minutes
        output.append(line)
    log.extend(output)
    if process.wait() != 0:
        raise BuildError(f"{Path(command[0]).name} failed ({first_error(''.join(output))})")


def compile_modules(plan: Plan, build_base: Path, log: list[str]) -> dict[str, Path]:
    """Builds the extension modules of the plan and returns their paths by name. Raises BuildError."""
    try:
        import pybind11
    except ImportError:
        raise BuildError("pybind11 is missing: install it with pip, or let pip isolate the build") from None
    environ = dict(os.environ, CXX=shlex.join(plan.compiler))
    if environ.get("MAX_JOBS"):  # what torch's own extension builds read
        environ.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", environ["MAX_JOBS"])
    # CMake cannot change a build folder's compiler, flags or source folder, so each combination has its own.
    choices = [str(ROOT), sysconfig.get_path("include"), str(plan.nvcc), str(plan.architectures)]
    choices += [environ.get(name, "") for name in ("CXX", "CXXFLAGS", "LDFLAGS", "CUDAFLAGS")]
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
    modules = ["_native"]
    if plan.nvcc is not None:
        modules.append("_cuda")
        real = [f"{number}-real" for number in plan.architectures]
        configure += [
            "-DFQVAE_CUDA=ON",
            f"-DCMAKE_CUDA_COMPILER={plan.nvcc}",
            f"-DCMAKE_CUDA_ARCHITECTURES={';'.join([*real, f'{plan.architectures[-1]}-virtual'])}",
        ]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        run(configure, environ, log)
        announce_compilation(folder, modules)
        # Ninja prints a line, with its number and of how many, as each object is done.
        run([tool("cmake"), "--build", str(folder), "--target", *modules], environ, log)
    finally:
        (folder / "build.log").write_text("".join(log))
    return {name: folder / f"{name}{SUFFIX}" for name in modules}


def announce_compilation(folder: Path, modules: list[str]) -> None:
    """Says how many objects are to be compiled, and how long that takes; nothing if all are there."""
    asked = [tool("ninja"), "-C", str(folder), "-n", *modules]
    listed = subprocess.run(asked, capture_output=True, text=True, errors="replace").stdout
    objects = len(re.findall(r"^\[\d+/\d+\] Building ", listed, re.MULTILINE))
    if objects:
        minutes = "three minutes" if "_cuda" in modules else "one to two minutes"
        announce(f"compiling {objects} objects; all of them take {minutes} of CPU time on a recent machine.")


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
        modules, reason, cuda_reason = {}, plan.reason, plan.cuda_reason
        if plan.compiler is not None:
            modules, reason, cuda_reason = self.compile(plan)
        for name in ("_native", "_cuda"):
            # Removed even where nothing replaces it; never overwritten: a running process may have it mapped.
            (package / f"{name}{SUFFIX}").unlink(missing_ok=True)
            if name in modules:
                shutil.copy2(modules[name], package / f"{name}{SUFFIX}")
        if not modules and plan.requested == "auto":
            announce(
                f"the CPU kernels were NOT built: {reason}. The package works without them, slower, on plain "
                f"PyTorch. FQVAE_BUILD=cpu makes this an error; FQVAE_BUILD=none says that it is meant."
            )
        elif plan.nvcc is not None and "_cuda" not in modules:
            announce(f"the CUDA kernels were NOT built: {cuda_reason}. FQVAE_BUILD=cuda makes this an error.")
        built = [backend for backend, name in (("cpu", "_native"), ("cuda", "_cuda")) if name in modules]
        record = {"requested": plan.requested, "built": built, "reason": reason, "cuda_reason": cuda_reason}
        (package / "_build.json").write_text(json.dumps(record) + "\n")

    def compile(self, plan: Plan):
        """The modules that could be built, and why not the native and the CUDA one. SystemExit where the plan
        is an explicit choice that cannot be met.
        """
        base = Path(self.build_base).resolve()
        log: list[str] = []
        try:
            return compile_modules(plan, base, log), None, plan.cuda_reason
        except BuildError as error:
            if plan.requested != "auto":
                raise SystemExit(f"FQVAE_BUILD={plan.requested} cannot be met: {error}.") from None
            reason = str(error)
        if plan.nvcc is None:
            return {}, reason, plan.cuda_reason
        try:  # it may have been the CUDA compiler's fault
            return compile_modules(replace(plan, nvcc=None, architectures=()), base, log), None, reason
        except BuildError as error:
            return {}, str(error), str(error)

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
