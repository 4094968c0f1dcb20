"""A figure of one slide's maps under pairs of two parameters, as a matrix of pictures, for several slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..atomic import atomic_path
from .examples import blend


@dataclass(frozen=True)
class MapMatrix:
    """One slide of the figure.

    Attributes:
        title: of the slide.
        image: uint8 RGB ``(H, W, 3)``.
        truth: share of tumour ``(H, W)``, laid over the image; None where it is not known.
        maps: (first, second parameter) -> probability of tumour ``(H, W)`` in [0, 1].
    """

    title: str
    image: np.ndarray
    truth: np.ndarray | None
    maps: Mapping[tuple[float, float], np.ndarray]


def write_map_matrices(
    slides: Sequence[MapMatrix], path: str | Path, parameters: Sequence[str] = ("alpha", "beta"), title: str = ""
) -> None:
    """Draw a block for each slide - the slide, its truth and a matrix of its maps, all in one scale - and write it as a PNG.

    Args:
        slides: at least one.
        path: of the PNG; written under a temporary name that is then renamed.
        parameters: names of the rows and of the columns of a matrix.
        title: above the figure.

    Raises:
        ValueError: if there is no slide, or none has a map.
    """
    pairs = {pair for slide in slides for pair in slide.maps}
    if not pairs:
        raise ValueError("a figure of maps needs at least one slide with a map")
    first, second = (sorted({pair[axis] for pair in pairs}) for axis in (0, 1))
    num_rows, num_columns = len(first), 2 + len(second)
    figure = Figure(figsize=(1.9 * num_columns, 1.9 * num_rows * len(slides) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(num_rows * len(slides), num_columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for index, slide in enumerate(slides):
        block = grid[index * num_rows : (index + 1) * num_rows]
        _show(block[0, 0], slide.image, slide.title)
        if slide.truth is not None:
            _show(block[0, 1], blend(slide.image, slide.truth), "truth")
        for row, a in enumerate(first):
            for column, b in enumerate(second):
                if (a, b) in slide.maps:
                    _show(block[row, 2 + column], slide.maps[a, b], f"{parameters[0]} {a:g}, {parameters[1]} {b:g}")
    figure.suptitle(title, fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _show(axes: Any, picture: np.ndarray, title: str) -> None:
    """A picture in colours, or a map from 0 to 1."""
    axes.imshow(picture, cmap="magma", vmin=0, vmax=1)
    axes.set_title(title, fontsize=7)
