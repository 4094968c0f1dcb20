"""Features that were stored, found for the slides that are to be mapped."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..features.conventions import OWN
from ..features.coverage import COVERAGE_TOLERANCE, missing_cells
from ..features.foreign import patch_size_px
from ..features.slide_features import FEATURES_SUFFIX, SlideFeatures
from ..features.slide_files import features_file, features_files, has_mpp_of, missing_files
from ..geometry.pyramid import MPP_TOLERANCE
from ..wsi.slide import Slide
from ..wsi.tissue.tissue_map import TissueMap
from .inputs import ImageInput
from .tiles.stored_tiles import PlacedPatches, StoredCells

logger = logging.getLogger(__name__)

# Of the distance between cells, relative.
_SAME = 1e-6


def own_features(folder: str | Path) -> str | None:
    """The folder if it contains features that this project has written, as its first readable file shows; else None.

    A folder in which no file can be read is taken too: each slide's own error then names its file.
    """
    paths = sorted(Path(folder).glob(f"*{FEATURES_SUFFIX}"))
    for path in paths:
        with suppress(ValueError), SlideFeatures.open(path) as features:
            return str(folder) if features.convention == OWN else None
    return str(folder) if paths else None


class StoredSlides:
    """A folder of features, ``<name>.h5`` a slide, as `SlideEmbedder` writes them, or as another program does, see
    `features_files`.

    Args:
        folder: where they are.
        encoder: of the network, by which they must have been made.
        mpp: micrometres per pixel of the images that another program's encoder must have been given. None: the features are
            this project's own.

    Raises:
        ValueError: if there is no such folder.
    """

    def __init__(self, folder: str | Path, encoder: Any, mpp: float | None = None) -> None:
        self.folder, self.encoder, self.mpp = Path(folder), encoder, mpp
        if not self.folder.is_dir():
            raise ValueError(f"the features folder {folder} does not exist: embed the slides first, or leave it out")
        self._has_said = self._has_warned = False

    def settings(self) -> dict[str, Any]:
        """What a map's settings say of them. Another program's features are not those of one hash of weights: they count by their
        files' content, see `fingerprint`."""
        theirs = {} if self.mpp is None else {"foreign_features": str(self.folder.absolute())}
        return {"from_features": True, **theirs}

    def find(self, image: ImageInput, slide: Slide, downsample: float, tissue: TissueMap) -> StoredCells | None:
        """The features of a slide; None if it is to be mapped from its pixels, which is logged.

        That is so where there is no file of its name, where that file is of another slide, which may well have the same name,
        and where cells are missing that are tissue now: they would score 0. Of another program's features it never is.

        Args:
            image: the slide's name.
            slide: the slide, open.
            downsample: level-0 pixels per model pixel.
            tissue: where the slide is to be mapped.

        Raises:
            ValueError: naming the file, if it does not fit: half-written, of another encoder, at other coordinates, of another
                program where it must not be; and for a slide without another program's features.
        """
        if self.mpp is not None:
            return self._foreign(image, slide, downsample)
        path = features_file(self.folder, image.path, image.name)
        if not path.is_file():
            if not self._has_said:
                logger.info(
                    "%s has no features of %s: slides without a feature file are mapped from their pixels",
                    self.folder,
                    image.name,
                )
                self._has_said = True
            return None
        features = SlideFeatures.open(path, slide.mpp)
        if features.convention != OWN:
            raise ValueError(
                f"{path} was written by {features.convention} and does not state the weights of its encoder, which may be others "
                f"than those of the network. Embed the slides with {self.encoder.name}; or train a head on features of "
                f"{features.convention}, and map slides from them, with the overlay foreign_features.json"
            )
        if not features.is_of(slide):
            if not self._has_warned:
                logger.warning(
                    "%s contains features of another slide than %s: such slides are mapped from their pixels", path, slide.path
                )
                self._has_warned = True
            return None
        features.check(slide, self.encoder)
        missing, wanted = missing_cells(features, tissue)
        if missing > COVERAGE_TOLERANCE * wanted:
            logger.warning(
                "%s: %s lacks %d of the %d cells to be mapped, so the slide is mapped from its pixels",
                *(image.name, path, missing, wanted),
            )
            features.close()
            return None
        return StoredCells(features, self.encoder.stride_px, self._repeats(features, downsample))

    def _foreign(self, image: ImageInput, slide: Slide, downsample: float) -> PlacedPatches:
        path = features_file(self.folder, image.path, image.name)
        if not path.is_file():
            missing = missing_files(features_files(self.folder, image.path, image.name))
            raise ValueError(
                f"{missing}: slides without features are not mapped, because the weights of {self.encoder.name} are not loaded. "
                "Store its features with the program that wrote the others, or leave the slide out"
            )
        features = SlideFeatures.open(path, slide.mpp)
        if features.convention == OWN:
            raise ValueError(f"{path} was written by this project: expected features of another program. Give another folder")
        features.check(slide, self.encoder)
        if not has_mpp_of(features, self.mpp):  # type: ignore[arg-type]
            raise ValueError(
                f"{path} contains features of images at another pixel size: expected mpp {self.mpp:g}, found {features.mpp:g}. "
                "Give the mpp of the features with which the head was trained"
            )
        found, wanted = patch_size_px(features), getattr(self.encoder, "patch_px", None)
        if found is not None and wanted is not None and abs(found / wanted - 1) > MPP_TOLERANCE:
            raise ValueError(
                f"{path} contains features of patches of another size: expected {wanted} px, found {found} px. Give features of "
                "the same patches"
            )
        sizes = {"size_px": slide.size_px, "channels": self.encoder.channels}
        return PlacedPatches(features, self.encoder.stride_px, downsample=downsample, **sizes)

    def _repeats(self, features: SlideFeatures, downsample: float) -> int:
        place_px = self.encoder.stride_px * downsample
        repeats = max(1, round(features.stride_px / place_px))
        if abs(repeats * place_px / features.stride_px - 1) > _SAME or (repeats > 1 and self.encoder.tokens != "class"):
            raise ValueError(
                f"{features.path} contains features at other coordinates: expected one every {place_px:g} level-0 pixels, "
                f"found one every {features.stride_px:g}, of images of {features.mpp:g} um per pixel. Embed the slides at the "
                "network's mpp"
            )
        return repeats
