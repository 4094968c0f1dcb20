"""Lobules, ducts and lymphocytes of the normal breast, and benign, in-situ and invasive lesions, drawn into an `Anatomy`.

Sizes are in pixels of 4 um. Lesions of the three kinds and groups of lobules are equally large and have the same range of
densities, so that structure alone distinguishes them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .anatomy import Anatomy, Blob, depth_at, draw_blob, jittered_lattice, raise_to, ramp
from .fields import smooth_field

NORMAL, BENIGN, IN_SITU, INVASIVE = range(4)
CLASS_NAMES = ("normal", "benign", "in situ", "invasive")

Point = tuple[float, float]

# Annotators take gaps of up to 40 um between ducts or nests of one lesion with it.
_BRIDGE_PX = 5
_SMALLEST_NEST_PX = 40


def sample_density(rng: np.random.Generator) -> float:
    """Mean haematoxylin of a structure's epithelium."""
    return float(np.clip(0.68 * np.exp(rng.normal(0, 0.22)), 0.4, 1.15))


def is_free(anatomy: Anatomy, blob: Blob, gap_px: float = 4) -> bool:
    """Whether nothing has been drawn closer than `gap_px` to a blob (within its window), which touches the maps."""
    near = blob.depth > -gap_px
    return bool(near.any() and not (anatomy.taken[blob.rows, blob.columns] & near).any())


def draw_gland(
    anatomy: Anatomy,
    rng: np.random.Generator,
    centre: Point,
    radius_px: float,
    wall_px: float,
    density: float,
    aspect: float = 1.0,
) -> None:
    """A ring of epithelium around an open lumen (none if the wall is as thick as the radius)."""
    blob = draw_blob(rng, anatomy.shape, centre, radius_px, aspect, 0.05)
    raise_to(anatomy.cells, blob, ramp(blob.depth, 1.5) * np.float32(density))
    raise_to(anatomy.lumen, blob, ramp(blob.depth - np.float32(wall_px), 1.5))


def draw_lobule(anatomy: Anatomy, rng: np.random.Generator, centre: Point, radius_px: float) -> bool:
    """A normal lobule: many small acini, close together, in loose stroma. Returns whether there was room."""
    blob = draw_blob(rng, anatomy.shape, centre, radius_px, rng.uniform(1, 1.5), 0.09, 6)
    if not is_free(anatomy, blob):
        return False
    anatomy.taken[blob.rows, blob.columns] |= blob.depth > -2
    raise_to(anatomy.pale, blob, ramp(blob.depth, 8) * np.float32(rng.uniform(0.3, 0.8)))
    density, spacing_px = sample_density(rng), rng.uniform(11, 16)
    fill, openness = rng.uniform(0.34, 0.44), rng.uniform(0.1, 0.8)
    points = jittered_lattice(rng, blob, spacing_px)
    for point in points[depth_at(blob, points) > 0.2 * spacing_px]:
        size_px = spacing_px * fill * float(np.exp(rng.normal(0, 0.12)))
        wall_px = size_px - (rng.uniform(1, 2.2) if rng.random() < openness else 0)
        draw_gland(anatomy, rng, (point[0], point[1]), size_px, wall_px, density, float(rng.uniform(1, 1.4)))
    if rng.random() < 0.25:
        raise_to(anatomy.lymphocytes, blob, ramp(blob.depth, 10) * np.float32(rng.uniform(0.2, 0.7)))
    return True


def draw_duct(anatomy: Anatomy, rng: np.random.Generator, centre: Point, radius_px: float) -> bool:
    """A normal duct or, without epithelium, a vessel: a thin wall, collagen around it. Returns whether there was room."""
    blob = draw_blob(rng, anatomy.shape, centre, radius_px, rng.uniform(1, 2.4), 0.08, 10)
    if not is_free(anatomy, blob, 6):
        return False
    anatomy.taken[blob.rows, blob.columns] |= blob.depth > -4
    wall_px = rng.uniform(1.5, 3.5)
    raise_to(anatomy.collagen, blob, ramp(blob.depth + np.float32(rng.uniform(1, 6)), 3))
    inside = ramp(blob.depth - np.float32(wall_px), 1.5)
    if rng.random() < 0.75:
        raise_to(anatomy.cells, blob, ramp(blob.depth, 1.5) * (1 - inside) * np.float32(sample_density(rng)))
    kind = rng.random()
    if kind < 0.35:
        # Secretion, or blood: pink throughout or with an empty margin, as the centre of a necrotic duct.
        raise_to(anatomy.secretion, blob, ramp(blob.depth - np.float32(wall_px + rng.uniform(0, 4)), 2))
    raise_to(anatomy.lumen, blob, inside)
    return True


