"""Stored features for STAMP, whose files have other names and use micrometres."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from ..writers.hdf5 import whole_file
from .slide_features import FEATURES_SUFFIX, SlideFeatures

STAMP_FOLDER = "stamp"
# The first version that reads files with these attributes; STAMP refuses those of a newer one than itself.
_STAMP_VERSION = "2.1.0"


def link_for_stamp(folder: str | Path) -> list[Path]:
    """Write ``stamp/<name>.h5`` for each slide of a folder of features, which STAMP reads as its own.

    It holds the corners in micrometres; the features it does not hold but refers to, so the folder has to stay around it.

    Args:
        folder: as `SlideEmbedder` writes it.

    Returns:
        the files, in order of name. Slides without any feature have none, as in STAMP.

    Raises:
        ValueError: naming a file that is damaged or not ours.
        StorageError: if a file cannot be written.
    """
    written = []
    for path in sorted(Path(folder).glob(f"*{FEATURES_SUFFIX}")):
        with SlideFeatures.open(path) as features:
            if len(features):
                written.append(_link(features, path.parent / STAMP_FOLDER / path.name))
    return written


def _link(features: SlideFeatures, path: Path) -> Path:
    if features.slide_mpp is None or features.mpp is None:
        raise ValueError(f"{features.path} does not state the pixel size of its slide, and STAMP works in micrometres")
    side_um = features.patch_px * features.slide_mpp
    with whole_file(path) as whole:
        file = whole.file
        file["feats"] = h5py.ExternalLink(os.path.relpath(features.path, path.parent), "features")
        file["coords"] = (features.coords * features.slide_mpp).astype(np.float32)
        file.attrs.update(
            {
                "stamp_version": _STAMP_VERSION,
                "extractor": features.encoder_name or "",
                "unit": "um",
                "tile_size_um": side_um,
                "tile_size_px": round(side_um / features.mpp),
                "code_hash": features.encoder_key or "",
                "feat_type": "tile",
            }
        )
    return path
