"""Reads _build.json, which the build leaves beside this file: what was asked for, what was built, and why."""

from __future__ import annotations

import json
from pathlib import Path


def why_not_built() -> str:
    """Why there is no native module: a clause that completes "its native extension is not built: ..."."""
    return _reason("reason")


def why_no_cuda() -> str:
    """The same for the CUDA kernels."""
    return _reason("cuda_reason")


def _reason(key: str) -> str:
    try:
        record = json.loads(Path(__file__).with_name("_build.json").read_text(encoding="utf-8"))
        reason = record[key]
    except (OSError, ValueError, KeyError, TypeError):
        reason = None
    return str(reason) if reason else "this copy was not installed by pip with this Python"