def draw_infiltrate(anatomy: Anatomy, rng: np.random.Generator, centre: Point, radius_px: float) -> None:
    """Lymphocytes with a ragged outline, dense or loose, wherever nothing else is."""
    blob = draw_blob(rng, anatomy.shape, centre, radius_px, rng.uniform(1, 2.5), 0.15, 14)
    if not blob.depth.size:
        return
    ragged = blob.depth + np.float32(rng.uniform(3, 9)) * smooth_field(rng, _shape(blob), rng.uniform(5, 11))
    free = ~anatomy.taken[blob.rows, blob.columns]
    raise_to(anatomy.lymphocytes, blob, ramp(ragged, 8) * np.float32(rng.uniform(0.4, 1)) * free)


def draw_benign(anatomy: Anatomy, rng: np.random.Generator, centre: Point, radius_px: float) -> bool:
    """A fibroadenoma or adenosis: a smooth border, round open glands at even distances in pale stroma.

    Returns whether there was room; label 1 is everything inside the border.
    """
    blob = draw_blob(rng, anatomy.shape, centre, radius_px, rng.uniform(1, 1.7), 0.05, 8)
    if not is_free(anatomy, blob):
        return False
    anatomy.taken[blob.rows, blob.columns] |= blob.depth > -4
    anatomy.labels[blob.rows, blob.columns][blob.depth > 0] = BENIGN
    raise_to(anatomy.pale, blob, ramp(blob.depth, 3) * np.float32(rng.uniform(0.35, 1)))
    if rng.random() < 0.6:
        capsule_px = np.float32(rng.uniform(1.5, 4))
        raise_to(anatomy.collagen, blob, ramp(blob.depth + capsule_px) * ramp(capsule_px / 2 - blob.depth, 2))
    # A small one still has several glands.
    density, spacing_px = sample_density(rng), min(rng.uniform(21, 38), radius_px / 1.5)
    fill, wall_share = rng.uniform(0.3, 0.44), rng.uniform(0.25, 0.5)
    # Glands pressed flat by the stroma in some, round in most.
    aspect = rng.uniform(2.2, 4) if rng.random() < 0.2 else rng.uniform(1, 1.35)
    points = jittered_lattice(rng, blob, spacing_px, 0.1)
    for point in points[depth_at(blob, points) > 0.36 * spacing_px]:
        size_px = spacing_px * fill * float(np.exp(rng.normal(0, 0.15))) / np.sqrt(max(1, 0.6 * aspect))
        wall_px = max(2.2, size_px * wall_share)
        draw_gland(anatomy, rng, (point[0], point[1]), size_px, wall_px, density, aspect * float(rng.uniform(1, 1.2)))
        if rng.random() < 0.15:
            core = draw_blob(rng, anatomy.shape, (point[0], point[1]), size_px, aspect)
            raise_to(anatomy.secretion, core, ramp(core.depth - np.float32(wall_px + 1.5), 2))
    return True


def draw_in_situ(anatomy: Anatomy, rng: np.random.Generator, centre: Point, radius_px: float) -> bool:
    """A group of round ducts with smooth borders, filled with cells, with a rim around them.

    Within `radius_px` of the centre lies one large duct or up to twelve; all of a group are solid, necrotic or cribriform.
    Returns whether there was room; label 2 is the ducts with narrow gaps between them.
    """
    extent = draw_blob(rng, anatomy.shape, centre, radius_px, 1.0, 0.0, 20)
    if not is_free(anatomy, extent):
        return False
    window = anatomy.window(extent.rows, extent.columns)
    density, pattern = sample_density(rng), rng.random()
    typical_px = min(radius_px, float(np.exp(rng.uniform(np.log(15), np.log(46)))))
    rim_px, clear, fibrous = rng.uniform(1.5, 4), rng.uniform(0.3, 0.9), rng.random() < 0.5
    drawn: list[tuple[float, float, float]] = []
    ducts = np.zeros(window.shape, np.bool_)
    for _ in range(120):
        duct_px = float(typical_px * np.clip(np.exp(rng.normal(0, 0.2)), 0.6, 1.5))
        away_px = max(radius_px - duct_px, 0) * np.sqrt(rng.random())
        turn = rng.uniform(0, 2 * np.pi)
        x, y = centre[0] + away_px * np.cos(turn), centre[1] + away_px * np.sin(turn)
        if len(drawn) >= 12:
            break
        if any(np.hypot(x - p, y - q) < (duct_px + r) * 1.03 + 6 for p, q, r in drawn):
            continue
        drawn.append((x, y, duct_px))
        duct = draw_blob(rng, anatomy.shape, (x, y), duct_px, rng.uniform(1, 1.3), 0.025, 8)
        _fill_duct(anatomy, rng, duct, duct_px, density, pattern)
        outside = ramp(duct.depth + np.float32(rim_px), 2) * ramp(-duct.depth, 1.5)
        raise_to(anatomy.collagen if fibrous else anatomy.lumen, duct, outside * np.float32(1 if fibrous else clear))
        raise_to(anatomy.collagen, duct, ramp(duct.depth + np.float32(rim_px + 3), 4) * ramp(-duct.depth))
        anatomy.taken[duct.rows, duct.columns] |= duct.depth > -6
        ducts |= _in_window(duct, extent)
    window.labels[_bridged(ducts) & (window.labels == NORMAL)] = IN_SITU
    return True


