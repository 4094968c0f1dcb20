"""The picture that people look at first: slide, translucent probability, tumour outlines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .atomic import atomic_path

# Viridis from 0 to 1 in steps of 0.25: green and yellow stand out from H&E's pinks and violets, also for colour-blind
# eyes.
PROBABILITY_COLOURS = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], np.float32)
OUTLINE_COLOUR = (200, 0, 0)  # QuPath's colour of tumour
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
    if rgb.shape != (*probability.shape, 3):
        raise ValueError(f"need rgb (H, W, 3) and probability (H, W) of one size, got {rgb.shape} and {probability.shape}")
    steps = np.linspace(0, 1, len(PROBABILITY_COLOURS))
    colours = np.stack([np.interp(probability, steps, channel) for channel in PROBABILITY_COLOURS.T], axis=-1)
    alpha = STRONGEST_ALPHA * probability[..., None]
    picture = Image.fromarray(np.rint(rgb * (1 - alpha) + colours * alpha).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for ring in rings:
        pen.line([tuple(point) for point in np.asarray(ring, dtype=float)], fill=OUTLINE_COLOUR, width=2)
    return np.asarray(picture)


def write_overlay(path: str | Path, rgb: np.ndarray, probability: np.ndarray, rings: Iterable[np.ndarray] = ()) -> None:
    """Write `overlay_image` as a PNG."""
    with atomic_path(path) as temporary:
        Image.fromarray(overlay_image(rgb, probability, rings)).save(temporary, format="PNG", optimize=False)
