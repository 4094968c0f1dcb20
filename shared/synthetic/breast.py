"""Patches and slides of breast tissue with four classes: normal, benign, in situ, invasive.

The classes are those of BACH (Aresta et al., Med Image Anal 56, 2019). The scale is that of Ciga & Martel (Med Image Anal 73,
2021), 8 um/px, at which structures are seen and nuclei are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .anatomy import Anatomy
from .breast_stain import stain_anatomy
from .fields import level_of_share, smooth_field
from .lesions import LESIONS, NORMAL, Point, draw_duct, draw_infiltrate, draw_lobule
from .stain import Stain, sample_stain, stain_to_rgb

BREAST_MPP = 8.0

# Anatomy pixels per pixel of a patch.
_FINER = 2
_MARGIN_PX = 64
_ATTEMPTS = 40
_SMALLEST_COMPONENT_PX = 250


class BreastPatch(NamedTuple):
    """A patch ``(H, W, 3)`` uint8 at 8 um/px and the class of every pixel ``(H, W)`` uint8 in 0..3."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


class BreastSlide(NamedTuple):
    """A slide ``(H, W, 3)`` uint8 at 4 um/px, the class of every pixel ``(H, W)`` uint8 in 0..3, its tissue ``(H, W)`` bool."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    tissue: NDArray[np.bool_]


def synthesize_breast_patch(
    seed: int | np.random.SeedSequence,
    label: int,
    centred: bool = False,
    size_px: int = 128,
    stain: Stain | None = None,
) -> BreastPatch:
    """Generate a patch of one class: the same arguments give the same bytes.

    Args:
        seed: seed, or a separate seed sequence for each patch.
        label: 0 without a lesion, else the class of its lesion. A second lesion of another class may lie next to it.
        centred: the middle of the patch is that of the bounding box of a connected component of the class, of any size, as in a
            patch cut around an annotation; else the lesion lies anywhere and covers more than those of other classes.
        size_px: side.
        stain: the case's stain; drawn from `seed` if None.

    Returns:
        image and labels.

    Raises:
        ValueError: if there is no such class.

    >>> image, labels = synthesize_breast_patch(seed=0, label=2)
    >>> image.shape, int(np.bincount(labels.ravel())[1:].argmax()) + 1
    ((128, 128, 3), 2)
    """
    if label not in (NORMAL, *LESIONS):
        raise ValueError(f"need a label in 0..{len(LESIONS)}; got {label}")
    rng = np.random.default_rng(seed)
    drawn = sample_stain(rng)
    anatomy = _patch_anatomy(rng, label, centred, size_px * _FINER)
    haematoxylin, eosin = stain_anatomy(rng, anatomy, _patch_tissue(rng, anatomy))
    fine = stain_to_rgb(haematoxylin, eosin, stain or drawn)
    return BreastPatch(_coarser(fine), anatomy.labels[1::_FINER, 1::_FINER].copy())


def synthesize_breast_slide(
    seed: int | np.random.SeedSequence,
    lesions: Sequence[int],
    size_px: tuple[int, int] = (1710, 2330),
    stain: Stain | None = None,
) -> BreastSlide:
    """Generate a slide with lesions: the same arguments give the same bytes.

    Args:
        seed: seed or seed sequence.
        lesions: class of each lesion; one for which no room is found is left out.
        size_px: (height, width) at 4 um/px.
        stain: the slide's stain; drawn from `seed` if None.

    Returns:
        image, labels and tissue.

    Raises:
        ValueError: if a lesion is of no class 1..3.
    """
    wrong = [label for label in lesions if label not in LESIONS]
    if wrong:
        raise ValueError(f"need lesions of the classes 1..{len(LESIONS)}; got {wrong}")
    rng = np.random.default_rng(seed)
    drawn = sample_stain(rng)
    tissue = _island(rng, size_px)
    anatomy = Anatomy.empty(size_px)
    inside = ndimage.distance_transform_edt(tissue[::8, ::8]) * 8
    for label in lesions:
        largest_px = min(140.0, 0.5 * float(inside.max()))
        for attempt in range(_ATTEMPTS):
            # Where there is little room a smaller one may find some.
            radius_px = float(rng.uniform(0.36, 1)) * largest_px * (1 - 0.7 * attempt / _ATTEMPTS)
            if LESIONS[label](anatomy, rng, _point_within(rng, inside, radius_px), radius_px):
                break
    per_patch = tissue.sum() / 256**2
    for draw, count, (low, high) in (
        (draw_lobule, 1.0, (20, 60)),
        (draw_duct, 1.3, (6, 24)),
        (draw_infiltrate, 0.3, (10, 50)),
    ):
        for _ in range(int(per_patch * count)):
            draw(anatomy, rng, _point_within(rng, inside, 40), float(rng.uniform(low, high)))
    anatomy.labels[~tissue] = NORMAL
    haematoxylin, eosin = stain_anatomy(rng, anatomy, tissue)
    return BreastSlide(stain_to_rgb(haematoxylin, eosin, stain or drawn), anatomy.labels, tissue)


def centred_component(labels: NDArray[np.uint8], label: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """Middle (x, y) of the bounding box of one of a class's connected components, at random; None without any of some size."""
    components, count = ndimage.label(labels == label, np.ones((3, 3)))
    areas = np.bincount(components.ravel(), minlength=count + 1)[1:]
    eligible = np.flatnonzero(areas >= _SMALLEST_COMPONENT_PX)
    if not len(eligible):
        return None
    rows, columns = ndimage.find_objects(components)[int(rng.choice(eligible))]
    return (columns.start + columns.stop) // 2, (rows.start + rows.stop) // 2


