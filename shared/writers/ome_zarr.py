"""Maps of any size as OME-Zarr, for napari, ngff-zarr, SpatialData and LazySlide, written a strip at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .atomic import atomic_folder
from .ome_tiff import TILE_SIZE_PX, RowSource, level_bands, level_factors
from .optional_formats import check_packages
from .palette import Colour

_WHITE = (255, 255, 255)


def write_ome_zarr(
    path: str | Path, sources: Mapping[str, RowSource], mpp: float, colours: Sequence[Colour] | None = None
) -> None:
    """Write maps of one size as the channels of a multiscale image, its levels those of the OME-TIFF.

    Version 0.4 of the format, which all its readers know. Axes are (C, Y, X), in micrometres from the centre of the map's first
    pixel. Chunks that are 0 everywhere, as glass is, take no file.

    Args:
        path: final name, ``*.ome.zarr``: a folder.
        sources: name that viewers show -> map, ``(H, W)`` uint8, 255 being probability 1.
        mpp: micrometres per pixel *of the map*.
        colours: of the channels, as viewers show them; None for white.

    Raises:
        ValueError: if there is no map, they differ in size, or zarr is not installed.
    """
    check_packages("ome_zarr")
    import zarr

    shapes = {tuple(source.shape) for source in sources.values()}
    if len(shapes) != 1:
        raise ValueError(f"{path}: all channels must have the same size, got {sorted(shapes) or 'no channel'}")
    (shape,) = shapes
    factors = level_factors((shape[0], shape[1]))
    with atomic_folder(path) as temporary:
        group = zarr.open_group(temporary, mode="w", zarr_format=2)
        options: Any = {"write_empty_chunks": False}
        for index, factor in enumerate(factors):
            level = group.create_array(
                str(index),
                shape=(len(sources), -(-shape[0] // factor), -(-shape[1] // factor)),
                chunks=(1, TILE_SIZE_PX, TILE_SIZE_PX),
                dtype="uint8",
                fill_value=0,
                chunk_key_encoding={"name": "v2", "separator": "/"},
                config=options,
            )
            for channel, source in enumerate(sources.values()):
                top = 0
                for band in level_bands(source, factor):
                    level[channel, top : top + len(band)] = band
                    top += len(band)
        group.attrs.update(_attributes(Path(path).name, list(sources), mpp, factors, colours))


def _attributes(
    name: str, channels: Sequence[str], mpp: float, factors: Sequence[int], colours: Sequence[Colour] | None
) -> dict[str, Any]:
    """See the format's `specification <https://ngff.openmicroscopy.org/0.4/>`_."""
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx")]
    datasets = [
        {
            "path": str(index),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, mpp * factor, mpp * factor]},
                # Coordinates are those of pixels' centres, and the first pixel of a smaller level is larger.
                {"type": "translation", "translation": [0.0, mpp * (factor - 1) / 2, mpp * (factor - 1) / 2]},
            ],
        }
        for index, factor in enumerate(factors)
    ]
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    shown = [
        {"label": label, "color": "".join(f"{value:02X}" for value in colour), "window": window, "active": True}
        for label, colour in zip(channels, colours or [_WHITE] * len(channels), strict=True)
    ]
    return {
        "multiscales": [{"version": "0.4", "name": name, "axes": axes, "datasets": datasets, "type": "mean"}],
        "omero": {"version": "0.4", "channels": shown},
    }
