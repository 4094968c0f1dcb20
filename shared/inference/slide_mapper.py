"""Slides in; tumour maps, polygons, pictures and a table out."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from .. import __version__
from ..writers.wsinfer_table import column_name, tile_table
from ..wsi.notices import LARGEST_MPP_RATIO, warn_of_enlarged
from ..wsi.slide import Slide
from ..wsi.tissue.tissue_map import TissueMap
from .cohort.cohort import run_cohort
from .cohort.weights_hash import WeightsHash
from .computed_image import ComputedImage
from .inputs import ImageInput, find_images
from .look_ahead import LookAhead, OpenedSlide
from .mapper_options import BLEND, Compute, Outputs, Tiles, Tissue
from .outputs.probability_map import ProbabilityMap
from .outputs.slide_results import REPLACED_SUFFIXES, TILE_TABLE_SUFFIX, ResultOptions, Scale, write_results
from .overview import Overview, read_overview
from .pixel_sizes import PixelSizes, is_tile
from .row import Row
from .slide_embedder import SlideEmbedder
from .stopwatch import Stopwatch
from .stored_slides import StoredSlides
from .tiles.fitted_batches import FittedBatches
from .tiles.map_grid import MapGrid
from .tiles.near_tissue import NearTissue
from .tiles.network_map import fill_map
from .tiles.stitching import BlendedCores, CroppedCores, Stitching, check_blending
from .tiles.stored_network import StoredTileNetwork, encoder_of, has_trained_encoder, head_kernel_size
from .tiles.tile_network import CompiledTileNetwork, TileNetwork
from .tiles.tile_reader import Batch, read_batches

logger = logging.getLogger(__name__)

MAP_SUFFIX = ".map.part"
SLIDE_MAP_DOWNSAMPLE = 4
# `SlideEmbedder` stores the eight neighbours of cells with tissue.
LARGEST_STORED_KERNEL = 3
BINARY_NAMES = ("normal", "tumour")


class SlideMapper:
    """Runs one network over images and slides of any size and writes, for each, what people and programs read next.

    Args:
        network: raw RGB 0..255, float32 ``(B, 3, H, W)`` -> logits ``(B, C, H, W)`` (segmentation, any resolution) or
            ``(B, C)`` (one answer per tile), with C = 1 (sigmoid) or 2 (softmax, channel 1 is tumour), or as many as there
            are `class_names`. It normalises itself. Several that answer together are one `ProbabilityEnsemble`.
        mpp: micrometres per pixel that the network wants. A slide whose own pixel size, or a whole multiple of it, is
            within 2 % is read there without resampling. One that is coarser by more than a quarter cannot be mapped;
            tiles are enlarged, with a warning.
        threshold: probability from which a map pixel is tumour; not used with `class_names`.
        class_names: of the network's classes, three at least, for maps of several classes: probabilities are a softmax,
            areas and polygons are those of the likeliest class. Class 0 is the background and gets no polygons. None: a
            map of tumour.
        slide_mpp: level-0 mpp of slides that carry none. Tiles without one are taken to be at `mpp`, or at this if it is given.
        tile_mpp: of PNG, JPEG and BMP images without one, before `slide_mpp` and `mpp`: what `load_manifest` calls so.
        appmag: a slide that carries none, but the magnification of its objective, has 10 um divided by it, before `slide_mpp`:
            0.5 for 20x. Scanners differ from that by a tenth and more.
        skip_problems: an image that cannot be used - it cannot be read, or has no pixel size - is left out with a warning, its
            row is ``skipped``, and the run does not fail, unless there is no other image. The next run tries it again.
        tiles: how an image is cut, and the network's answers are put together.
        tissue: where an image is mapped.
        outputs: what is written.
        compute: on what, and how fast.
        features: a folder of stored features, see `SlideEmbedder`. Slides of which it has a file are mapped from it, without
            the encoder, whose features they must be; cells that are not stored are glass, and score 0. Others are mapped as
            usual, as is every slide with `tta`, or with a head that sees more than 3 x 3 features.
        foreign_features: whether `features` were written by TRIDENT, CLAM or STAMP. Every slide must have a file, and is mapped
            from its patches, see `PlacedPatches`.

    Raises:
        ValueError: for numbers or names that do not fit, for `features` with a network without an encoder, and for
            `foreign_features` without `features`, with `tta`, or with a head that sees more than 3 x 3 features.
    """

    def __init__(
        self,
        network: nn.Module,
        mpp: float = 0.5,
        threshold: float = 0.5,
        class_names: Sequence[str] | None = None,
        slide_mpp: float | None = None,
        tile_mpp: float | None = None,
        tiles: Tiles | None = None,
        tissue: Tissue | None = None,
        outputs: Outputs | None = None,
        compute: Compute | None = None,
        features: str | Path | None = None,
        appmag: bool = False,
        skip_problems: bool = False,
        foreign_features: bool = False,
    ) -> None:
        _check_mpp(mpp)
        if not 0 < threshold <= 1:
            raise ValueError(f"need 0 < threshold <= 1, got {threshold=}")
        _check_class_names(class_names)
        self.mpp, self.slide_mpp, self.tile_mpp = mpp, slide_mpp, tile_mpp
        self.pixels = PixelSizes(mpp, slide_mpp, tile_mpp, appmag)
        self.skip_problems = skip_problems
        self.threshold = threshold
        self.class_names = list(class_names) if class_names else None
        self.tiles, self.tissue = tiles or Tiles(), tissue or Tissue()
        self.outputs, self.compute = outputs or Outputs(), compute or Compute()
        self._check_grid()
        device = self.compute.torch_device
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
        self.network = network.to(device).eval()
        self._weights_hash = WeightsHash()
        self._network_of_tiles = TileNetwork(self.network, self._num_classes, self.tiles.tta, self.compute.is_bfloat16)
        self.tile_network: TileNetwork | CompiledTileNetwork = self._network_of_tiles
        if self.compute.compile:
            self.tile_network = CompiledTileNetwork(self._network_of_tiles, self._batch_size, self.tiles.tile_size_px)
        # Called when a batch is computed: a benchmark replaces it.
        self._fitted = FittedBatches(lambda tiles, shape: self.tile_network(tiles, shape), self._network_of_tiles)
        if foreign_features and features is None:
            raise ValueError("foreign_features needs features: expected the folder of another program's files, found None")
        self._stored = None if features is None else self._stored_slides(features, foreign_features)
        self.stopwatch = Stopwatch()
        self._look_ahead = LookAhead(self._open_slide)

    def embedder(self) -> SlideEmbedder:
        """One that stores the features of this mapper's encoder at the places of its tiles, for `features`.

        Raises:
            ValueError: for a network without an encoder, or with one that was fine-tuned.
        """
        encoder = encoder_of(self.network)
        sizes = self.tiles.tile_size_px, self.tiles.margin_px
        of_problems = self.pixels.appmag, self.skip_problems
        return SlideEmbedder(encoder, self.mpp, self.slide_mpp, self.tile_mpp, *sizes, self.tissue, self.compute, *of_problems)

    def _stored_slides(self, folder: str | Path, is_foreign: bool) -> StoredSlides | None:
        if is_foreign and self.tiles.tta != "none":
            raise ValueError(
                f"tta {self.tiles.tta} averages over symmetries of the image, and features of another program are mapped without "
                "the encoder: leave tta out"
            )
        if self.tiles.tta != "none":
            # The folder may have been found, and not asked for.
            logger.warning(
                "tta %s averages over symmetries of the image: the features in %s are not used, and maps are made from the "
                "slides",
                *(self.tiles.tta, folder),
            )
            return None
        if has_trained_encoder(self.network):
            logger.warning(
                "the encoder was fine-tuned: the features in %s, which it stored as it was before, are not used, and maps are "
                "made from the slides",
                folder,
            )
            return None
        encoder, kernel_size = encoder_of(self.network), head_kernel_size(self.network)
        if kernel_size > LARGEST_STORED_KERNEL:
            problem = (
                f"the head sees {kernel_size} x {kernel_size} features (kernel_size), of which the folder {folder} has at most "
                f"{LARGEST_STORED_KERNEL} x {LARGEST_STORED_KERNEL} at the border of tissue"
            )
            if is_foreign:
                raise ValueError(f"{problem}: train a head with kernel_size 1 on features of another program")
            logger.warning("%s: they are not used, and maps are made from the slides", problem)
            return None
        return StoredSlides(folder, encoder, self.mpp if is_foreign else None)

    def _check_grid(self) -> None:
        """Fails here, and not at the first slide, when the numbers do not fit together."""
        size_px, map_downsample = self.tiles.tile_size_px, self.outputs.map_downsample or SLIDE_MAP_DOWNSAMPLE
        grid = MapGrid.of_image((size_px + 1,) * 2, size_px, self.tiles.margin_px, map_downsample)
        if self.tiles.stitching == BLEND:
            check_blending(grid.x)

    @property
    def _batch_size(self) -> int:
        return self.compute.num_tiles(self.tiles.tile_size_px)

    @property
    def _num_classes(self) -> int:
        return len(self.class_names) if self.class_names else 1

    def run(self, source: str | Path, output_dir: str | Path, split: str | None = None) -> list[Row]:
        """Map every image of `source` that is not finished yet, see `run_cohort`: several processes may share an `output_dir`.

        Args:
            source: an image, a slide, a folder (searched with its subfolders) or a manifest (``*.csv``).
            output_dir: gets ``<name>.ome.tif``, ``.geojson`` and ``.png`` of every image, ``slides.csv``, ``rows/``,
                ``settings.json``.
            split: of a manifest, this split only.

        Returns:
            the rows of the images that were computed now.

        Raises:
            ValueError: before anything is computed, for a source that is not there or whose names clash, and for an
                `output_dir` where a result would replace a file of the source, see `find_images`.
            InferenceFailures: after everything else is done, naming each image that failed; its row says why.
        """
        rows = run_cohort(self, find_images(source, split, output_dir, REPLACED_SUFFIXES), output_dir)
        logger.info("%d mapped now; maps, outlines, pictures and slides.csv are in %s", len(rows), output_dir)
        return rows

    def settings(self) -> dict[str, Any]:
        """Everything that decides the results; the network by its class and a hash of its weights.

        Not what only decides how fast they come, and to the last bit: batch size, device, compilation. So machines of
        different kinds can share one output folder.
        """
        return {
            "network": type(self.network).__name__,
            "weights_sha256": self._weights_hash.of(self.network),
            "mpp": self.mpp,
            "threshold": self.threshold,
            "class_names": self.class_names,
            "slide_mpp": self.slide_mpp,
            "tile_mpp": self.tile_mpp,
            **asdict(self.tiles),
            **_named_outputs(self.outputs),
            "tissue_only": self.tissue.only,
            "tissue_method": self.tissue.found_by,
            "tissue_mpp": None if self.tissue.cache is None else self.tissue.cache.mpp,
            "tissue_dir": None if self.tissue.cache is None else str(self.tissue.cache.folder.absolute()),
            "amp": self.compute.amp,
            "version": __version__,
            # Folders that were made before know nothing of it.
            **({"appmag": True} if self.pixels.appmag else {}),
        } | ({} if self._stored is None else self._stored.settings())

    def prepare(self, image: ImageInput) -> None:
        """Begin to open `image` in the background, for a `map_image` that follows soon, whose first steps are then done."""
        self._look_ahead.begin(image)

    def map_image(self, image: ImageInput, output_dir: str | Path, title: str = "") -> Row:
        """Map one image, write its files and return the numbers of its row."""
        return self.compute_image(image, output_dir, title).write()

    def compute_image(self, image: ImageInput, output_dir: str | Path, title: str = "") -> ComputedImage:
        """The part of `map_image` before the files are written."""
        base = Path(output_dir) / image.name
        with ExitStack() as stack:
            path = base.with_name(image.name + MAP_SUFFIX)
            with ExitStack() as slide:
                with self.stopwatch.measure("overview and tissue"):
                    opened = slide.enter_context(self._look_ahead.take(image))
                probability_map = stack.enter_context(ProbabilityMap(path, opened.grid, self._num_classes, opened.near_tissue))
                self._fill(probability_map, opened, title)

            overview, scale, num_tiles = opened.overview, opened.scale, int(opened.wanted.sum())

            def results() -> Row:
                with self.stopwatch.measure("results"):
                    return write_results(base, probability_map, overview, scale, self._result_options()) | {
                        "num_tiles": num_tiles
                    }

            return ComputedImage(results, stack.pop_all())

    def _result_options(self) -> ResultOptions:
        outputs = self.outputs
        return ResultOptions(
            self.class_names,
            self.threshold,
            outputs.min_area_um2,
            outputs.simplify_um,
            outputs.volume,
            outputs.annotation_frame,
            outputs.ome_zarr,
            outputs.geoparquet,
        )

    def _fill(self, probability_map: ProbabilityMap, opened: OpenedSlide, title: str) -> None:
        grid, wanted = opened.grid, opened.wanted
        is_blended = self.tiles.stitching == BLEND
        stitching: Stitching = BlendedCores(probability_map, grid, wanted) if is_blended else CroppedCores(probability_map, grid)
        with ExitStack() as stack:
            table = None
            if self.outputs.tile_table:
                path = probability_map.path.with_name(probability_map.path.name.removesuffix(MAP_SUFFIX) + TILE_TABLE_SUFFIX)
                box_of = functools.partial(opened.scale.core_box, grid)
                table = stack.enter_context(tile_table(path, box_of, self.class_names or BINARY_NAMES))
            progress = stack.enter_context(tqdm(total=int(wanted.sum()), desc=title, unit="tile", leave=False, disable=None))
            network = (
                StoredTileNetwork(self._network_of_tiles, opened.stored_stride_px, grid) if opened.stored_stride_px else None
            )
            fill_map(stitching, grid, opened.batches, network or self._fitted, progress, self.stopwatch, table)

    def _open_slide(self, image: ImageInput) -> OpenedSlide:
        """The part of `map_image` before the network."""
        with ExitStack() as stack:
            slide = stack.enter_context(self.pixels.open(image))
            scale = self._scale(slide)
            grid = self._grid(slide, scale)
            overview = self._overview(slide, grid, scale, self.tissue.only)
            wanted = grid.tiles_on(overview.holds_tissue, overview.factor * scale.map_downsample)
            tissue = TissueMap(overview.tissue, overview.factor * scale.map_downsample * scale.downsample)
            stored = None if self._stored is None else self._stored.find(image, slide, scale.downsample, tissue)
            if stored is None:
                self._check_detail(slide)
                batches = self._read_batches(slide, grid, wanted, scale)
            else:
                stored.check_grid(grid)
                batches = stored.read_batches(grid, wanted, self._batch_size, self.compute.torch_device)
            first = list(islice(batches, 1))
            stack.pop_all()  # it stays open
            stride_px = stored.stride_px if stored else None
            return OpenedSlide(
                slide, grid, wanted, first, batches, scale, overview, self._near_tissue(slide, overview, scale), stride_px
            )

    def _check_detail(self, slide: Slide) -> None:
        # A training on small images may have enlarged them too.
        if is_tile(slide):
            warn_of_enlarged(slide.mpp, self.mpp)
        elif slide.mpp > self.mpp * LARGEST_MPP_RATIO:
            raise ValueError(
                f"{slide.path}: its pixels are {slide.mpp:g} um, coarser than the mpp={self.mpp:g} at which the network is given "
                "images: detail that it decides by is missing. Leave the slide out, or map it with a network that was trained at "
                f"{slide.mpp:g} um"
            )

    def _read_batches(self, slide: Slide, grid: MapGrid, wanted: NDArray[np.bool_], scale: Scale) -> Generator[Batch, None, None]:
        compute = self.compute
        return read_batches(slide, grid, wanted, scale.downsample, self._batch_size, compute.torch_device, compute.num_threads)

    def sees_whole(self, slide: Slide, downsample: float) -> bool:
        """Whether the network is given an image in one piece, see `Tiles`; `downsample`: its pixels per model pixel."""
        longest = max(slide.size_px) / downsample
        if longest <= self.tiles.tile_size_px:
            return True
        return is_tile(slide) and longest <= self.tiles.whole_image_px and not self._answers_per_tile

    @functools.cached_property
    def _answers_per_tile(self) -> bool:
        return self._network_of_tiles.has_one_answer_per_tile(self.tiles.tile_size_px)

    def _grid(self, slide: Slide, scale: Scale) -> MapGrid:
        """The tiles of a slide, or the single tile of an image that is given to the network whole."""
        tile_size_px = self.tiles.tile_size_px
        size = self.pixels.size_px(slide, scale.downsample)
        if is_tile(slide) and self.sees_whole(slide, scale.downsample):
            # As `read_image` rounds it: a last pixel that lies mostly beyond the image does not count.
            size = (max(1, round(slide.size_px[0] / scale.downsample)), max(1, round(slide.size_px[1] / scale.downsample)))
            tile_size_px = max(tile_size_px, math.ceil(max(size) / scale.map_downsample) * scale.map_downsample)
        return MapGrid.of_image(size, tile_size_px, self.tiles.margin_px, scale.map_downsample)

    def _overview(self, slide: Slide, grid: MapGrid, scale: Scale, tissue_only: bool) -> Overview:
        size_px, method = self.outputs.overview_size_px, self.tissue.found_by
        return read_overview(slide, grid, scale.downsample, size_px, tissue_only, method, self.tissue.cache)

    @staticmethod
    def _near_tissue(slide: Slide, overview: Overview, scale: Scale) -> NearTissue | None:
        # A tile shows too little glass to be told from a pale lumen.
        if is_tile(slide):
            return None
        return NearTissue.of(overview.holds_tissue, overview.rgb, overview.factor, overview.factor * scale.map_mpp)

    def _scale(self, slide: Slide) -> Scale:
        downsample = self.pixels.downsample(slide)
        map_downsample = self.outputs.map_downsample or (1 if is_tile(slide) else SLIDE_MAP_DOWNSAMPLE)
        return Scale(slide.size_px, slide.mpp, downsample, map_downsample, slide.qupath_origin_px)


def _check_mpp(mpp: float | None) -> None:
    if mpp is None:
        raise ValueError(
            "the network was trained on tiles as they are stored (mpp null), so the pixel size at which it needs "
            "slides is not known: give --mpp, the micrometres per pixel of those tiles"
        )
    if mpp <= 0:
        raise ValueError(f"mpp must be above 0, got {mpp}")


def _named_outputs(outputs: Outputs) -> dict[str, Any]:
    """Optional formats by their names where they are written: results are the same without."""
    return {name: value for name, value in asdict(outputs).items() if value or name not in ("ome_zarr", "geoparquet")}


def _check_class_names(names: Sequence[str] | None) -> None:
    if names is None:
        return
    columns = {column_name(name).casefold() for name in names}
    if isinstance(names, str) or len(names) < 3 or len(columns) < len(names) or "" in columns:
        raise ValueError(f"class_names must be three or more different names, background first, or null; got {names!r}")
