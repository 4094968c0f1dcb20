"""The picture that people look at first: slide, translucent probability or classes, outlines, scale bar and legend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .atomic import atomic_path
from .legend import Legend, add_legend
from .palette import TUMOUR_COLOUR, Colour

# Viridis from 0 to 1 in steps of 0.25: green and yellow stand out from H&E's pinks and violets, also for colour-blind
# eyes.
PROBABILITY_COLOURS = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], np.float32)
STRONGEST_ALPHA = 0.6


def overlay_image(rgb: np.ndarray, probability: np.ndarray, rings: Iterable[np.ndarray] = ()) -> np.ndarray:
    """Blend a probability into a picture; the colour is the more opaque, the higher the probability.

    Args:
        rgb: the slide, ``(H, W, 3)`` uint8.
        probability: ``(H, W)`` in [0, 1]; where it is 0 the slide stays as it is.
        rings: polygon rings to outline, each ``(n, 2)``, as (x, y) in pixels of `rgb` (0, 0 is its top-left corner).

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        ValueError: if the two do not have one size.
    """
    _check_size(rgb, probability)
    steps = np.linspace(0, 1, len(PROBABILITY_COLOURS))
    colours = np.stack([np.interp(probability, steps, channel) for channel in PROBABILITY_COLOURS.T], axis=-1)
    return _draw(_blend(rgb, colours, probability), [(ring, TUMOUR_COLOUR) for ring in rings])


def class_overlay_image(
    rgb: np.ndarray, probabilities: np.ndarray, colours: Sequence[Colour], rings: Iterable[tuple[np.ndarray, Colour]] = ()
) -> np.ndarray:
    """Paint each pixel's likeliest class into a picture, the more opaque, the higher its probability; class 0 stays as it is.

    Args:
        rgb: the slide, ``(H, W, 3)`` uint8.
        probabilities: ``(C, H, W)`` in [0, 1].
        colours: of the classes from 1 on, C - 1 of them.
        rings: polygon rings to outline, with their colours; points as in `overlay_image`.

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        ValueError: if the sizes or the number of colours do not fit.
    """
    _check_size(rgb, probabilities[0])
    if len(colours) != len(probabilities) - 1:
        raise ValueError(f"{len(probabilities)} classes need {len(probabilities) - 1} colours, got {len(colours)}")
    classes = probabilities.argmax(axis=0)
    palette = np.array([(0, 0, 0), *colours], np.float32)
    alpha = np.where(classes > 0, probabilities.max(axis=0), 0)
    return _draw(_blend(rgb, palette[classes], alpha), rings)


def write_overlay(path: str | Path, picture: np.ndarray, legend: Legend) -> None:
    """Write a picture ``(H, W, 3)`` uint8 with its legend below it as a PNG."""
    with atomic_path(path) as temporary:
        Image.fromarray(add_legend(picture, legend)).save(temporary, format="PNG", optimize=False)


def _check_size(rgb: np.ndarray, probability: np.ndarray) -> None:
    if rgb.shape != (*probability.shape, 3):
        raise ValueError(f"need rgb (H, W, 3) and probability (H, W) of the same size, got {rgb.shape} and {probability.shape}")


def _blend(rgb: np.ndarray, colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    alpha = STRONGEST_ALPHA * opacity[..., None]
    return np.rint(rgb * (1 - alpha) + colours * alpha).astype(np.uint8)


def _draw(picture: np.ndarray, rings: Iterable[tuple[np.ndarray, Colour]]) -> np.ndarray:
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for ring, colour in rings:
        pen.line([tuple(point) for point in np.asarray(ring, dtype=float)], fill=colour, width=2)
    return np.asarray(image)
