"""The packages that parts of fqvae need besides PyTorch and NumPy, and how to install them.

They are imported where they are used, so that `fqvae --help` and a model that only loads go without them.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Package(NamedTuple):
    """A package of an extra: its name for pip, and the extra of fqvae_kernels that has it."""

    name: str
    extra: str


# By the name that programs import.
PACKAGES = {
    "PIL": Package("Pillow", "train"),
    "h5py": Package("h5py", "train"),
    "joblib": Package("joblib", "train"),
    "lightning": Package("lightning", "train"),
    "matplotlib": Package("matplotlib", "train"),
    "ray": Package("ray", "cluster"),
    "scipy": Package("scipy", "train"),
    "sklearn": Package("scikit-learn", "train"),
    "tensorboard": Package("tensorboard", "train"),
    "threadpoolctl": Package("threadpoolctl", "train"),
    "tqdm": Package("tqdm", "train"),
    "yaml": Package("pyyaml", "train"),
}


def missing(module: str) -> str:
    """What to say where a module of `PACKAGES` cannot be imported."""
    package = PACKAGES[module]
    return (
        f"the package {package.name} is missing; the extra '{package.extra}' has it: "
        f'pip install "fqvae_kernels[{package.extra}]"'
    )


def explain(error: ModuleNotFoundError) -> str:
    """The error on one line: which package is missing and how to get it, or, of any other, what it says."""
    text = " ".join(str(error).split())
    if "pip install" in text:
        return text
    # Other packages' errors may have no name, but tell the module in their text.
    for module in ((error.name or "").partition(".")[0], *re.findall(r"\w+", text)):
        if module in PACKAGES:
            return missing(module)
    return text
