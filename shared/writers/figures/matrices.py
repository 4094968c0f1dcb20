"""A figure of matrices: one score over pairs of two parameters, ours compared with the published one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..atomic import atomic_path

Matrix = Mapping[tuple[float, float], float | None]


def write_matrices(
    rows: Mapping[str, Mapping[str, Matrix]], path: str | Path, parameters: Sequence[str] = ("alpha", "beta"), title: str = ""
) -> None:
    """Draw one matrix a panel, panels of one score side by side in one scale of colours, and write the figure as a PNG.

    Args:
        rows: score -> panel -> (first, second parameter) -> value in [0, 1], or None where there is none. Pairs that no panel has
            stay white.
        path: of the PNG; written under a temporary name that is then renamed.
        parameters: names of the axes: of the rows of a matrix, of its columns.
        title: above the figure.

    Raises:
        ValueError: if there is nothing to draw.
    """
    pairs = {pair for panels in rows.values() for matrix in panels.values() for pair in matrix}
    if not pairs:
        raise ValueError("a figure of matrices needs at least one matrix with a pair of parameters")
    first, second = (sorted({pair[axis] for pair in pairs}) for axis in (0, 1))
    num_columns = max(len(panels) for panels in rows.values())
    figure = Figure(figsize=(3.0 * num_columns + 0.8, 2.8 * len(rows) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), num_columns, squeeze=False)
    for axes_row, (score, panels) in zip(grid, rows.items(), strict=True):
        for axes in axes_row[len(panels) :]:
            axes.set_axis_off()
        for axes, (panel, matrix) in zip(axes_row, panels.items(), strict=False):
            values = np.array([[_value(matrix, (a, b)) for b in second] for a in first])
            axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
            for row, column in np.argwhere(~np.isnan(values)):
                value = values[row, column]
                axes.text(
                    column, row, f"{value:.3f}", ha="center", va="center", fontsize=8, color="black" if value > 0.6 else "white"
                )
            axes.set_xticks(range(len(second)), [f"{b:g}" for b in second])
            axes.set_yticks(range(len(first)), [f"{a:g}" for a in first])
            axes.set_xlabel(parameters[1], fontsize=8)
            axes.set_ylabel(parameters[0], fontsize=8)
            axes.set_title(f"{score}: {panel}", fontsize=9)
    figure.suptitle(title, fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _value(matrix: Matrix, pair: tuple[float, float]) -> float:
    value = matrix.get(pair)
    return np.nan if value is None else value
