"""README.md and the pages of docs/: their Python runs, their commands exist, their links lead somewhere."""

import ast
import contextlib
import functools
import importlib
import importlib.util
import io
import re
import shlex

import pytest
import torch
import yaml
from pages import REASONS, ROOT, anchors, blocks, links, pages, parse, shell_lines, spans, text

from fqvae.cli import main
from fqvae_kernels import unpatch

PAGES = pages()
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
# Programs that are not of this repository; their own documentation says what they take.
FOREIGN = {
    *("cd", "clang-format", "export", "git", "mkdocs", "mypy", "pre-commit", "ray", "ruff", "source"),
    *("srun", "torchrun"),
}


@pytest.fixture
def own_place(tmp_path, monkeypatch):
    """An empty folder to work in; what a page changes in PyTorch is put back."""
    monkeypatch.chdir(tmp_path)
    dtype = torch.get_default_dtype()
    yield
    unpatch()
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(True)


# PyTorch's own, of its ONNX export.
@pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_runs(page, own_place):
    """The blocks of a page run one after the other, as a reader would type them in."""
    names = {"__name__": "__main__"}
    skipped = []
    for block in blocks(page, "python"):
        if block.mark == "needs" and importlib.util.find_spec(block.of) is None:
            skipped.append(f"{block} needs {block.of}")
        elif block.mark in ("", "needs"):
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.padded, str(ROOT / page), "exec"), names)
    if skipped:
        pytest.skip("ran, but for " + ", ".join(skipped))


@pytest.mark.parametrize("page", PAGES)
def test_python_that_is_not_run(page):
    """Its reason is one that counts, it is Python, and what it imports of this project exists."""
    for block in blocks(page, "python"):
        assert block.mark in ("", "needs", "not run", "run apart"), f"{block}: {block.mark!r}"
        if block.mark == "not run":
            assert block.of.startswith(REASONS), f"{block}: {block.of!r} is no reason; it may be {REASONS}"
        if block.mark == "run apart":
            assert page in (ROOT / "tests" / block.of).read_text("utf-8"), f"{block}: not run there"
        for node in ast.walk(ast.parse(block.padded, str(block))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fqvae"):
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert hasattr(module, name.name), f"{block}: {node.module} has no {name.name}"


@functools.cache
def help_of(command):
    """What `fqvae COMMAND --help` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0, f"fqvae {command} --help ended with {end.value.code}"
    return printed.getvalue()


def check_fqvae(words):
    """The command and its options exist, and its settings are ones that it takes."""
    command, *rest = words
    if command.startswith("--"):
        assert command in help_of("")
        return
    assert re.search(rf"^    {command} ", help_of(""), re.MULTILINE), f"there is no command {command}"
    for option in (word.partition("=")[0] for word in rest if word.startswith("--")):
        assert re.search(rf"{option}\b", help_of(command)), f"fqvae {command} has no option {option}"
    settings = [word for word in rest if re.fullmatch(r"[a-z]\w*(\.\w+)*=\S+", word)]
    if command == "train" and rest and not re.search(r"[A-Z.]", rest[0]) and not rest[0].startswith("--"):
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(["train", rest[0], *settings, "--keys"]) == 0, f"fqvae train {rest}"


def check_command(line):
    """A command of a shell block exists, and so do its files, extras, markers and options."""
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
    if not words:
        return
    program, *rest = words
    if program == "fqvae":
        check_fqvae(rest)
    elif program in ("python", "python3") and rest[0] == "-m":
        if rest[1] == "fqvae":
            check_fqvae(rest[2:])
        assert rest[1] in ("pip", "gpu_check.triton_cache") or importlib.util.find_spec(rest[1]), line
    elif program in ("python", "python3"):
        source = ROOT / rest[0]
        code = "".join(
            file.read_text("utf-8") for file in ([source] if source.is_file() else source.glob("*.py"))
        )
        assert code, f"{line}: there is no {rest[0]}"
        missing = [word for word in rest[1:] if word.startswith("--") and f'"{word}"' not in code]
        assert not missing, f"{rest[0]} has no option {missing}"
    elif program == "pip":
        extras = ",".join(re.findall(r"\[([\w,]+)\]", line)).split(",")
        assert all(not extra or re.search(rf"^{extra} = \[", PROJECT, re.MULTILINE) for extra in extras), line
    elif program == "pytest":
        for marker in re.findall(r"-m (\w+)", line):
            assert f'"{marker}: ' in PROJECT, f"there is no marker {marker}"
        assert all((ROOT / word).exists() for word in rest if word.startswith("tests/")), line
    elif program not in FOREIGN:
        assert (ROOT / program).is_file(), f"{line}: there is no {program}"
    for command in re.findall(r"-m fqvae (.*)", line) if program in FOREIGN else ():
        check_fqvae(command.replace("'", "").split())


@pytest.mark.parametrize("page", [page for page in PAGES if shell_lines(page)])
def test_shell_commands_exist(page):
    for line in shell_lines(page):
        check_command(line)


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_exist(page):
    """Those of fqvae; words in capitals, in brackets or after dots stand for what a user has."""
    for span in spans(page):
        words = [word for word in span.split() if not re.search(r"[A-Z\[\]|]|\.\.\.", word)]
        if len(words) > 1 and words[0] == "fqvae":
            check_fqvae(words[1:])


@pytest.mark.parametrize("page", PAGES)
def test_links(page):
    """Files exist, and headings that are named. `mkdocs build --strict` knows only the pages of docs/."""
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), f"{page} links {target}, which does not exist"
        if anchor and found.suffix == ".md":
            name = str(found.resolve().relative_to(ROOT))
            assert anchor in anchors(name), f"{page} links {target}, but {name} has no such heading"


def test_every_page_is_in_the_navigation():
    class Loader(yaml.SafeLoader):
        """Takes what mkdocs.yml holds besides plain YAML as text."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: suffix)

    def leaves(entries):
        for entry in entries:
            for value in entry.values():
                yield from leaves(value) if isinstance(value, list) else [value]

    config = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader)
    assert sorted(leaves(config["nav"])) == [page.removeprefix("docs/") for page in PAGES if "/" in page]


def test_no_page_has_a_block_that_the_parser_misses():
    for page in PAGES:
        fences = len(re.findall(r"^ *```", text(page), re.MULTILINE))
        assert fences == 2 * len(parse(page, text(page))), f"{page}: a fence is indented or not closed"
        marks = re.findall(r"<!-- (?:not run|needs|run apart): ", text(page))
        seen = [block for block in parse(page, text(page)) if block.mark]
        assert len(marks) == len(seen), f"{page}: a comment is not in the line above its block"


def test_the_checks_find_what_is_wrong():
    wrong = [
        "fqvae trian smoke",
        "fqvae train smoke --modle vae",
        "fqvae train smoke step=3",
        "python benchmarks/no_bench.py",
        "python benchmarks/quantize_bench.py --brs",
        'pip install -e ".[tset]"',
        "pytest -m slwo",
        "benchmarks/gpu_chek.sh",
    ]
    for line in wrong:
        with pytest.raises(AssertionError):
            check_command(line)
    (block,) = parse("a.md", "a\n\n<!-- not run: no time -->\n```python\nx = 1\n```\n")
    assert (block.mark, block.of, block.line, block.code) == ("not run", "no time", 5, "x = 1\n")
