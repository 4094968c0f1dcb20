"""A figure of reliability curves: observed against predicted frequency, and how often each is predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..atomic import atomic_path


@dataclass(frozen=True)
class ReliabilityCurve:
    """One curve, a value a bin of equal width from 0 to 1.

    Args:
        counts: of samples.
        confidence: mean probability; NaN where the bin is empty.
        frequency: how often the statement holds; NaN where the bin is empty.
        ece: expected calibration error, for the legend.
    """

    counts: Sequence[float]
    confidence: Sequence[float]
    frequency: Sequence[float]
    ece: float


def write_reliability(curves: Mapping[str, ReliabilityCurve], path: str | Path, quantity: str, title: str = "") -> None:
    """Draw the curves over the diagonal of perfect calibration, and below them the share of samples in each bin, as a PNG.

    Args:
        curves: by name, at least one.
        path: of the PNG; written under a temporary name that is then renamed.
        quantity: what the network gives a probability of, such as "tumour".
        title: above the figure.

    Raises:
        ValueError: if there is no curve.
    """
    if not curves:
        raise ValueError("a figure of reliability needs at least one curve")
    figure = Figure(figsize=(4.8, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1, label="perfect")
    for index, (name, curve) in enumerate(curves.items()):
        confidence, frequency = np.asarray(curve.confidence, float), np.asarray(curve.frequency, float)
        known = np.isfinite(confidence)
        label = f"{name}: ECE {100 * curve.ece:.1f} %"
        upper.plot(confidence[known], frequency[known], marker="o", markersize=4, color=f"C{index}", label=label)
        shares = np.asarray(curve.counts, float) / np.sum(curve.counts)
        lower.stairs(shares, np.linspace(0, 1, len(shares) + 1), color=f"C{index}")
    upper.set_ylabel(f"frequency of {quantity}", fontsize=9)
    upper.set_ylim(0, 1)
    upper.legend(fontsize=8)
    upper.grid(alpha=0.3)
    lower.set_yscale("log")
    lower.set_ylabel("share", fontsize=9)
    lower.set_xlabel(f"probability of {quantity}", fontsize=9)
    lower.set_xlim(0, 1)
    figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
