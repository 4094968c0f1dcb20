"""The metadata of an HDF5 file of features, in the conventions of four programs: this one, TRIDENT, CLAM and STAMP.

All hold one vector per patch and the patch's top-left corner:

- this project and TRIDENT (Zhang et al., https://github.com/mahmoodlab/TRIDENT): ``features`` ``(n, d)``, of older files
  ``(1, n, d)``; ``coords`` ``(n, 2)`` in level-0 pixels, whose attributes say ``patch_size_level0``, ``overlap`` and more. Ours
  has further attributes on the file itself.
- CLAM (Lu et al., https://github.com/mahmoodlab/CLAM): ``features`` and ``coords`` alike, but no attributes at all: the size of
  a patch is taken to be the distance between neighbours.
- STAMP (El Nahhas et al., https://github.com/KatherLab/STAMP): ``feats`` ``(n, d)``; ``coords`` in micrometres.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

OWN, TRIDENT, CLAM, STAMP = "this project", "TRIDENT", "CLAM", "STAMP"
# Raise it when what the file's attributes mean changes.
FEATURES_VERSION = 1
# Historic STAMP files count coordinates so, and say nothing of it.
_HISTORIC_STAMP_UM, _HISTORIC_STAMP_PX = 256.0, 224.0
# An objective of this magnification has pixels of 10 um / magnification.
UM_PX_AT_1X = 10.0


@dataclass(frozen=True)
class Header:
    """The metadata of a feature file.

    Args:
        convention: whose file it is.
        dataset: name of the features in it.
        patch: side of a patch, in level-0 pixels, or in micrometres with `is_in_um`. None: the distance between neighbours.
        stride: distance between neighbouring patches, in the same unit. None: as the corners say.
        is_in_um: whether sizes and corners are micrometres.
        scale: by which stored corners are multiplied to be level-0 pixels or micrometres.
        patch_px: side of a patch in pixels of the image that the encoder got.
        mpp: micrometres per pixel of the image that the encoder got; in TRIDENT's files nominal, by the slide's magnification.
        slide_mpp: micrometres per level-0 pixel.
        slide_size_px: (width, height) of level 0.
        slide_key: see `shared.data.tissue_cache.slide_content_key`.
        encoder_name: as the program that wrote the file calls it.
        encoder_key: hash of everything of the encoder that decides its features.
    """

    convention: str
    dataset: str
    patch: float | None = None
    stride: float | None = None
    is_in_um: bool = False
    scale: float = 1.0
    patch_px: float | None = None
    mpp: float | None = None
    slide_mpp: float | None = None
    slide_size_px: tuple[int, int] | None = None
    slide_key: str | None = None
    encoder_name: str | None = None
    encoder_key: str | None = None


def read_header(file: h5py.File) -> Header:
    """The header of an open file.

    Raises:
        ValueError: if it is no file of features: what was expected and what was found.
    """
    for name in ("features", "feats"):
        if isinstance(file.get(name), h5py.Dataset) and isinstance(file.get("coords"), h5py.Dataset):
            dataset = name
            break
    else:
        found = ", ".join(sorted(file.keys())) or "nothing"
        raise ValueError(
            f"expected the data sets 'features' (STAMP: 'feats') and 'coords', found {found}: it contains no features of a "
            "slide's patches"
        )
    if "features_version" in file.attrs:
        return _own(file.attrs)
    if dataset == "feats":
        return _stamp(file)
    coords, features = file["coords"].attrs, file["features"].attrs
    return _trident(coords, features) if "patch_size_level0" in coords else _clam(coords)


def _own(attributes: Mapping[str, Any]) -> Header:
    version = int(attributes["features_version"])
    if version > FEATURES_VERSION:
        raise ValueError(
            f"its format is version {version}, and this code reads versions up to {FEATURES_VERSION}: update the code"
        )
    return Header(
        OWN,
        "features",
        patch=float(attributes["patch_px"]),
        stride=float(attributes["stride_px"]),
        mpp=float(attributes["mpp"]),
        slide_mpp=float(attributes["slide_mpp"]),
        slide_size_px=(int(attributes["slide_width"]), int(attributes["slide_height"])),
        slide_key=str(attributes["slide_key"]),
        encoder_name=str(attributes["encoder_name"]),
        encoder_key=str(attributes["encoder_key"]),
    )


def _trident(coords: Mapping[str, Any], features: Mapping[str, Any]) -> Header:
    patch = float(coords["patch_size_level0"])
    overlap = float(coords.get("overlap", 0)) / float(coords.get("patch_size", patch))
    target, level0 = (_number(coords, f"{name}_magnification") for name in ("target", "level0"))
    size_px = None
    if "level0_width" in coords and "level0_height" in coords:
        size_px = (int(coords["level0_width"]), int(coords["level0_height"]))
    encoder = features.get("encoder")
    return Header(
        TRIDENT,
        "features",
        patch=patch,
        stride=patch * (1 - overlap),
        patch_px=_number(coords, "patch_size"),
        mpp=UM_PX_AT_1X / target if target else None,
        slide_mpp=UM_PX_AT_1X / level0 if level0 else None,
        slide_size_px=size_px,
        encoder_name=None if encoder in (None, "None") else str(encoder),
    )


def _clam(coords: Mapping[str, Any]) -> Header:
    # Its files of corners say it, should somebody have copied their attributes.
    if "patch_size" not in coords:
        return Header(CLAM, "features")
    downsample = float(np.mean(coords["downsample"])) if "downsample" in coords else 1.0
    return Header(CLAM, "features", patch=float(coords["patch_size"]) * downsample)


def _stamp(file: h5py.File) -> Header:
    attributes = file.attrs
    in_px = _number(attributes, "tile_size_px")
    side_um, scale = _number(attributes, "tile_size_um"), 1.0
    if side_um is None and attributes.get("unit") == "um":
        side_um = _number(attributes, "tile_size")
    if side_um is None:
        side = _number(attributes, "tile_size") or neighbour_distance(file["coords"][:])
        if side is None or round(side) != _HISTORIC_STAMP_PX:
            raise ValueError("it does not state the size of its tiles ('tile_size_um'): embed the slide again")
        side_um, in_px, scale = _HISTORIC_STAMP_UM, _HISTORIC_STAMP_PX, _HISTORIC_STAMP_UM / _HISTORIC_STAMP_PX
    extractor = attributes.get("extractor")
    return Header(
        STAMP,
        "feats",
        patch=side_um,
        stride=side_um,
        is_in_um=True,
        scale=scale,
        mpp=side_um / in_px if in_px else None,
        encoder_name=None if extractor is None else str(extractor),
    )


def _number(attributes: Mapping[str, Any], name: str) -> float | None:
    """A positive number, or None."""
    try:
        value = float(attributes[name])
    except (KeyError, TypeError, ValueError):
        return None
    return value if value > 0 else None


def neighbour_distance(coords: NDArray[Any]) -> float | None:
    """The most frequent distance between one corner and the next in its row or column; None where no two share either.

    >>> neighbour_distance(np.array([[0, 0], [256, 0], [512, 0], [0, 256]]))
    256.0
    """
    coords = coords.reshape(-1, 2)
    distances = []
    for along, across in ((0, 1), (1, 0)):
        ordered = coords[np.lexsort((coords[:, along], coords[:, across]))]
        is_same_line = ordered[1:, across] == ordered[:-1, across]
        distances.append((ordered[1:, along] - ordered[:-1, along])[is_same_line])
    values, counts = np.unique(np.concatenate(distances), return_counts=True)
    values, counts = values[values > 0], counts[values > 0]
    return float(values[counts.argmax()]) if len(values) else None


def num_cells(length_px: int, stride_px: float) -> int:
    """Cells of a slide along an axis: those whose centre lies on it, at least one.

    >>> num_cells(1000, 300.0), num_cells(1100, 300.0), num_cells(10, 300.0)
    (3, 4, 1)
    """
    return max(1, math.ceil(length_px / stride_px - 0.5))
