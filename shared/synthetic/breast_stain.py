"""From an `Anatomy` at 4 um/px to the amounts of haematoxylin and eosin: fibres, fat, cells as a grain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .anatomy import Anatomy
from .fields import level_of_share, smooth_field, soft_above

_NEIGHBOURS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]


def stain_anatomy(
    rng: np.random.Generator, anatomy: Anatomy, tissue: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Amounts of the two stains, nothing on glass.

    How much stain tissue takes up, how cellular its stroma is and how much of it is fat are drawn here, whatever has
    been drawn into it: colours say little about the classes.

    Args:
        rng: source of randomness.
        anatomy: what is where.
        tissue: where there is tissue ``(H, W)``; the rest is glass.

    Returns:
        haematoxylin and eosin ``(H, W)``, at least 0.
    """
    shape = anatomy.shape
    eosin = _fibres(rng, shape)
    eosin *= 1 - np.float32(0.6) * anatomy.pale
    eosin += np.float32(0.14) * anatomy.collagen
    haematoxylin = np.float32(rng.uniform(0.04, 0.12)) + np.float32(0.03) * smooth_field(rng, shape, 18)
    haematoxylin += np.float32(0.05) * anatomy.pale
    haematoxylin += _stroma_nuclei(rng, shape)

    is_epithelium = np.clip(anatomy.cells * 4, 0, 1)
    cytoplasm = np.float32(rng.uniform(0.22, 0.42)) + np.float32(0.05) * smooth_field(rng, shape, 5)
    eosin += is_epithelium * (cytoplasm - eosin)
    grain = np.float32(rng.uniform(0.15, 0.35)) * smooth_field(rng, shape, 1.3) + np.float32(0.12) * smooth_field(rng, shape, 4)
    haematoxylin += is_epithelium * (anatomy.cells * np.maximum(1 + grain, 0) - haematoxylin)
    spots = soft_above(smooth_field(rng, shape, 1.25), 0.9, 1.2)
    haematoxylin += anatomy.lymphocytes * (1 - is_epithelium) * (np.float32(0.25) + spots)

    eosin += anatomy.secretion * (np.float32(rng.uniform(0.3, 0.7)) - eosin)
    debris = np.float32(0.08) + np.float32(rng.uniform(0, 0.25)) * np.clip(smooth_field(rng, shape, 1.5), 0, 2)
    haematoxylin += anatomy.secretion * (debris - haematoxylin)
    filled = 1 - anatomy.lumen * (1 - np.float32(0.9) * anatomy.secretion)
    filled *= _fat(rng, anatomy, tissue)
    filled *= np.clip(ndimage.gaussian_filter(tissue.astype(np.float32), 1.2, truncate=2) * 2 - 1, 0, 1)
    thickness = np.exp(rng.normal(0, 0.14)) * (1 + np.float32(0.05) * smooth_field(rng, shape, 60))
    filled *= thickness.astype(np.float32)
    return np.maximum(haematoxylin, 0) * filled, np.maximum(eosin, 0) * filled


def cell_walls(rng: np.random.Generator, shape: tuple[int, int], spacing_px: float) -> NDArray[np.float32]:
    """Distance to the second nearest of scattered points less that to the nearest ``(H, W)``: small along cells' walls."""
    rows, columns = (np.floor(np.arange(side) / spacing_px).astype(np.intp) + 1 for side in shape)
    size = (int(rows[-1]) + 2, int(columns[-1]) + 2)
    points_y = ((np.arange(size[0])[:, None] - 1 + rng.uniform(0.1, 0.9, size)) * spacing_px).astype(np.float32)
    points_x = ((np.arange(size[1])[None, :] - 1 + rng.uniform(0.1, 0.9, size)) * spacing_px).astype(np.float32)
    y, x = np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]
    nearest, second = np.full(shape, np.inf, np.float32), np.full(shape, np.inf, np.float32)
    for row, column in _NEIGHBOURS:
        at_y, at_x = (np.take(np.take(points, rows + row, 0), columns + column, 1) for points in (points_y, points_x))
        at_y -= y
        at_x -= x
        at_y *= at_y
        at_x *= at_x
        at_y += at_x
        np.minimum(second, np.maximum(nearest, at_y), out=second)
        np.minimum(nearest, at_y, out=nearest)
    walls: NDArray[np.float32] = np.sqrt(second) - np.sqrt(nearest)
    return walls


def _fibres(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Eosin of the stroma: wavy bundles with clefts."""
    angle, pitch_px = rng.uniform(0, np.pi), rng.uniform(5, 9)
    y, x = np.ogrid[: shape[0], : shape[1]]
    phase = (x * (np.cos(angle) / pitch_px) + y * (np.sin(angle) / pitch_px)).astype(np.float32)
    phase += np.float32(rng.uniform(1.5, 4.0)) * smooth_field(rng, shape, 40)
    phase += np.float32(0.3) * smooth_field(rng, shape, 8)
    ripple = np.abs(phase - np.floor(phase) - np.float32(0.5)) * 4 - 1
    strength = np.clip(1 + smooth_field(rng, shape, 14), 0, 2)
    eosin = np.float32(rng.uniform(0.36, 0.66)) + np.float32(0.05) * smooth_field(rng, shape, 16)
    eosin += np.float32(0.06) * smooth_field(rng, shape, 50)
    eosin += np.float32(0.09) * ripple * strength
    # A few bundles lie apart.
    cleft = soft_above(ripple * strength, rng.uniform(1.3, 2.0), 0.3)
    return np.maximum(eosin, np.float32(0.08)) * (1 - np.float32(0.75) * cleft)


def _stroma_nuclei(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    nuclei = soft_above(smooth_field(rng, shape, 1.3), rng.uniform(1.35, 2.1), 0.8)
    return nuclei * np.float32(rng.uniform(0.35, 0.7))


def _fat(rng: np.random.Generator, anatomy: Anatomy, tissue: NDArray[np.bool_]) -> NDArray[np.float32]:
    """1 in solid tissue and in the membranes of fat cells, 0 in fat cells: these keep away from all that has been drawn."""
    shape = anatomy.shape
    share = rng.uniform(0.05, 0.6) if rng.random() < 0.6 else 0.0
    field = smooth_field(rng, shape, rng.uniform(18, 36)) + np.float32(0.25) * smooth_field(rng, shape, 7)
    spacing_px, walls_px = rng.uniform(15, 24), rng.uniform(1.0, 2.0)
    free = ~anatomy.taken & tissue
    if share == 0 or not free.any():
        return np.ones(shape, np.float32)
    away = ndimage.distance_transform_edt(~anatomy.taken).astype(np.float32) if anatomy.taken.any() else np.float32(99)
    fat = soft_above(field - np.clip(1 - away / 14, 0, 1) * 3, level_of_share(field, share, free), 0.25)
    cells = np.clip(cell_walls(rng, shape, spacing_px) - np.float32(walls_px), 0, 1)
    return 1 - fat * cells * np.float32(0.97)
