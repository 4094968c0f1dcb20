"""Maps of the served slides, made once for each version of a model and stored in the project's formats."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from shared.inference.cohort.finished import fingerprint
from shared.inference.inputs import ImageInput
from shared.inference.region_map import Box, clip_box, map_region
from shared.writers.atomic import atomic_path
from shared.wsi.formats import is_plain_picture

from ..learning.kept_maps import KeptMaps
from ..learning.served_model import LoadedModel
from ..refusal import Refusal
from .contours import Feature, cut_features
from .known_outlines import KnownOutlines

_REGIONS = "regions"
# Pixels at the network's resolution (16,384 x 16,384); more are not computed while a viewer waits.
LARGEST_UPLOAD_PX = 2**28


@dataclass(frozen=True)
class FoundAnnotations:
    """Annotations in level-0 pixels, whether they came from the cache, and the seconds that the request took."""

    features: list[Feature]
    is_cached: bool
    seconds: float


class SlideMaps(KeptMaps):
    """`KeptMaps` that also store the answers to requests for regions, in ``regions/`` next to the maps.

    Args:
        folder: folder of all maps.
        patch_mpp: micrometres per pixel of uploaded PNG and JPEG images; None for that of the model.
    """

    def __init__(self, folder: str | Path, patch_mpp: float | None = None) -> None:
        super().__init__(folder)
        self.patch_mpp = patch_mpp
        self._outlines = KnownOutlines()

    def annotations(
        self, name: str, model: LoadedModel, image_id: str, path: Path, region: Box | None = None
    ) -> FoundAnnotations:
        """The annotations of a slide, or of a region of it.

        Args:
            name: name of the model.
            model: model that maps the slide.
            image_id: id of the slide.
            path: path of the slide.
            region: region in level-0 pixels; None for the whole slide.

        Raises:
            Refusal: if the slide cannot be read, or the region lies outside it.
        """
        started = time.perf_counter()
        row = self.row(name, model, image_id, path)
        is_cached = row is not None
        if row is None and region is not None:
            features, is_cached = self._region(name, model, ImageInput(path, image_id), region)
            return FoundAnnotations(features, is_cached, time.perf_counter() - started)
        if row is None:
            row = self.map_slide(name, model, image_id, path)
        features = self._outlines.features(self.folder_of(name, model) / f"{image_id}.geojson", path)
        if region is not None:
            box = _within(region, (int(row["width_px"]), int(row["height_px"])))
            features = list(cut_features(features, box, float(row["mpp"])))
        return FoundAnnotations(features, is_cached, time.perf_counter() - started)

    def patch(self, model: LoadedModel, path: Path, region: Box | None = None, mpp: float | None = None) -> FoundAnnotations:
        """The annotations of an uploaded image, in its own pixels; nothing is stored.

        Args:
            model: model that maps the image.
            path: path of the image.
            region: region in the image's pixels; None for the whole image.
            mpp: micrometres per pixel; None for `patch_mpp`, or what the file states.

        Raises:
            Refusal: if it cannot be read.
        """
        started = time.perf_counter()
        is_plain = is_plain_picture(path)
        image = ImageInput(path, path.stem, mpp or (self.patch_mpp if is_plain else None))
        _check_size(model, image)
        # A crop may contain no glass, without which tissue cannot be detected.
        features = self._map_region(model, image, region, False if is_plain else None)
        return FoundAnnotations(features, False, time.perf_counter() - started)

    def _region(self, name: str, model: LoadedModel, image: ImageInput, region: Box) -> tuple[list[Feature], bool]:
        key = hashlib.sha256(f"{fingerprint(model.settings, image)} {region}".encode()).hexdigest()[:16]
        file = self.folder_of(name, model) / _REGIONS / f"{image.name}.{key}.geojson"
        if file.is_file():
            return list(orjson.loads(file.read_bytes())["features"]), True
        features = self._map_region(model, image, region, None)
        with atomic_path(file) as temporary:
            temporary.write_bytes(orjson.dumps({"type": "FeatureCollection", "features": features}))
        return features, False

    def _map_region(self, model: LoadedModel, image: ImageInput, region: Box | None, tissue_only: bool | None) -> list[Feature]:
        with self._computing:
            try:
                result = map_region(model.mapper, image, region, tissue_only)
            except (ValueError, OSError) as error:
                raise Refusal(f"{image.name} cannot be mapped: {error}") from error
        features = orjson.loads(orjson.dumps(result.features, option=orjson.OPT_SERIALIZE_NUMPY))
        return list(cut_features(features, region, result.mpp))


def _check_size(model: LoadedModel, image: ImageInput) -> None:
    """Check that an upload would not keep the server busy for hours, as a small one that claims large pixels would."""
    try:
        with model.mapper.pixels.open(image) as slide:
            downsample, (width, height) = model.mapper.pixels.downsample(slide), slide.size_px
            size = (width / downsample, height / downsample)
    except (ValueError, OSError) as error:
        raise Refusal(f"{image.name} cannot be mapped: {error}") from error
    if size[0] * size[1] > LARGEST_UPLOAD_PX:
        raise Refusal(
            f"the upload of {width} x {height} px has {size[0]:.0f} x {size[1]:.0f} px of {model.mapper.mpp:g} um, more than "
            f"{LARGEST_UPLOAD_PX:,} pixels: put it into the studies folder, or correct its mpp"
        )


def _within(region: Box, size_px: tuple[int, int]) -> Box:
    try:
        return clip_box(region, size_px)
    except ValueError as error:
        raise Refusal(str(error)) from error
