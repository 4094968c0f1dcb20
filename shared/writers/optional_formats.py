"""Formats that need extra packages."""

from __future__ import annotations

import importlib.util

OME_ZARR_SUFFIX, GEOPARQUET_SUFFIX = ".ome.zarr", ".geoparquet"
_PACKAGES = {"ome_zarr": ("zarr",), "geoparquet": ("geopandas", "pyarrow")}


def check_packages(output: str) -> None:
    """Raises ValueError, naming the packages that an output needs and that are not installed.

    Args:
        output: ``"ome_zarr"`` or ``"geoparquet"``.
    """
    missing = [name for name in _PACKAGES[output] if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{output} needs {' and '.join(missing)}, not installed here: pip install {' '.join(missing)}, or all of "
            "requirements-spatial.txt"
        )
