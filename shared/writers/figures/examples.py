"""A figure of examples: image, truth, enriched labels and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..atomic import atomic_path
from ..palette import class_colour

TUMOUR_COLOUR = (0.84, 0.10, 0.11)


@dataclass(frozen=True)
class ExampleRow:
    """One image of the figure.

    Args:
        title: shown at its left.
        image: uint8 RGB ``(H, W, 3)``.
        panels: column title -> map in [0, 1] or, of an integer type, of class indices, ``(H, W)``, that is laid over the image;
            or None where there is none.
    """

    title: str
    image: np.ndarray
    panels: dict[str, np.ndarray | None] = field(default_factory=dict)


def write_examples(rows: Sequence[ExampleRow], path: str | Path, title: str = "") -> None:
    """Draw the rows, one below the other, and write the figure as a PNG, under a temporary name that is then renamed.

    Args:
        rows: at least one; their panels name the columns, in the order of the first row.
        path: of the PNG.
        title: above the figure.

    Raises:
        ValueError: if there is no row.
    """
    if not rows:
        raise ValueError("a figure of examples needs at least one row")
    columns = ["image", *rows[0].panels]
    figure = Figure(figsize=(2.6 * len(columns), 2.6 * len(rows) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for axes_row, row in zip(grid, rows, strict=True):
        for axes, column in zip(axes_row, columns, strict=True):
            overlay = row.panels.get(column)
            axes.imshow(row.image if overlay is None else _overlaid(row.image, overlay))
            if column != "image" and overlay is None:
                axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
            axes.set_xticks([])
            axes.set_yticks([])
        axes_row[0].set_ylabel(row.title, fontsize=8)
    for axes, column in zip(grid[0], columns, strict=True):
        axes.set_title(column, fontsize=10)
    figure.suptitle(title, fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _overlaid(image: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    return blend_classes(image, overlay) if np.issubdtype(overlay.dtype, np.integer) else blend(image, overlay)


def blend(image: np.ndarray, share: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """Lay `TUMOUR_COLOUR` over an image, the denser the larger `share`.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        share: in [0, 1], ``(H, W)``.
        opacity: where `share` is 1.

    Returns:
        float ``(H, W, 3)`` in [0, 1].
    """
    alpha = opacity * share[..., None].astype(np.float32)
    return (1 - alpha) * (image / 255.0) + alpha * np.asarray(TUMOUR_COLOUR)


def blend_classes(image: np.ndarray, classes: np.ndarray, opacity: float = 0.45) -> np.ndarray:
    """Lay each class's colour over an image; class 0 stays as it is.

    Args:
        image: uint8 RGB ``(H, W, 3)``.
        classes: class indices ``(H, W)``.
        opacity: of the colours.

    Returns:
        float ``(H, W, 3)`` in [0, 1].
    """
    blended = image / 255.0
    for index in np.unique(classes[classes > 0]):
        colour = np.asarray(class_colour(int(index))) / 255.0
        blended[classes == index] = (1 - opacity) * blended[classes == index] + opacity * colour
    return blended