def _patch_anatomy(rng: np.random.Generator, label: int, centred: bool, side_px: int) -> Anatomy:
    """The first of a series of drawings that meets the requirements, cut to its side."""
    for _ in range(_ATTEMPTS):
        anatomy = Anatomy.empty((side_px + 2 * _MARGIN_PX, side_px + 2 * _MARGIN_PX))
        middle = side_px / 2 + _MARGIN_PX
        corner = (_MARGIN_PX, _MARGIN_PX)
        if label != NORMAL:
            stray_px = 20 if centred else 0.3 * side_px
            place = tuple(float(p) for p in rng.uniform(middle - stray_px, middle + stray_px, 2))
            radius_px = float(rng.uniform(0.1, 0.4) if centred else rng.uniform(0.2, 0.5)) * side_px
            LESIONS[label](anatomy, rng, (place[0], place[1]), radius_px)
            if centred:
                found = centred_component(anatomy.labels, label, rng)
                if found is None:
                    continue
                corner = (found[0] - side_px // 2, found[1] - side_px // 2)
                if min(corner) < 0 or max(corner) > 2 * _MARGIN_PX:
                    continue
        if label != NORMAL and rng.random() < (0.35 if centred else 0.15):
            other = int(rng.choice([kind for kind in LESIONS if kind != label]))
            _draw_somewhere(rng, anatomy, LESIONS[other], (0.1, 0.3), side_px)
        _draw_surroundings(rng, anatomy, label, side_px)
        cut = anatomy.window(slice(corner[1], corner[1] + side_px), slice(corner[0], corner[0] + side_px))
        if label == NORMAL or centred or _is_mainly(cut.labels, label):
            return cut
    raise RuntimeError(f"no patch of class {label} in {_ATTEMPTS} drawings")


def _is_mainly(labels: NDArray[np.uint8], label: int) -> bool:
    """Whether a class covers 8 % and twice as much as the other lesions."""
    counts = np.bincount(labels.ravel(), minlength=len(LESIONS) + 1)
    return bool(counts[label] > 0.08 * labels.size and counts[label] >= 2 * (counts[1:].sum() - counts[label]))


def _draw_surroundings(rng: np.random.Generator, anatomy: Anatomy, label: int, side_px: int) -> None:
    """Lobules, ducts and lymphocytes; in patches without a lesion as much epithelium as in the others."""
    crowded = label == NORMAL and rng.random() < 0.75
    for _ in range(int(rng.integers(3, 9)) if crowded else int(rng.integers(0, 4))):
        _draw_somewhere(rng, anatomy, draw_lobule, (0.08, 0.34) if crowded else (0.07, 0.22), side_px)
    for _ in range(int(rng.integers(0, 6))):
        _draw_somewhere(rng, anatomy, draw_duct, (0.02, 0.11), side_px)
    for _ in range(int(rng.integers(0, 4)) if rng.random() < 0.5 else 0):
        _draw_somewhere(rng, anatomy, draw_infiltrate, (0.03, 0.25), side_px)


def _draw_somewhere(
    rng: np.random.Generator,
    anatomy: Anatomy,
    draw: Callable[[Anatomy, np.random.Generator, Point, float], bool | None],
    shares: tuple[float, float],
    side_px: int,
) -> None:
    """Try a few places; the radius is a share of the side."""
    for _ in range(4):
        x, y = rng.uniform(0, side_px + 2 * _MARGIN_PX, 2)
        if draw(anatomy, rng, (float(x), float(y)), float(rng.uniform(*shares)) * side_px) is not False:
            return


def _patch_tissue(rng: np.random.Generator, anatomy: Anatomy) -> NDArray[np.bool_]:
    """Everything, or all but up to a fifth at a side: what is drawn is tissue in any case."""
    if rng.random() >= 0.25:
        return np.ones(anatomy.shape, np.bool_)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[: anatomy.shape[0], : anatomy.shape[1]]
    slope = (x * np.cos(angle) + y * np.sin(angle)).astype(np.float32) + 10 * smooth_field(rng, anatomy.shape, 30)
    glass = slope > level_of_share(slope, rng.uniform(0, 0.2))
    tissue: NDArray[np.bool_] = ~glass | ndimage.binary_dilation(anatomy.taken, iterations=8)
    return tissue


def _island(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """One piece of tissue, well inside the slide."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    middle_y, middle_x = (side * rng.uniform(0.47, 0.53) for side in shape)
    across = ((x - middle_x) / (shape[1] * rng.uniform(0.38, 0.44))).astype(np.float32) ** 2
    along = ((y - middle_y) / (shape[0] * rng.uniform(0.36, 0.43))).astype(np.float32) ** 2
    island = 1 - across - along + np.float32(0.13) * smooth_field(rng, shape, min(shape) / 7)
    island += np.float32(0.02) * smooth_field(rng, shape, 14)
    components, count = ndimage.label(island > 0)
    areas = np.bincount(components.ravel(), minlength=count + 1)
    areas[0] = 0
    tissue: NDArray[np.bool_] = ndimage.binary_fill_holes(components == areas.argmax())
    tissue[:4], tissue[-4:], tissue[:, :4], tissue[:, -4:] = False, False, False, False
    return tissue


def _point_within(rng: np.random.Generator, inside: NDArray[np.float64], depth_px: float) -> tuple[float, float]:
    """A point (x, y) of the tissue, at least `depth_px` below its edge if there is any, from depths on a lattice of 8 px."""
    rows, columns = np.nonzero(inside > min(depth_px, 0.8 * float(inside.max())))
    k = int(rng.integers(len(rows)))
    return float(columns[k] * 8 + rng.uniform(0, 8)), float(rows[k] * 8 + rng.uniform(0, 8))


def _coarser(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = (side // _FINER for side in image.shape[:2])
    parts = image[: height * _FINER, : width * _FINER].reshape(height, _FINER, width, _FINER, 3)
    mean: NDArray[np.uint8] = ((parts.sum(axis=(1, 3), dtype=np.uint16) + _FINER**2 // 2) // _FINER**2).astype(np.uint8)
    return mean
