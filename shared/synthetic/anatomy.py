"""Maps of breast tissue at 4 um/px and the outlines from which its structures are drawn into them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# A nucleus is two pixels wide: enough to see that tissue is made of cells, and a whole slide is drawn in seconds.
ANATOMY_MPP = 4.0


@dataclass(frozen=True)
class Anatomy:
    """The distribution of tissue, changed in place by the drawing functions: all ``(H, W)`` at 4 um/px.

    Attributes:
        cells: mean haematoxylin of epithelium, 0 where there is none.
        lymphocytes: how densely lymphocytes lie, 0..1.
        lumen: empty space, 0..1.
        secretion: pink fluid or dead cells in place of tissue, 0..1.
        pale: loose stroma, 0..1.
        collagen: dense stroma, 0..1.
        labels: class of every pixel: 0 normal, 1 benign, 2 in situ, 3 invasive.
        taken: where nothing else may be drawn.
    """

    cells: NDArray[np.float32]
    lymphocytes: NDArray[np.float32]
    lumen: NDArray[np.float32]
    secretion: NDArray[np.float32]
    pale: NDArray[np.float32]
    collagen: NDArray[np.float32]
    labels: NDArray[np.uint8]
    taken: NDArray[np.bool_]

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Anatomy:
        """Stroma alone."""
        kinds = {"labels": np.uint8, "taken": np.bool_}
        return cls(**{field.name: np.zeros(shape, kinds.get(field.name, np.float32)) for field in fields(cls)})

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self.labels.shape
        return height, width

    def window(self, rows: slice, columns: slice) -> Anatomy:
        """A part of the maps, not copied."""
        return Anatomy(**{field.name: getattr(self, field.name)[rows, columns] for field in fields(self)})


class Blob(NamedTuple):
    """An outline: the window it lies in, and the depth below the outline ``(h, w)`` in pixels, negative outside.

    Depth is measured along the ray from the centre and scaled by the mean radius: exact for a circle.
    """

    rows: slice
    columns: slice
    depth: NDArray[np.float32]


def draw_blob(
    rng: np.random.Generator,
    shape: tuple[int, int],
    centre: tuple[float, float],
    radius_px: float,
    aspect: float = 1.0,
    irregularity: float = 0.0,
    margin_px: int = 2,
) -> Blob:
    """An ellipse in a random direction whose radius is changed by random harmonics 2-5.

    Args:
        rng: source of randomness.
        shape: (H, W) of the maps.
        centre: (x, y) in pixels, anywhere.
        radius_px: of the circle of equal area.
        aspect: ratio of the axes.
        irregularity: amplitude of the harmonics as a share of the radius.
        margin_px: how far the window reaches over the outline.

    Returns:
        the blob; its window is empty if it lies outside the maps.
    """
    angle = rng.uniform(0, np.pi)
    waves = rng.standard_normal(4) + 1j * rng.standard_normal(4)
    harmonics = (waves * irregularity / np.sqrt([1, 1.6, 2.6, 4])).astype(np.complex64)
    reach = radius_px * np.sqrt(aspect) * (1 + 2.5 * irregularity) + margin_px
    rows, columns = (
        slice(max(0, int(middle - reach)), max(0, min(side, int(middle + reach) + 2)))
        for middle, side in zip(centre[::-1], shape, strict=True)
    )
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(centre[1])
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(centre[0])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = (x * cos + y * sin) * np.float32(1 / (radius_px * np.sqrt(aspect)))
    v = (y * cos - x * sin) * np.float32(np.sqrt(aspect) / radius_px)
    distance = np.sqrt(u * u + v * v) + np.float32(1e-6)
    if irregularity:
        distance /= _outline(u / distance, v / distance, harmonics)
    return Blob(rows, columns, (1 - distance) * np.float32(radius_px))


def _outline(cos: NDArray[np.float32], sin: NDArray[np.float32], harmonics: NDArray[np.complex64]) -> NDArray[np.float32]:
    """1 + Re(sum_k h_k * exp(i k theta)), k = 2..5, from the cosine and sine of theta."""
    turn = (cos + 1j * sin).astype(np.complex64)
    total = np.full(turn.shape, harmonics[3], np.complex64)
    for harmonic in harmonics[2::-1]:
        total = total * turn + harmonic
    outline: NDArray[np.float32] = 1 + (total * turn * turn).real
    return np.maximum(outline, np.float32(0.4))


def ramp(depth: NDArray[np.float32], width_px: float = 1.0) -> NDArray[np.float32]:
    """0 outside, 1 inside, with an edge of `width_px` about depth 0."""
    soft: NDArray[np.float32] = np.clip(depth * np.float32(1 / width_px) + np.float32(0.5), 0, 1)
    return soft


def raise_to(canvas: NDArray[np.float32], blob: Blob, values: NDArray[np.float32]) -> None:
    """The larger of what is there and `values`, in place."""
    part = canvas[blob.rows, blob.columns]
    np.maximum(part, values, out=part)


def jittered_lattice(rng: np.random.Generator, blob: Blob, spacing_px: float, jitter: float = 0.16) -> NDArray[np.float64]:
    """Points (x, y) ``(n, 2)`` of a hexagonal lattice with `jitter` (share of the spacing) in a blob's window."""
    step = np.asarray([spacing_px, spacing_px * 0.866])
    start = np.asarray([blob.columns.start, blob.rows.start]) + rng.uniform(0, 1, 2) * step
    extent = np.asarray(blob.depth.shape[::-1])
    columns, rows = np.meshgrid(*(np.arange(-1, count) for count in np.ceil(extent / step).astype(int)))
    lattice = np.stack([columns + 0.5 * (rows % 2), rows], axis=-1).reshape(-1, 2) * step + start
    lattice += rng.normal(0, jitter * spacing_px, lattice.shape)
    return lattice


def depth_at(blob: Blob, points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Depth at points (x, y) ``(n,)``; -inf outside the window."""
    x, y = np.round(points).astype(int).T - np.asarray([[blob.columns.start], [blob.rows.start]])
    height, width = blob.depth.shape
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    found = np.full(len(points), -np.inf, np.float32)
    found[inside] = blob.depth[y[inside], x[inside]]
    return found
