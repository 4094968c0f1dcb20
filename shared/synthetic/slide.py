"""A whole slide with what real ones have: islands on glass, small lesions, aggregates, a fold and a stroke of a pen."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from .fields import smooth_field, soft_above
from .image import MPP
from .stain import Stain, sample_stain, stain_to_rgb
from .tissue import grow_tissue

_OUTLINE_PX = 260.0
_NEST_PX = 105.0
_FOLD_DENSITY = 0.75
_INKS = ((2.0, 0.5, 1.6), (2.4, 1.5, 0.3), (2.2, 2.2, 2.1))  # green, blue, black
_TILE_PX = 256
_SMALLEST_LEVEL_PX = 512


class SyntheticSlide(NamedTuple):
    """A slide ``(H, W, 3)`` uint8 at 0.5 um/px, its tumour and its tissue ``(H, W)`` bool.

    `tumour.sum() / tissue.sum()` is the tumour share. Pen and fold lie over the truth: they do not change it.
    """

    image: NDArray[np.uint8]
    tumour: NDArray[np.bool_]
    tissue: NDArray[np.bool_]


def synthesize_slide(
    seed: int | np.random.SeedSequence,
    tumour_share: float,
    size_px: tuple[int, int] = (3010, 4070),
    stain: Stain | None = None,
    with_fold: bool = True,
    with_pen: bool = True,
) -> SyntheticSlide:
    """Generate a slide at full size from global fields, so that it has no seams.

    Args:
        seed: seed or seed sequence.
        tumour_share: share of the *tissue* that is tumour (to one pixel), 0 for a normal slide.
        size_px: (height, width).
        stain: the slide's stain; drawn from `seed` if None.
        with_fold: lay a fold across an island.
        with_pen: draw a stroke of a pen along an edge of the tissue.

    Returns:
        image, tumour and tissue.

    Raises:
        ValueError: if `tumour_share` is not in [0, 1].
    """
    rng = np.random.default_rng(seed)
    drawn = sample_stain(rng)
    outline = _outline(rng, size_px)
    tissue = outline > 0
    # A small lesion is a few whole nests, not many slivers. Glands are as dense in normal slides as next to a tumour: were
    # there more of them, their absence would tell of a tumour elsewhere in the slide.
    grown = grow_tissue(rng, size_px, tumour_share, tissue, nest_px=_NEST_PX, gland_fill=0.0)
    haematoxylin, eosin = grown.haematoxylin, grown.eosin
    edge = soft_above(outline, 0.01, 0.02)
    haematoxylin *= edge
    eosin *= edge
    fold_seed, pen_seed = rng.integers(0, 2**63, 2)
    if with_fold:
        _lay_fold(haematoxylin, eosin, np.random.default_rng(fold_seed), tissue)
    ink = _pen_density(np.random.default_rng(pen_seed), tissue) if with_pen else None
    image = stain_to_rgb(haematoxylin, eosin, stain or drawn, ink)
    return SyntheticSlide(image, grown.tumour, tissue)


def _outline(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Field ``(H, W)`` that is positive in one or two islands of tissue, well inside the slide."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    count = int(rng.integers(1, 3))
    islands = np.full(shape, -10, np.float32)
    for k in range(count):
        centre_x = shape[1] * ((k + 0.5) / count + rng.uniform(-0.03, 0.03))
        centre_y = shape[0] * rng.uniform(0.45, 0.55)
        half_width, half_height = shape[1] * rng.uniform(0.36, 0.42) / count, shape[0] * rng.uniform(0.32, 0.40)
        across = ((x - centre_x) / half_width).astype(np.float32) ** 2
        along = ((y - centre_y) / half_height).astype(np.float32) ** 2
        np.maximum(islands, 1 - across - along, out=islands)
    islands += np.float32(0.16) * smooth_field(rng, shape, _OUTLINE_PX)
    islands += np.float32(0.02) * smooth_field(rng, shape, 18)
    return islands


def _curve(rng: np.random.Generator, start: NDArray, end: NDArray, bend: float) -> NDArray[np.float64]:
    """Quadratic Bezier curve from `start` to `end` (x, y), one point a pixel or closer, ``(n, 2)``."""
    length = float(np.hypot(*(end - start)))
    normal = np.asarray([start[1] - end[1], end[0] - start[0]]) * rng.uniform(-bend, bend)
    middle = (start + end) / 2 + normal
    t = np.linspace(0, 1, int(length * 1.5) + 2)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end


def _distance_to(curve: NDArray[np.float64], reach_px: float, shape: tuple[int, int]) -> tuple[tuple[slice, slice], NDArray]:
    """Window around a curve and its distance to the curve in pixels, computed at a quarter of the resolution."""
    low = np.maximum(np.floor(curve.min(axis=0) - reach_px).astype(int), 0)
    high = np.minimum(np.ceil(curve.max(axis=0) + reach_px).astype(int) + 1, shape[::-1])
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    width, height = np.maximum(high - low, 1)
    coarse = np.ones((height // 4 + 2, width // 4 + 2), np.bool_)
    at = np.clip(((curve - low) / 4).astype(int), 0, np.asarray(coarse.shape[::-1]) - 1)
    coarse[at[:, 1], at[:, 0]] = False
    distance = ndimage.distance_transform_edt(coarse).astype(np.float32) * 4
    rows, columns = np.arange(height) / 4, np.arange(width) / 4
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top).astype(np.float32)[:, None], (columns - left).astype(np.float32)
    wide = distance[:, left] * (1 - right) + distance[:, left + 1] * right
    return window, wide[top] * (1 - down) + wide[top + 1] * down


def _random_tissue_point(rng: np.random.Generator, tissue: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A pixel (x, y) of the tissue, on a lattice of 16 px."""
    ys, xs = np.nonzero(tissue[::16, ::16])
    k = int(rng.integers(len(ys)))
    return np.asarray([xs[k] * 16.0, ys[k] * 16.0])


