"""What pack.sh has made on another machine: the extension modules, and the cache of Triton programs."""

from __future__ import annotations

import json
import shutil
import sysconfig
import tarfile
from pathlib import Path

from gpu_check.processes import ROOT

FOLDER = ROOT / "build" / "gpu_check" / "packed"
CACHE = "triton_cache.tar.xz"
PACKAGE = ROOT / "fqvae_kernels"


def take(folder: Path, cache: Path, package: Path = PACKAGE) -> dict[str, str]:
    """Puts the extension into a package that has none for this Python, and unpacks the programs into `cache`.

    Returns the environment variables that let Triton find the cache.
    """
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for name in (f"_native{suffix}", f"_cuda{suffix}"):
        if (folder / name).exists() and not (package / name).exists():
            shutil.copy2(folder / name, package / name)
            if not (package / "_build.json").exists():
                shutil.copy2(folder / "_build.json", package / "_build.json")
    if not (folder / CACHE).exists():
        return {}
    return {"TRITON_CACHE_DIR": str(unpack(folder / CACHE, cache))}


def unpack(archive: Path, folder: Path) -> Path:
    """Unpacks a cache of Triton programs; any folder will do, since group files are written anew."""
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    relocate(folder)
    return folder


def pack(folder: Path, archive: Path, programs: set[str]) -> None:
    """Packs these programs (named as in programs.py) and all launchers: only files that are read again."""
    for group in folder.glob("*/__grp__*.json"):
        about = json.loads((group.parent / group.name.removeprefix("__grp__")).read_text())
        if f"{about['name']}-{about['hash'][:10]}" not in programs:
            shutil.rmtree(group.parent)
    with tarfile.open(archive, "w:xz", preset=3) as file:
        for path in sorted(folder.glob("*/*")):
            if path.suffix in (".cubin", ".json", ".so"):
                file.add(path, path.relative_to(folder))


def relocate(folder: Path) -> None:
    """Group files name the files of a program by absolute paths: make them those of this folder."""
    for group in folder.glob("*/__grp__*.json"):
        names = json.loads(group.read_text())["child_paths"]
        here = {name: str(group.parent / name) for name in names if (group.parent / name).exists()}
        group.write_text(json.dumps({"child_paths": here}))
