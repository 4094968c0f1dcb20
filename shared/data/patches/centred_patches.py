"""Patches centred on what is annotated, so that lesions and not background fill them (Ciga and Martel, appendix B.2)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label, regionprops
from sklearn.cluster import KMeans

SIZE_MEASURES = ("area", "box")
# Of a larger component so many are drawn, and at least so many for each centre: k-means takes a second then.
_MOST_PIXELS, _PIXELS_PER_CENTRE = 50_000, 50


class CentredPatch(NamedTuple):
    """Where a patch belongs.

    Args:
        x: of its centre, in mask pixels from the left edge of the mask: the middle of the first pixel is 0.5.
        y: the same from the upper edge.
        label: class index of the component that it shows.
        component_px: pixels of that component.
    """

    x: float
    y: float
    label: int
    component_px: int


def num_centres(component_px: int, patch_px: int) -> int:
    """K of appendix B.2: ceil(1 + area of the component / area of the patch).

    >>> num_centres(16384, 128 * 128), num_centres(16385, 128 * 128)
    (2, 3)
    """
    return 1 + -(-component_px // patch_px)


def centred_patches(
    mask: NDArray[np.integer[Any]], patch_size_px: int, size_by: str = "area", seed: int = 0
) -> list[CentredPatch]:
    """One patch for each labelled connected component, several for one that is larger than a patch.

    Components are those of one class, pixels that touch at a corner included; class 0 is background. One that is not larger
    than the patch gets a patch at the mean of its pixels' coordinates; in a larger one k-means of the coordinates finds
    `num_centres` centres. Of more than 50 000 pixels (or 50 for each centre) so many are drawn at random first, which holds
    memory and time down and moves a centre by a small part of a patch. The mask itself, its components and the largest
    component's pixels are in memory: about 20 bytes for each pixel of the mask.

    Args:
        mask: class indices ``(H, W)``.
        patch_size_px: side of a patch in pixels of the mask.
        size_by: what is compared with the patch, and put into `num_centres`. ``"area"``: the number of the component's pixels
            with that of the patch; equal is not larger. ``"box"``: a component is larger if a side of its bounding box is,
            and its area is that of the box.
        seed: of k-means and of the pixels drawn; the same mask and seed give the same patches.

    Returns:
        Patches by class, components and then centres from top to bottom. Two may have the same centre: a ring and what it holds.

    Raises:
        ValueError: for a mask that is no ``(H, W)`` array of integers, a patch without pixels or another `size_by`.

    Reference:
        Ciga and Martel, "Learning to segment images with classification labels", appendix B.2. Readings: "larger than our
        predefined patch size" is of the areas, as in the paper's formula for K, so that what is split is split into three at
        least. ``"box"`` is the released code, but for boxes whose longer side it rounds up to a power of two; that code also
        joins touching components of different classes and takes their median class.
    """
    if mask.ndim != 2 or mask.dtype.kind not in "bui" or patch_size_px < 1:
        raise ValueError(
            f"need a mask (H, W) of integers and patch_size_px >= 1; got {mask.dtype} {mask.shape}, patch_size_px={patch_size_px}"
        )
    if size_by not in SIZE_MEASURES:
        raise ValueError(f"size_by must be one of {', '.join(SIZE_MEASURES)}, got {size_by!r}")
    patches = []
    for class_index in np.unique(mask[mask > 0]).tolist():
        for component in regionprops(label(mask == class_index)):
            centres = _centres(component.image, patch_size_px, size_by, seed)
            top, left = component.bbox[:2]
            area = int(component.num_pixels)
            patches += [CentredPatch(left + float(x), top + float(y), class_index, area) for x, y in centres]
    return patches


def _centres(component: NDArray[np.bool_], side_px: int, size_by: str, seed: int) -> NDArray[np.float64]:
    """Centres ``(k, 2)`` as (x, y) of the patches of a component, which is cut out along its bounding box ``(h, w)``."""
    inside = np.flatnonzero(component)
    size_px = inside.size if size_by == "area" else component.size
    is_larger = size_px > side_px**2 if size_by == "area" else max(component.shape) > side_px
    # A thin component in a large box may have fewer pixels than its box asks centres for.
    wanted = min(num_centres(size_px, side_px**2), inside.size) if is_larger else 1
    if wanted > 1:
        most = max(_MOST_PIXELS, _PIXELS_PER_CENTRE * wanted)
        if inside.size > most:
            inside = np.random.default_rng(seed).choice(inside, most, replace=False)
    rows, columns = np.unravel_index(inside, component.shape)
    points = np.stack([columns, rows], axis=1) + 0.5
    if wanted == 1:
        return points.mean(axis=0, keepdims=True)
    centres: NDArray[np.float64] = KMeans(wanted, random_state=seed).fit(points).cluster_centers_
    # From top to bottom, whatever order k-means found them in.
    return centres[np.lexsort((centres[:, 0], centres[:, 1]))]


def patch_corner(patch: CentredPatch, extent_px: int, downsample: float, slide_size_px: tuple[int, int]) -> tuple[int, int]:
    """Top-left corner of a patch on its slide; a patch that would reach beyond an edge is moved inside (as in the released code).

    Args:
        patch: of a mask that begins at the slide's corner.
        extent_px: side of the patch in level-0 pixels.
        downsample: level-0 pixels per pixel of the mask.
        slide_size_px: (width, height) of level 0; a slide that is smaller than the patch leaves it at 0.

    Returns:
        (x, y) in level-0 pixels.
    """
    x, y = (
        min(max(0, math.floor(centre * downsample - extent_px / 2 + 0.5)), max(0, side - extent_px))
        for centre, side in zip((patch.x, patch.y), slide_size_px, strict=True)
    )
    return x, y
