"""Smooth random fields and regions cut from them at an exact share."""

import numpy as np
from numpy.typing import NDArray

# Mean over the phase of the summed squares of the four cubic B-spline weights, per axis.
_B_SPLINE_POWER = 151 / 315
_BLOCK_ROWS = 32


def _b_spline(length: int, spacing: float) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Index of the first of four control points ``(length,)`` and their weights ``(4, length)``."""
    position = np.arange(length, dtype=np.float64) / spacing
    first = np.floor(position).astype(np.intp)
    t = position - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    return first, weights.astype(np.float32)


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], spacing_px: float) -> NDArray[np.float32]:
    """Random field of zero mean and about unit variance: white noise every `spacing_px`, cubic B-splines between.

    Element-wise sums of four shifted rows and columns: no FFT and no matrix product, whose rounding could depend on
    the number of threads.

    Args:
        rng: source of randomness.
        shape: (H, W).
        spacing_px: distance of the control points; structures are about twice as large.

    Returns:
        field ``(H, W)``.
    """
    (rows, row_weights), (columns, column_weights) = (_b_spline(length, spacing_px) for length in shape)
    noise = rng.standard_normal((int(rows[-1]) + 4, int(columns[-1]) + 4), dtype=np.float32)
    noise /= np.float32(_B_SPLINE_POWER)
    # take, not noise[:, columns]: that one is stored by columns, and all that follows would be ten times slower.
    wide = column_weights[0] * np.take(noise, columns, axis=1)
    for k in range(1, 4):
        wide += column_weights[k] * np.take(noise, columns + k, axis=1)
    field = np.empty(shape, np.float32)
    # In blocks that stay in the cache: twice as fast on a slide.
    for top in range(0, shape[0], _BLOCK_ROWS):
        block = slice(top, min(top + _BLOCK_ROWS, shape[0]))
        total = np.take(wide, rows[block], axis=0)
        total *= row_weights[0, block, None]
        for k in range(1, 4):
            part = np.take(wide, rows[block] + k, axis=0)
            part *= row_weights[k, block, None]
            total += part
        field[block] = total
    return field


def level_of_share(field: NDArray[np.float32], share: float, within: NDArray[np.bool_] | None = None) -> float:
    """Level above which the field covers `share` of `within` (default: everything); inf for a share of 0.

    >>> level_of_share(np.arange(10, dtype=np.float32), 0.3)
    6.0
    """
    values = field.ravel() if within is None else field[within]
    count = round(share * values.size)
    if count <= 0:
        return float("inf")
    if count >= values.size:
        return float("-inf")
    return float(np.partition(values, values.size - count - 1)[values.size - count - 1])


def soft_above(field: NDArray[np.float32], level: float, width: float) -> NDArray[np.float32]:
    """Ramp from 0 to 1 where the field passes `level`, `width` wide in units of the field."""
    if not np.isfinite(level):
        return np.full(field.shape, 1.0 if level < 0 else 0.0, np.float32)
    return np.clip((field - np.float32(level)) * np.float32(1 / width) + np.float32(0.5), 0, 1)
