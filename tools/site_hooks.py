"""MkDocs hooks: pages may link files of the repository that lie outside docs/.

On GitHub `../benchmarks/results/first_sweep.md` is a link like any other. The site takes copies of such
files: pictures and tables as they are, Markdown as pages. A link to what is no file is a warning.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files, InclusionLevel

log = get_plugin_logger(__name__)

ROOT = Path(__file__).resolve().parent.parent
# Where they are on the site.
FOLDER = "repository"
# ](../path) of a link or a picture, with what follows # behind it.
_LINK = re.compile(r"\]\((?P<path>(?:\.\./)+[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def outside(text: str, page: str) -> dict[str, str]:
    """Links of a page that leave docs/: as written, and as paths from the repository's root."""
    base = posixpath.join("docs", posixpath.dirname(page))
    paths = {
        match["path"]: posixpath.normpath(posixpath.join(base, match["path"]))
        for match in _LINK.finditer(text)
    }
    return {written: path for written, path in paths.items() if not path.startswith(("docs/", "../"))}


def on_files(files: Files, config: Any) -> Files:
    """Add the files that pages link to."""
    for file in files.documentation_pages():
        page = file.src_uri
        for written, path in outside(file.content_string, page).items():
            source = ROOT / path
            if not source.is_file():
                log.warning(f"{page} links {written}, which is not a file of the repository")
                continue
            target = f"{FOLDER}/{path}"
            if files.get_file_from_path(target) is None:
                files.append(
                    File.generated(
                        config, target, abs_src_path=str(source), inclusion=InclusionLevel.NOT_IN_NAV
                    )
                )
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point those links to the site's copies."""
    source = page.file.src_uri
    known = outside(markdown, source)
    up = posixpath.relpath(FOLDER, posixpath.dirname(source) or ".")

    def replace(match: re.Match[str]) -> str:
        path = known.get(match["path"])
        return match[0] if path is None else f"]({up}/{path}{match['anchor'] or ''})"

    return _LINK.sub(replace, markdown)
