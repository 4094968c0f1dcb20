"""The row of one image of an output folder in the table."""

from __future__ import annotations

from typing import TypedDict


class Row(TypedDict, total=False):
    """The data on an image: a row of ``slides.csv``, and, with ``fingerprint`` and the like, a file of the folder ``rows``.

    Of a map of several classes there are also ``area_mm2_<class>``, ``share_<class>`` and ``mean_probability_<class>``.
    """

    slide: str
    path: str
    status: str
    reason: str | None
    attempts: int
    device_failures: int
    worker: str
    fingerprint: str
    seconds: float
    # Micrometres per pixel of level 0 and of the map; size of level 0.
    mpp: float
    map_mpp: float
    width_px: int
    height_px: int
    num_tiles: int
    num_regions: int
    # Of features.
    num_features: int
    file_mb: float
    tumour_area_mm2: float
    tissue_area_mm2: float
    tumour_share: float | None
    max_probability: float
    mean_probability: float | None
    # With which the outlines were made; the folder's settings are those of its latest run.
    threshold: float
    min_area_um2: float
    simplify_um: float
