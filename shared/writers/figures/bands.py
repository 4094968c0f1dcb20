"""A figure of curves with bands: scores against one parameter, mean and deviation over repetitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..atomic import atomic_path

NUM_COLUMNS = 2


@dataclass(frozen=True)
class Band:
    """One curve.

    Args:
        x: ascending.
        mean: as many values.
        deviation: as many, NaN or None where there was one repetition; empty for a curve without a band.
    """

    x: Sequence[float]
    mean: Sequence[float]
    deviation: Sequence[float | None] = field(default_factory=list)


def write_bands(panels: Mapping[str, Mapping[str, Band]], path: str | Path, x_label: str, title: str = "") -> None:
    """Draw one panel a score, two side by side, on a logarithmic axis, and write the figure as a PNG.

    Args:
        panels: title -> curve's name -> curve; a name has one colour in all panels.
        path: of the PNG; written under a temporary name that is then renamed.
        x_label: of the parameter, above 0.
        title: above the figure.

    Raises:
        ValueError: if there is no curve.
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    if not names:
        raise ValueError("a figure of curves needs at least one curve")
    num_rows = -(-len(panels) // NUM_COLUMNS)
    figure = Figure(figsize=(5.2 * NUM_COLUMNS, 3.2 * num_rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(num_rows, NUM_COLUMNS, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (panel, curves) in zip(grid, panels.items(), strict=False):
        for name, curve in curves.items():
            colour = f"C{names.index(name)}"
            x, mean = np.asarray(curve.x, float), np.asarray(curve.mean, float)
            axes.plot(x, mean, marker="o", markersize=3, color=colour, label=name, linestyle="-" if curve.deviation else ":")
            if curve.deviation:
                deviation = np.nan_to_num(np.array(curve.deviation, dtype=float))
                axes.fill_between(x, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)
        axes.set_xscale("log")
        ticks = sorted({value for curve in curves.values() for value in curve.x})
        axes.set_xticks(ticks, [f"{value:g}" for value in ticks], fontsize=7, rotation=60)
        axes.minorticks_off()
        axes.set_xlabel(x_label, fontsize=8)
        axes.set_title(panel, fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.suptitle(title, fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