def _lay_fold(
    haematoxylin: NDArray[np.float32],
    eosin: NDArray[np.float32],
    rng: np.random.Generator,
    tissue: NDArray[np.bool_],
) -> None:
    """Double the tissue along a narrow curve, in place."""
    length, width_px = 0.3 * min(tissue.shape), rng.uniform(28, 50)
    angle = rng.uniform(0, np.pi)
    half = length / 2 * np.asarray([np.cos(angle), np.sin(angle)])
    centre = _random_tissue_point(rng, tissue)
    window, distance = _distance_to(_curve(rng, centre - half, centre + half, 0.3), width_px, tissue.shape)
    if distance.size == 0:
        return
    shape = (distance.shape[0], distance.shape[1])
    band = np.clip((width_px * (0.5 + 0.12 * smooth_field(rng, shape, 40)) - distance) / 6, 0, 1)
    for concentration in (haematoxylin, eosin):
        # What is folded over is other tissue: its neighbour's, shifted by the width of the fold.
        shifted = np.roll(concentration[window], int(width_px), axis=(0, 1))
        concentration[window] += band * (shifted + np.float32(_FOLD_DENSITY) * concentration[window])


def _pen_density(rng: np.random.Generator, tissue: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Optical density ``(H, W, 3)`` of a felt-pen stroke next to the tissue, partly over its edge."""
    height, width = tissue.shape
    columns = np.nonzero(tissue.any(axis=0))[0]
    left, right = (float(columns[int(share * (len(columns) - 1))]) for share in (0.1, 0.6))
    # Where the tissue begins from above, below the stroke.
    top = float(np.argmax(tissue[:, int(left) : int(right) + 1].any(axis=1)))
    start = np.asarray([left, top + rng.uniform(0, 0.03) * height])
    end = np.asarray([right, top - rng.uniform(0, 0.05) * height])
    width_px = rng.uniform(50, 90)
    window, distance = _distance_to(_curve(rng, start, end, 0.06), width_px, tissue.shape)
    density = np.zeros((height, width, 3), np.float32)
    shape = (distance.shape[0], distance.shape[1])
    stroke = np.clip((width_px / 2 - distance + 4 * smooth_field(rng, shape, 14)) / 5, 0, 1)
    stroke *= np.clip(1 + 0.2 * smooth_field(rng, shape, 45), 0.3, None)
    ink = _INKS[int(rng.integers(len(_INKS)))]
    density[window] = stroke[..., None] * np.asarray(ink, np.float32)
    return density


def write_slide(path: str | Path, image: NDArray[np.uint8], mpp: float = MPP) -> None:
    """Write a pyramidal JPEG TIFF that cuCIM, OpenSlide and QuPath read: every level is a separate page.

    Args:
        path: file to write; replaced only when complete.
        image: ``(H, W, 3)``.
        mpp: micrometres a pixel at level 0, stored in the resolution tags.

    Raises:
        ValueError: if `image` is not ``(H, W, 3)`` uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"need a uint8 image (H, W, 3); got {image.dtype} {image.shape}")
    path = Path(path)
    part = path.with_name(path.name + ".part")
    level, downsample = image, 1
    with tifffile.TiffWriter(part) as writer:
        while True:
            pixels_per_cm = 1e4 / (mpp * downsample)
            # photometric="rgb": tifffile converts to YCbCr itself. The software tag would name its version.
            writer.write(
                level,
                tile=(_TILE_PX, _TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 85},
                subfiletype=0 if downsample == 1 else 1,
                resolution=(pixels_per_cm, pixels_per_cm),
                resolutionunit="CENTIMETER",
                metadata=None,
                software=False,
            )
            if min(level.shape[:2]) // 2 < _SMALLEST_LEVEL_PX:
                break
            level, downsample = _halve(level), downsample * 2
    part.replace(path)


def _halve(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of 2 x 2 pixels; an odd last row or column is dropped, as scanners do."""
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    total = np.full((height // 2, width // 2, 3), 2, np.uint16)
    for row in (0, 1):
        for column in (0, 1):
            total += image[row:height:2, column:width:2]
    return (total // 4).astype(np.uint8)
