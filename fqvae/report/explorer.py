"""The explorer: what the page decodes, or images decoded beforehand, and the controls that show them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fqvae.figures.naming import readable
from fqvae.figures.traversal import Traversal, spread_codes, spread_values, traverse
from fqvae.models.autoencoder import to_uint8
from fqvae.report.decoder import UnsuitedError, export_decoder
from fqvae.report.html import escape
from fqvae.report.sample import Sample, value_text
from fqvae.runs import Run

# WebP's settings, in the order in which they are tried until the sheets fit.
_QUALITIES = (None, 95, 90, 80, 65, 50)  # None: without loss


class TooLargeError(ValueError):
    """Pictures that do not fit into a page of the size allowed."""


def explorer_data(run: Run, sample: Sample, images: int, steps: int, budget: int) -> dict[str, Any]:
    """What the page's script reads.

    With the decoder where the page can run it, so that several latents can be moved at once. Else with one
    sheet of decoded images for each base image, a row for each latent, a column for each of its steps.

    Args:
        run, sample: the model, and the sample whose first images are the bases.
        images: the number of bases.
        steps: of a slider, at most.
        budget: characters that the decoder or the sheets may take.

    Returns:
        size: S. columns: steps. order: the latents as they are shown. bases: for each image and each latent
        the texts of its steps and the step (`own`) that is the image's own code. decoder: see
        `export_decoder`; with it each base has `values`, which the decoder takes for each step. Otherwise
        decoder is None, `reason` says why, each base has its `sheet`, and `lossless` says whether the sheets
        are the decoded images to the byte.

    Raises TooLargeError.
    """
    bases, traversals = _bases(run, sample, images, steps)
    data: dict[str, Any] = {
        "size": run.model.image_size,
        "columns": steps,
        "order": sample.order,
        "bases": bases,
    }
    inputs = [[_inputs(run, codes) for codes in traversal.codes] for traversal in traversals]
    try:
        data["decoder"] = export_decoder(
            run.model.decoder,
            torch.cat([each for rows in inputs for each in rows]),
            torch.cat([images for traversal in traversals for images in traversal.images]),
            budget,
        )
    except UnsuitedError as error:
        lossless = _add_sheets(bases, traversals, steps, budget)
        return {**data, "decoder": None, "reason": str(error), "lossless": lossless}
    for base, rows in zip(bases, inputs, strict=True):
        width = rows[0].shape[1] // len(rows)  # 1, or the length of a vector code
        base["values"] = [
            [
                [float(f"{value:.9g}") for value in step]
                for step in row[:, latent * width :][:, :width].tolist()
            ]
            for latent, row in enumerate(rows)
        ]
    return data


def sheet_data(run: Run, sample: Sample, images: int, steps: int, budget: int) -> list[dict[str, Any]]:
    """For each of the sample's first images `texts`, `own` and `sheet`, as `explorer_data` describes them.

    Raises TooLargeError.
    """
    bases, traversals = _bases(run, sample, images, steps)
    _add_sheets(bases, traversals, steps, budget)
    return bases


def _bases(run: Run, sample: Sample, images: int, steps: int) -> tuple[list[dict[str, Any]], list[Traversal]]:
    """`texts` and `own` of each image, and its traversal."""
    bases: list[dict[str, Any]] = []
    traversals = []
    for image in range(images):
        own = torch.from_numpy(sample.codes[image])
        taken = [_steps(sample, latent, own[latent].item(), steps) for latent in range(len(own))]
        traversals.append(traverse(run.model, own, taken))
        bases.append(
            {
                "texts": [
                    [value_text(sample, latent, code.item()) for code in row]
                    for latent, row in enumerate(taken)
                ],
                "own": [
                    int(np.flatnonzero(row == own[latent].item())[0]) for latent, row in enumerate(taken)
                ],
            }
        )
    return bases, traversals


def _add_sheets(bases: list[dict[str, Any]], traversals: list[Traversal], steps: int, budget: int) -> bool:
    """Give each base its sheet; returns whether the sheets are the decoded images to the byte."""
    sheets, lossless = _pack([_sheet(traversal.images, steps) for traversal in traversals], budget)
    for base, sheet in zip(bases, sheets, strict=True):
        base["sheet"] = sheet
    return lossless


def thumbnails(run: Run, sample: Sample, images: int) -> str:
    """The radio buttons of the base images."""
    numbers = sample.index[:images]
    originals = run.dataset.images(numbers)
    names = [readable(name) for name in run.dataset.factor_names]
    parts = []
    for place, (number, picture, factors) in enumerate(
        zip(numbers, originals, run.dataset.factors(numbers).tolist(), strict=True)
    ):
        told = ", ".join(f"{name} {value}" for name, value in zip(names, factors, strict=True))
        described = escape(f"Image {number}: {told}" if told else f"Image {number}")
        checked = " checked" if place == 0 else ""
        parts.append(
            f'<label><input type="radio" name="image" value="{place}"{checked}>'
            f'<img src="{png(picture)}" alt="{described}" title="{escape(told)}">'
            "</label>"
        )
    return "\n".join(parts)


def sliders(sample: Sample, data: dict[str, Any]) -> str:
    """A slider for each latent, with a strip of what its steps decode to, set for the first image."""
    base, parts = data["bases"][0], []
    for latent in sample.order:
        texts, own = base["texts"][latent], base["own"][latent]
        factor, name, detail = sample.factor(latent), f"latent {latent}", escape(sample.label(latent))
        meant = "" if factor is None else f' data-factor="{detail}"'
        if factor is not None:
            name, detail = detail, f"{name}, NMI {sample.nmi[factor, latent]:.2f}"
        disabled = "" if len(texts) > 1 else " disabled"
        parts.append(
            f'<div class="latent" data-latent="{latent}"{meant} style="--steps:{len(texts)};--own:{own}">'
            f'<label for="latent-{latent}"><b>{name}</b> <span>{detail}</span></label>'
            f'<output for="latent-{latent}">{escape(texts[own])}</output>'
            f'<div class="track"><input type="range" id="latent-{latent}" min="0" max="{len(texts) - 1}" '
            f'step="1" value="{own}"{disabled} autocomplete="off">'
            '<div class="strip"><canvas aria-hidden="true"></canvas></div></div></div>'
        )
    return "\n".join(parts)


def pairs(run: Run, sample: Sample, images: int) -> str:
    """Originals above their reconstructions."""
    numbers = sample.index[:images]
    originals = run.dataset.images(numbers)
    device = next(run.model.parameters()).device
    reconstructed = to_uint8(run.model(originals.to(device))).cpu()
    return "\n".join(
        f'<div><img src="{png(above)}" alt="Image {number}"><img src="{png(below)}" '
        f'alt="Its reconstruction"></div>'
        for number, above, below in zip(numbers, originals, reconstructed, strict=True)
    )


def png(image: Tensor) -> str:
    """A uint8 image (1 or 3, H, W) as a data URI."""
    from PIL import Image

    file = io.BytesIO()
    colours = image.expand(3, -1, -1).permute(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(colours.numpy())).save(file, "PNG", optimize=True)
    return _uri("png", file)


def _steps(sample: Sample, latent: int, own: Any, steps: int) -> np.ndarray[Any, np.dtype[Any]]:
    if sample.used is None:
        return spread_values(sample.codes[:, latent], steps, own)
    return spread_codes(sample.used[latent], steps, own)


@torch.no_grad()
def _inputs(run: Run, codes: Tensor) -> Tensor:
    """What the decoder takes for codes (steps, M): (steps, inputs), on the CPU."""
    return run.model.latent.values(codes).cpu()


def _sheet(rows: list[Tensor], columns: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images (steps, 1 or 3, S, S) of each latent as one picture, uint8 (M S, columns S, 3)."""
    size = rows[0].shape[-1]
    sheet = np.zeros((len(rows) * size, columns * size, 3), np.uint8)
    for row, images in enumerate(rows):
        strip = images.expand(-1, 3, -1, -1).permute(2, 0, 3, 1).flatten(1, 2).numpy()
        sheet[row * size : (row + 1) * size, : strip.shape[1]] = strip
    return sheet


def _pack(sheets: list[np.ndarray[Any, np.dtype[np.uint8]]], budget: int) -> tuple[list[str], bool]:
    """The sheets as data URIs of WebP pictures, and whether that lost nothing. Raises TooLargeError."""
    from PIL import Image

    for quality in _QUALITIES:
        encoded, size = [], 0
        for sheet in sheets:
            file = io.BytesIO()
            setting = {"lossless": True} if quality is None else {"quality": quality}
            Image.fromarray(sheet).save(file, "WEBP", method=4, **setting)
            encoded.append(_uri("webp", file))
            size += len(encoded[-1])
            if size > budget:
                break
        else:
            return encoded, quality is None
    raise TooLargeError(f"the decoded images take more than {budget:,} bytes: choose fewer images")


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
