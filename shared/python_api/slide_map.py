"""The map of one slide: its files, and what they hold as arrays and polygons."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from .code_of_bundle import load_code
from .network import Network
from .optional_package import optional_package

if TYPE_CHECKING:
    import geopandas
    import zarr


@dataclass(frozen=True)
class SlideMap:
    """A slide, mapped. `map_slide` makes it.

    Attributes:
        name: of the slide, and of its files.
        folder: with ``<name>.ome.tif``, ``<name>.geojson``, ``<name>.png`` and what else the bundle's outputs ask for. Where
            none was given it lives as long as this object.
        class_names: of a map of several classes, background first; None for one of tumour.
        row: of the slide in ``slides.csv``: numbers such as ``tumour_area_mm2``, ``tumour_share``, ``num_tiles`` and ``mpp`` of
            level 0.
    """

    name: str
    folder: Path
    class_names: list[str] | None
    row: dict[str, Any]
    _temporary: TemporaryDirectory[str] | None = field(default=None, repr=False)

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of the map."""
        return float(self.row["map_mpp"])

    @property
    def probability(self) -> NDArray[np.float32]:
        """The whole map, read again each time: float32 in [0, 1], of tumour ``(H, W)``, of C classes ``(C, H, W)``."""
        values: NDArray[np.uint8] = tifffile.imread(self._file(".ome.tif"))
        return values.astype(np.float32) / np.float32(255)

    def open_zarr(self) -> zarr.Array:
        """The map as a Zarr array that reads what is looked at: uint8 of the shape of `probability`, 255 being probability 1.

        Raises:
            ImportError: if zarr is not installed.
        """
        optional_package("zarr", "maps that are read in part")
        import zarr

        opened = zarr.open(tifffile.imread(self._file(".ome.tif"), aszarr=True, level=0), mode="r")
        if not isinstance(opened, zarr.Array):
            raise TypeError(f"{self._file('.ome.tif')}: expected one array, found a {type(opened).__name__}")
        return opened

    @property
    def geojson(self) -> dict[str, Any]:
        """The outlines as a GeoJSON FeatureCollection, in pixels of level 0 as QuPath counts them, read again each time."""
        found: dict[str, Any] = json.loads(self._file(".geojson").read_text(encoding="utf-8"))
        return found

    def to_geodataframe(self) -> geopandas.GeoDataFrame:
        """The outlines as a table: ``geometry`` in pixels of level 0 as QuPath counts them, ``class``, ``area_um2``,
        ``mean_probability``.

        Raises:
            ImportError: if geopandas is not installed.
        """
        optional_package("geopandas", "outlines as a table")
        import geopandas

        features = self.geojson["features"]
        columns = {
            "class": [feature["properties"]["classification"]["name"] for feature in features],
            "area_um2": [feature["properties"]["measurements"]["Area µm^2"] for feature in features],
            "mean_probability": [feature["properties"]["measurements"]["Mean probability"] for feature in features],
        }
        from shapely.geometry import shape

        return geopandas.GeoDataFrame(columns, geometry=[shape(feature["geometry"]) for feature in features])

    def _file(self, suffix: str) -> Path:
        return self.folder / f"{self.name}{suffix}"


def map_slide(slide: str | Path, network: Network, output_dir: str | Path | None = None, mpp: float | None = None) -> SlideMap:
    """Map a slide or an image of any size, as ``inference.json`` does.

    A map that is in `output_dir` already, of the same file and settings, is not made again; one of other settings is replaced,
    with its row. For many slides use the bundle's ``inference.json`` or ``network.mapper.run``, which share the work.

    Args:
        slide: the file.
        network: see `load_network`.
        output_dir: gets the files, a row in ``slides.csv`` and ``settings.json``; it may hold the maps of other slides. None for
            a folder that goes with the result.
        mpp: micrometres per pixel of level 0, for a file that does not say.

    Raises:
        ValueError: if the file cannot be read, is no picture of stained tissue, or nothing says how large its pixels are; and if
            the results would replace it, or another file that no run has written.
        OSError: if the disk is full, or `output_dir` cannot be written to; the same call then goes on from there.
        RuntimeError: if mapping it fails otherwise.
    """
    temporary = TemporaryDirectory(prefix="map-") if output_dir is None else None
    folder = Path(temporary.name if temporary is not None else str(output_dir)).expanduser().absolute()
    row = load_code(network.bundle, "shared.inference").map_one(network.mapper, slide, folder, mpp)
    return SlideMap(row["slide"], folder, network.class_names, dict(row), temporary)
