"""All cases, by name, in the order of the table."""

from __future__ import annotations

from adoption import audio, images, series, written
from adoption.case import Case

CASES: dict[str, Case] = images.CASES | written.CASES | audio.CASES | series.CASES
