"""What a folder of another program's features says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .conventions import OWN
from .slide_features import FEATURES_SUFFIX, SlideFeatures


@dataclass(frozen=True)
class ForeignPatches:
    """The patches of another program's files.

    Args:
        dim: length of a vector.
        size_px: side of a patch in pixels of the image that the encoder got; None where the files do not say.
    """

    dim: int
    size_px: int | None


def foreign_patches(folder: str | Path | None) -> ForeignPatches:
    """The patches of the first file of a folder that has any.

    Raises:
        ValueError: if no folder is given, it has no such file, or its files are this project's own.
    """
    if folder is None:
        raise ValueError(
            "slide_features: expected the folder of the features that TRIDENT, CLAM or STAMP has written, found none. Give "
            "--slide_features FOLDER"
        )
    for path in sorted(Path(folder).glob(f"*{FEATURES_SUFFIX}")):
        with SlideFeatures.open(path) as features:
            if features.convention == OWN:
                raise ValueError(
                    f"{path} was written by this project: expected features of TRIDENT, CLAM or STAMP. Leave "
                    "foreign_features.json out"
                )
            if len(features):
                return ForeignPatches(features.dim, patch_size_px(features))
    raise ValueError(f"{folder} contains no features (*{FEATURES_SUFFIX}) of TRIDENT, CLAM or STAMP: give their folder")


def patch_size_px(features: SlideFeatures) -> int | None:
    """Side of a patch in pixels of the image that the encoder got; None where the file does not say."""
    side_um = features.patch_um
    return None if side_um is None or features.mpp is None else round(side_um / features.mpp)
