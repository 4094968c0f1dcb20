"""Slides in; tumour maps, polygons, pictures and a table out."""

from __future__ import annotations

import functools
import logging
import math
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from .. import __version__
from ..data.manifest import PLAIN_SUFFIXES
from ..geometry import mpp_to_downsample, snap_downsample
from ..writers import atomic_path, read_rows, write_row
from ..wsi import Slide
from .finished import discard, fingerprint, is_finished, weights_sha256
from .inputs import ImageInput, find_images
from .map_grid import MapGrid
from .network_map import fill_map, predict_cores, read_batches
from .overview import read_overview
from .probability_map import ProbabilityMap
from .slide_results import Scale, write_results

logger = logging.getLogger(__name__)

TABLE_NAME = "slides.csv"
SETTINGS_NAME = "settings.json"
SLIDE_MAP_DOWNSAMPLE = 4
# Larger untiled TIFF files are exported slides, and without a pixel size an error.
LARGEST_TILE_PX = 4096
Row = dict[str, Any]


class InferenceFailures(RuntimeError):
    """Some images of a run could not be mapped; the others are finished."""


class SlideMapper:
    """Runs one network over images and slides of any size and writes, for each, what people and programs read next.

    Args:
        network: raw RGB 0..255, float32 ``(B, 3, H, W)`` -> logits ``(B, C, H, W)`` (segmentation, any resolution) or
            ``(B, C)`` (one answer a tile), with C = 1 (sigmoid) or 2 (softmax, channel 1 is tumour). It normalises
            itself.
        mpp: micrometres per pixel that the network wants. A slide whose own pixel size, or a whole multiple of it, is
            within 2 % is read there without resampling.
        tile_size_px: side of a tile at `mpp`. An image that fits into one tile is given to the network as it is.
        margin_px: predicted and discarded at each side of a tile. Seams vanish when it covers the receptive field; 0
            for a classifier whose tiles lie side by side. Keep ``tile_size_px - 2 * margin_px`` a multiple of the
            network's stride, or neighbouring tiles see shifted grids.
        map_downsample: pixels at `mpp` per map pixel, averaged; None is 4 for slides and 1 for tiles: PNG, JPEG and BMP
            images, and untiled TIFF of up to 4096 px a side.
        threshold: probability from which a map pixel is tumour.
        min_area_um2: smaller tumour polygons are left out, also of the areas in the table.
        tissue_only: tiles without tissue are skipped and score 0, and shares are of the tissue. False: whole images.
        slide_mpp: level-0 mpp of slides that carry none. Tiles without one are taken to be at `mpp`.
        batch_size: tiles a batch.
        device: None is CUDA where there is one.
        amp: compute in bfloat16; about twice as fast on GPUs and on CPUs that know it.
        num_workers: threads that read ahead.
        overview_size_px: longest side of the overlay picture, on which tissue is found too.
    """

    def __init__(
        self,
        network: nn.Module,
        mpp: float = 0.5,
        tile_size_px: int = 512,
        margin_px: int = 64,
        map_downsample: int | None = None,
        threshold: float = 0.5,
        min_area_um2: float = 1000.0,
        tissue_only: bool = True,
        slide_mpp: float | None = None,
        batch_size: int = 16,
        device: str | torch.device | None = None,
        amp: bool = True,
        num_workers: int = 2,
        overview_size_px: int = 1024,
    ) -> None:
        for name, value in (
            ("batch_size", batch_size),
            ("num_workers", num_workers),
            ("overview_size_px", overview_size_px),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < threshold <= 1 or min_area_um2 < 0:
            raise ValueError(f"need 0 < threshold <= 1 and min_area_um2 >= 0, got {threshold=}, {min_area_um2=}")
        # Fails here, and not at the first slide, when the numbers do not fit together.
        MapGrid.of_image((1, 1), tile_size_px, margin_px, map_downsample or SLIDE_MAP_DOWNSAMPLE)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.to(self.device).eval()
        self.mpp = mpp
        self.tile_size_px = tile_size_px
        self.margin_px = margin_px
        self.map_downsample = map_downsample
        self.threshold = threshold
        self.min_area_um2 = min_area_um2
        self.tissue_only = tissue_only
        self.slide_mpp = slide_mpp
        self.batch_size = batch_size
        self.amp = amp
        self.num_workers = num_workers
        self.overview_size_px = overview_size_px

    def run(self, source: str | Path, output_dir: str | Path, split: str | None = None) -> list[Row]:
        """Map every image of `source` that is not finished yet.

        An image is finished when its row in ``slides.csv`` says ok, its files exist, and it was made with the same
        settings, weights included, from a file of the same name and content. Only one run may write to `output_dir` at a
        time.

        Args:
            source: an image, a slide, a folder (searched with its subfolders) or a manifest (``*.csv``).
            output_dir: gets ``<name>.ome.tif``, ``.geojson`` and ``.png`` of every image, ``slides.csv``,
                ``settings.json``.
            split: of a manifest, this split only.

        Returns:
            the rows of the images that were computed now.

        Raises:
            ValueError: before anything is computed, for a source that is not there or whose names clash.
            InferenceFailures: after everything else is done, naming each image that failed; its row says why.
        """
        output_dir = Path(output_dir)
        if Path(source).is_dir() and Path(source).resolve() == output_dir.resolve():
            raise ValueError(f"the results must go to another folder than the images: {output_dir}")
        images = find_images(source, split, exclude=output_dir)
        settings = self.settings()
        with atomic_path(output_dir / SETTINGS_NAME) as temporary:
            temporary.write_bytes(orjson.dumps(settings, option=orjson.OPT_INDENT_2))
        finished = read_rows(output_dir / TABLE_NAME)
        rows, failures = [], []
        with logging_redirect_tqdm():
            for index, image in enumerate(images, start=1):
                row = {"fingerprint": fingerprint(settings, image)}
                if is_finished(output_dir, image.name, finished.get(image.name), row["fingerprint"]):
                    logger.info("%d/%d %s is finished: skipped", index, len(images), image.name)
                    continue
                discard(output_dir / TABLE_NAME, image.name, finished.get(image.name))
                row = self._row(image, output_dir, f"{index}/{len(images)} {image.name}") | row
                write_row(output_dir / TABLE_NAME, row)
                rows.append(row)
                if row["status"] != "ok":
                    failures.append(f"{image.path}: {row['reason']}")
        if failures:
            raise InferenceFailures(f"{len(failures)} of {len(images)} images failed:\n" + "\n".join(failures))
        return rows

    def settings(self) -> dict[str, Any]:
        """Everything that decides the results; the network by its class and a hash of its weights."""
        return {
            "network": type(self.network).__name__,
            "weights_sha256": weights_sha256(self.network),
            "mpp": self.mpp,
            "tile_size_px": self.tile_size_px,
            "margin_px": self.margin_px,
            "map_downsample": self.map_downsample,
            "threshold": self.threshold,
            "min_area_um2": self.min_area_um2,
            "tissue_only": self.tissue_only,
            "slide_mpp": self.slide_mpp,
            "amp": self.amp,
            "overview_size_px": self.overview_size_px,
            "version": __version__,
        }

    def _row(self, image: ImageInput, output_dir: Path, title: str) -> Row:
        """Map one image; an error becomes the row's reason, so that it cannot stop the others."""
        started = time.perf_counter()
        row: Row = {"slide": image.name, "status": "ok", "reason": None}
        try:
            row |= self.map_image(image, output_dir, title)
            logger.info("%s: %.2f mm2 tumour, %.0f s", title, row["tumour_area_mm2"], time.perf_counter() - started)
        except Exception as error:
            row |= {"status": "failed", "reason": " ".join(f"{type(error).__name__}: {error}".split())}
            # What the user can mend needs no traceback.
            logger.error("%s failed: %s", title, row["reason"], exc_info=not isinstance(error, ValueError))
            discard(output_dir / TABLE_NAME, image.name, row=None)
        return row | {"seconds": round(time.perf_counter() - started, 2), "path": str(image.path)}

    def map_image(self, image: ImageInput, output_dir: str | Path, title: str = "") -> Row:
        """Map one image, write its three files and return the numbers of its row."""
        base = Path(output_dir) / image.name
        with self._open(image) as slide:
            scale = self._scale(slide)
            size = tuple(math.ceil(length / scale.downsample) for length in slide.size_px)
            grid = MapGrid.of_image((size[0], size[1]), self.tile_size_px, self.margin_px, scale.map_downsample)
            overview = read_overview(slide, grid, scale.downsample, self.overview_size_px, self.tissue_only)
            wanted = grid.tiles_on(overview.tissue, overview.factor * scale.map_downsample)
            with ProbabilityMap(base.with_name(f"{image.name}.map.part"), grid) as probability_map:
                predict = functools.partial(predict_cores, self.network, grid, self.amp)
                batches = read_batches(slide, grid, wanted, scale.downsample, self.batch_size, self.device, self.num_workers)
                with (
                    closing(batches),
                    tqdm(total=int(wanted.sum()), desc=title, unit="tile", leave=False, disable=None) as progress,
                ):
                    fill_map(probability_map, batches, predict, progress)
                results = write_results(base, probability_map, overview, scale, self.threshold, self.min_area_um2)
                return results | {"num_tiles": int(wanted.sum())}

    def _open(self, image: ImageInput) -> Slide:
        slide = Slide(image.path, mpp=image.mpp)
        if slide.has_mpp:
            return slide
        slide.close()
        fallback = self.slide_mpp or (self.mpp if _is_tile(slide) else None)
        if fallback is None:
            raise ValueError(f"{image.path} has no mpp: give slide_mpp, or list it in a manifest with a column 'mpp'.")
        return Slide(image.path, mpp=fallback)

    def _scale(self, slide: Slide) -> Scale:
        downsample = mpp_to_downsample(self.mpp, slide.mpp)
        # A whole number of level-0 pixels, where one is near, keeps coordinates exact; a level of the slide wins.
        downsample = snap_downsample([max(1, round(downsample))], downsample)
        downsample = slide.downsample(slide.mpp * downsample)
        map_downsample = self.map_downsample or (1 if _is_tile(slide) else SLIDE_MAP_DOWNSAMPLE)
        return Scale(slide.size_px, slide.mpp, downsample, map_downsample)


def _is_tile(slide: Slide) -> bool:
    """True for PNG, JPEG and BMP, whose pixel size nobody can trust, and for TIFF that is small and not tiled."""
    is_plain = slide.path.suffix.lower() in PLAIN_SUFFIXES
    return is_plain or (slide.backend == "pillow" and max(slide.size_px) <= LARGEST_TILE_PX)
