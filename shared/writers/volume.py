"""A map in the formats of radiology, through MONAI's writers, for tools that read no OME-TIFF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .atomic import atomic_path
from .ome_tiff import RowSource, reduced_strips

VOLUME_SUFFIXES = {"nifti": ".nii.gz", "metaimage": ".mha"}
# MONAI's writers take whole arrays: 256 MB, and two or three times as much while they write.
LARGEST_VALUES = 2**28


def check_volume_format(name: str | None) -> None:
    """Raises ValueError unless `name` is None or one of `VOLUME_SUFFIXES`."""
    if name is not None and name not in VOLUME_SUFFIXES:
        raise ValueError(f"volume must be one of {', '.join(VOLUME_SUFFIXES)} or null; got {name!r}")


def write_volume(
    path: str | Path, sources: Sequence[RowSource], mpp: float, volume: str, largest_values: int = LARGEST_VALUES
) -> float:
    """Write maps of one size as an image of one value per pixel: of one map (x, y), of several (x, y, map).

    y runs downwards, as ITK has it: identity direction, origin 0 (in NIfTI's frame both axes point to the negative side).
    Several maps lie along a third axis and not in a pixel's components, which ITK's Python cannot read for every number of
    them.

    Args:
        path: final name.
        sources: ``(H, W)`` uint8 each.
        mpp: micrometres per pixel of the maps; the file says millimetres.
        volume: ``"nifti"`` or ``"metaimage"``.
        largest_values: maps with more values together are reduced by the mean of 2 x 2, 3 x 3, ... pixels until they fit.

    Returns:
        micrometres per pixel of what was written.

    Raises:
        ValueError: for another format.
    """
    from monai.data.image_writer import ITKWriter, NibabelWriter

    check_volume_format(volume)
    height, width = sources[0].shape
    factor = 1
    while len(sources) * -(-height // factor) * -(-width // factor) > largest_values:
        factor += 1
    maps = np.stack([_reduced(source, factor) for source in sources])
    spacing = mpp * factor
    writer = NibabelWriter(output_dtype=np.uint8) if volume == "nifti" else ITKWriter(output_dtype=np.uint8)
    # (C, H, W) -> (x, y) or (x, y, C).
    array = maps[0].T if len(maps) == 1 else maps.transpose(2, 1, 0)
    writer.set_data_array(array, channel_dim=None, spatial_ndim=array.ndim)
    # Not `set_metadata`: even without resampling it sends the array through float64, and fails for two dimensions.
    writer.affine = np.diag([-spacing / 1000, -spacing / 1000, 1, 1])
    suffix = VOLUME_SUFFIXES[volume]
    with atomic_path(path) as temporary:
        # Both libraries choose the format by the ending.
        named = temporary.with_name(temporary.name + suffix)
        try:
            writer.write(named)
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)
    return spacing


def _reduced(source: RowSource, factor: int) -> np.ndarray:
    """``(ceil(H / factor), ceil(W / factor))`` uint8."""
    return np.concatenate([np.rint(strip).astype(np.uint8) for strip in reduced_strips(source, factor)])
