"""A figure of examples: image, truth, enriched labels and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..atomic import atomic_path
from ..palette import class_colour
from .picture_formats import picture_format

TUMOUR_COLOUR = (0.84, 0.10, 0.11)
_WITHOUT_DATE: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


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
    """Draw the rows, one below the other, and write the figure, under a temporary name that is then renamed.

    The same rows give the same file: dates and random identifiers are left out of it.

    Args:
        rows: at least one; their panels name the columns, in the order of the first row.
        path: of the figure, whose ending is that of its format, see `picture_format`.
        title: above the figure.

    Raises:
        ValueError: if there is no row, or for another ending.
    """
    kind = picture_format(path)
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
    # An SVG gets random identifiers without a salt.
    with atomic_path(path) as temporary, rc_context({"svg.hashsalt": "examples"}):
        figure.savefig(temporary, format=kind, dpi=110, metadata=_WITHOUT_DATE.get(kind))


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
