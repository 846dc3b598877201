"""README.md, CONTRIBUTING.md and the pages of docs/: their blocks of code and what is said of them.

A comment in the line above a block of Python says that it is not run with the others of its page:

    <!-- not run: REASON -->       REASON begins with one of `REASONS`
    <!-- needs: PACKAGE -->        run where PACKAGE is installed
    <!-- run apart: TEST -->       TEST, a file of tests/, runs it
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REASONS = ("needs a GPU", "needs a download", "takes minutes", "an excerpt")
_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[a-z ]+): (?P<of>[^\n]*?) -->\n+)?```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, code, first line of code in the page, and the comment above it."""

    page: str
    language: str
    code: str
    line: int
    mark: str = ""
    of: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def padded(self) -> str:
        """The code at the lines that it has in its page, so that errors point there."""
        return "\n" * (self.line - 1) + self.code


def pages() -> list[str]:
    """The paths of all pages from the repository's root."""
    site = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
    return ["README.md", "CONTRIBUTING.md", *site]


@functools.cache
def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def parse(page: str, content: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [
        Block(
            page,
            match["language"],
            match["code"],
            content.count("\n", 0, match.start("code")) + 1,
            match["mark"] or "",
            match["of"] or "",
        )
        for match in _BLOCK.finditer(content)
    ]


def blocks(page: str, *languages: str) -> list[Block]:
    """Its blocks in these languages."""
    return [block for block in parse(page, text(page)) if block.language in languages]


def prose(page: str) -> str:
    """The page without its blocks."""
    return _FENCED.sub("", text(page))


def spans(page: str) -> list[str]:
    """Its spans of code in the running text."""
    return [re.sub(r"\s+", " ", span).replace("\\|", "|") for span in re.findall(r"`([^`]+)`", prose(page))]


def shell_lines(page: str) -> list[str]:
    """The commands of its shell blocks: one a line, without comments, continued lines joined."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.code.replace("\\\n", " ").splitlines():
            found += [part.strip() for part in re.sub(r"(^|\s)#.*", "", line).split("&&") if part.strip()]
    return found


def links(page: str) -> list[str]:
    """Where its links and pictures lead that stay in the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    targets += re.findall(r"(?:src|href)=\"([^\"]+)\"", prose(page))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: str) -> set[str]:
    """The names of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