def _fill_duct(anatomy: Anatomy, rng: np.random.Generator, duct: Blob, duct_px: float, density: float, pattern: float) -> None:
    """Solid (pattern below 0.4), with a necrotic centre (below 0.8), or with small round holes."""
    raise_to(anatomy.cells, duct, ramp(duct.depth, 1.5) * np.float32(density))
    if not duct.depth.size:
        return
    if 0.4 <= pattern < 0.8 and rng.random() < 0.8:
        necrosis = duct.depth - np.float32(duct_px * rng.uniform(0.35, 0.7))
        raise_to(anatomy.secretion, duct, ramp(necrosis + smooth_field(rng, _shape(duct), 5), 3))
    elif pattern >= 0.8:
        points = jittered_lattice(rng, duct, rng.uniform(11, 16), 0.2)
        hole_px = rng.uniform(2.2, 4)
        for point in points[depth_at(duct, points) > hole_px + 3]:
            hole = draw_blob(rng, anatomy.shape, (point[0], point[1]), hole_px * float(np.exp(rng.normal(0, 0.2))))
            raise_to(anatomy.lumen, hole, ramp(hole.depth, 1.5))


def draw_invasive(anatomy: Anatomy, rng: np.random.Generator, centre: Point, radius_px: float) -> bool:
    """Nests and strands that grow into the stroma: no border, no regular shape. Small lumina in some.

    Returns whether there was room; label 3 is the nests with narrow gaps between them, without single cells.
    """
    blob = draw_blob(rng, anatomy.shape, centre, radius_px, rng.uniform(1, 1.8), 0.12, 26)
    if not is_free(anatomy, blob):
        return False
    shape = _shape(blob)
    window = anatomy.window(blob.rows, blob.columns)
    ragged = blob.depth + np.float32(0.16 * radius_px + 3) * smooth_field(rng, shape, rng.uniform(9, 18))
    inner = ramp(ragged - 4, 14)
    field = smooth_field(rng, shape, rng.uniform(4.5, 9)) + np.float32(0.8) * smooth_field(rng, shape, rng.uniform(14, 26))
    # Strands run along the contours of the field, nests lie where it is high.
    strands = rng.uniform(0.15, 0.4) - np.abs(field)
    nests = field - np.float32(rng.uniform(-0.35, 0.75))
    grown = np.maximum(nests, strands) if rng.random() < 0.5 else nests
    fill = np.clip((grown + np.float32(1.6) * (inner - 1)) * 4 + np.float32(0.5), 0, 1)
    fill *= ramp(ragged, 6)
    np.maximum(window.cells, fill * np.float32(sample_density(rng)), out=window.cells)
    if rng.random() < 0.35:
        holes = smooth_field(rng, shape, 4) - np.float32(rng.uniform(1.5, 2.2))
        np.maximum(window.lumen, ramp(holes, 0.5) * (fill > 0.9), out=window.lumen)
    around = ramp(ragged + 8, 16)
    stroma = window.pale if rng.random() < 0.5 else window.collagen
    np.maximum(stroma, around * np.float32(rng.uniform(0.2, 0.9)), out=stroma)
    if rng.random() < 0.4:
        np.maximum(window.lymphocytes, around * np.float32(rng.uniform(0.1, 0.5)), out=window.lymphocytes)
    lesion = _bridged(fill > 0.5)
    window.labels[lesion & (window.labels == NORMAL)] = INVASIVE
    window.taken[:] |= lesion | (ragged > 0)
    return True


LESIONS = {BENIGN: draw_benign, IN_SITU: draw_in_situ, INVASIVE: draw_invasive}


def _bridged(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A region with its narrow gaps and enclosed holes, without specks."""
    padded = np.pad(region, _BRIDGE_PX + 1)
    closed = ndimage.binary_closing(padded, ndimage.generate_binary_structure(2, 1), iterations=_BRIDGE_PX)
    closed = ndimage.binary_fill_holes(closed)[_BRIDGE_PX + 1 : -_BRIDGE_PX - 1, _BRIDGE_PX + 1 : -_BRIDGE_PX - 1]
    components, count = ndimage.label(closed)
    areas = np.bincount(components.ravel(), minlength=count + 1)
    areas[0] = 0
    kept: NDArray[np.bool_] = (areas >= _SMALLEST_NEST_PX)[components]
    return kept


def _in_window(blob: Blob, window: Blob) -> NDArray[np.bool_]:
    """The inside of a blob on another one's window."""
    inside = np.zeros(_shape(window), np.bool_)
    top, left = blob.rows.start - window.rows.start, blob.columns.start - window.columns.start
    height, width = blob.depth.shape
    rows = slice(max(0, top), max(0, min(inside.shape[0], top + height)))
    columns = slice(max(0, left), max(0, min(inside.shape[1], left + width)))
    inside[rows, columns] = blob.depth[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] > 0
    return inside


def _shape(blob: Blob) -> tuple[int, int]:
    height, width = blob.depth.shape
    return height, width
