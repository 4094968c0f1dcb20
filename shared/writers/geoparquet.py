"""Polygons of tissue classes as GeoParquet, which GeoPandas, SpatialData, LazySlide and DuckDB read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shapely.geometry import shape

from .atomic import atomic_path
from .optional_formats import check_packages


def write_geoparquet(path: str | Path, features: Iterable[Mapping[str, Any]], notes: Mapping[str, Any]) -> None:
    """Write outlines as a table: ``geometry``, ``class``, ``area_um2``, ``mean_probability``.

    Coordinates are those of the features, (x, y) in level-0 pixels; there is no coordinate reference system.

    Args:
        path: final name.
        features: see `shared.writers.annotation_feature`.
        notes: kept as the table's ``attrs``, such as the slide's mpp and the frame of the coordinates.

    Raises:
        ValueError: if geopandas or pyarrow is not installed.
    """
    check_packages("geoparquet")
    import geopandas
    import pandas as pd

    found = list(features)
    measured = [feature["properties"]["measurements"] for feature in found]
    table = geopandas.GeoDataFrame(
        {
            "class": pd.Series([feature["properties"]["classification"]["name"] for feature in found], dtype="object"),
            "area_um2": pd.Series([values["Area µm^2"] for values in measured], dtype="float64"),
            "mean_probability": pd.Series([values["Mean probability"] for values in measured], dtype="float64"),
        },
        geometry=geopandas.GeoSeries([shape(_plain(feature["geometry"])) for feature in found]),
    )
    table.attrs.update(notes)
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)


def _plain(geometry: Mapping[str, Any]) -> dict[str, Any]:
    """Rings as lists, not as arrays of whole numbers."""
    return {**geometry, "coordinates": [[tuple(map(float, point)) for point in ring] for ring in geometry["coordinates"]]}
