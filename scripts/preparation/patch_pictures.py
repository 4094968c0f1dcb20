"""Pictures of how patches are cut from a slide: its foreground, centred patches next to tiles, a large lesion that is split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from skimage.color import rgb2hsv
from skimage.measure import label, regionprops

from shared.data import centred_patches
from shared.data.patches.centred_patches import CentredPatch
from shared.data.record import Record
from shared.data.record_masks import read_record_mask
from shared.writers import atomic_path
from shared.wsi import Slide
from shared.wsi.tissue.detection import tissue_mask

# Appendix B.1 of Ciga and Martel.
_SATURATED_FROM = 0.1
_OVERLAY = (0.1, 0.7, 0.2, 0.45)


def check_picture_names(records: Sequence[Record]) -> None:
    """Check that the pictures of all slides can stand in one folder, where they have the slides' names.

    Raises:
        ValueError: naming two slides of the same name.
    """
    first: dict[str, str] = {}
    for record in records:
        image = record["image"]
        other = first.setdefault(Path(image).stem, image)
        if other != image:
            raise ValueError(
                f"--pictures names pictures like their slides, and {other} and {image} have one name: rename one of them"
            )


def write_patch_pictures(
    record: Record,
    folder: Path,
    size_px: int,
    mpp: float,
    num_classes: int,
    class_names: Sequence[str] | None,
    size_by: str = "area",
    seed: int = 0,
) -> list[Path]:
    """Draw what Ciga and Martel's figures B.4, B.5 and B.6 show, of one slide.

    Args:
        record: of a slide with a mask.
        folder: gets ``<slide>_foreground.png``, ``<slide>_patches.png`` and, where a lesion is larger than a patch,
            ``<slide>_split.png``.
        size_px: side of a patch at `mpp`.
        mpp: micrometres per pixel of the pictures.
        num_classes: of the mask.
        class_names: of annotation files, see `read_record_mask`.
        size_by: how the size of a lesion is measured, see `centred_patches`.
        seed: of k-means.

    Returns:
        the files.
    """
    with Slide(record["image"], mpp=record.get("mpp")) as slide:
        downsample = mpp / slide.mpp
        width, height = (max(1, round(side / downsample)) for side in slide.size_px)
        picture = slide.read_region((0, 0), (width, height), mpp=mpp, exact=True)
        mask = read_record_mask(record, (0, 0), (width, height), slide.size_px, downsample, num_classes, class_names)
    stem = Path(record["image"]).stem
    files = [folder / f"{stem}_foreground.png", folder / f"{stem}_patches.png"]
    _write(_foreground(picture), files[0])
    patches = centred_patches(mask, size_px, size_by, seed)
    _write(_patches(picture, mask, patches, size_px), files[1])
    large = [one for one in patches if one.component_px > size_px**2]
    if large:
        files.append(folder / f"{stem}_split.png")
        _write(_split(mask, max(large, key=lambda one: one.component_px), patches, size_px), files[-1])
    return files


def _foreground(picture: NDArray[np.uint8]) -> Figure:
    """Figure B.4: from left to right, then from top to bottom."""
    saturation = rgb2hsv(picture)[..., 1]
    above = saturation >= _SATURATED_FROM
    steps = {
        "slide": picture,
        "saturation": saturation,
        "10 % or more": above,
        "holes filled": binary_fill_holes(above),
        "opened": tissue_mask(picture, "saturation"),
    }
    figure, axes = _figure(2, 3)
    for place, (title, shown) in zip(axes, steps.items(), strict=False):
        place.imshow(shown, cmap="gray")
        place.set_title(title)
    return figure


def _patches(picture: NDArray[np.uint8], mask: NDArray[np.uint8], patches: Sequence[CentredPatch], size_px: int) -> Figure:
    """Figure B.5: patches centred on lesions, and tiles side by side."""
    figure, axes = _figure(1, 2)
    height, width = mask.shape
    corners = {
        "centred": [(one.x - size_px / 2, one.y - size_px / 2) for one in patches],
        "tiled": [(float(x), float(y)) for y in range(0, height, size_px) for x in range(0, width, size_px)],
    }
    for place, (title, drawn) in zip(axes, corners.items(), strict=True):
        place.imshow(picture)
        _overlay(place, mask > 0)
        _boxes(place, drawn, size_px)
        place.set_title(f"{title}: {len(drawn)} patches")
    return figure


def _split(mask: NDArray[np.uint8], of: CentredPatch, patches: Sequence[CentredPatch], size_px: int) -> Figure:
    """Figure B.6: a large lesion, and the patches that it is split into."""
    region = next(one for one in regionprops(label(mask == of.label)) if one.num_pixels == of.component_px)
    top, left, bottom, right = region.bbox
    # Another one may have as many pixels.
    inside = [
        one
        for one in patches
        if (one.label, one.component_px) == (of.label, of.component_px) and left < one.x < right and top < one.y < bottom
    ]
    figure, axes = _figure(1, 2)
    _boxes(axes[1], [(one.x - size_px / 2 - left, one.y - size_px / 2 - top) for one in inside], size_px)
    for place, title in zip(axes, ("a large lesion", f"{len(inside)} patches of it"), strict=True):
        _overlay(place, region.image)
        place.set_title(title)
        place.set_xlim(-size_px / 2, right - left + size_px / 2)
        place.set_ylim(bottom - top + size_px / 2, -size_px / 2)
    return figure


def _figure(rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4 * columns, 4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for place in axes:
        place.set_axis_off()
    return figure, axes


def _overlay(place: Axes, region: NDArray[np.bool_]) -> None:
    place.imshow(np.where(region[..., None], np.array(_OVERLAY, np.float32), np.float32(0)))


def _boxes(place: Axes, corners: Sequence[tuple[float, float]], side_px: float) -> None:
    for corner in corners:
        place.add_patch(Rectangle(corner, side_px, side_px, fill=False, edgecolor="black", linewidth=1))


def _write(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
