"""Slides in; a file of an encoder's features out for each."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor, nn
from tqdm import tqdm

from ..features.conventions import FEATURES_VERSION
from ..features.coverage import cell_shares
from ..features.encoder_options import options_of
from ..features.feature_writer import CellFrame, SlideFeatureWriter
from ..features.slide_features import FEATURES_SUFFIX
from ..geometry.pyramid import MPP_TOLERANCE
from ..wsi.notices import warn_of_other_mpp
from ..wsi.slide import Slide
from ..wsi.tissue.tissue_map import find_tissue
from .cohort.cohort import run_cohort
from .cohort.finished import FEATURES, NOT_DECISIVE, UNNAMED_TISSUE_MPP, megabytes
from .inputs import ImageInput, find_images
from .look_ahead import LookAhead, OpenedTiles
from .mapper_options import Compute, Tissue
from .pixel_sizes import PixelSizes
from .row import Row
from .stopwatch import Stopwatch
from .tiles.cell_features import WantedCells, store_features
from .tiles.fitted_batches import FittedBatches
from .tiles.map_grid import MapGrid
from .tiles.tile_features import TileFeatures
from .tiles.tile_network import CompiledTileNetwork
from .tiles.tile_reader import read_batches

logger = logging.getLogger(__name__)

USUAL_MPP = 1.0


class SlideEncoder(Protocol):
    """The interface of an encoder, a `torch.nn.Module`, see `shared.encoders.Encoder`."""

    name: str
    channels: int
    stride_px: int
    mpp: float | None
    tokens: str

    @property
    def key(self) -> str: ...

    @property
    def slide_tile_px(self) -> int: ...

    @property
    def slide_margin_px(self) -> int: ...

    def description(self) -> dict[str, Any]: ...

    def __call__(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class OpenedCells(OpenedTiles):
    """`OpenedTiles` of features.

    Args:
        frame: where the cells lie.
        cells: which are stored.
    """

    frame: CellFrame
    cells: WantedCells


class SlideEmbedder:
    """Runs an encoder once over slides of any size and stores its features, see `SlideFeatureWriter`.

    A cell is a square of the encoder's stride in pixels of its image, and the cells of a slide begin at its corner. Stored are
    those that hold any tissue, so that a training may ask for any share of it later, and their eight neighbours, so that a map
    can be interpolated up to the border of the tissue; of both only those whose centre lies on the slide. An encoder that gives
    one feature per image (`tokens` "class") gets tiles side by side, each of which is a cell.

    Args:
        encoder: see `shared.encoders.load_encoder`.
        mpp: micrometres per pixel at which slides are read; None is the encoder's own, or 1.
        slide_mpp: level-0 mpp of slides that carry none.
        tile_mpp: of PNG, JPEG and BMP images without one, before `slide_mpp` and `mpp`.
        appmag: see `SlideMapper`.
        skip_problems: see `SlideMapper`.
        tile_size_px: side of the tiles that the encoder is given; None is its ``slide_tile_px``, as in bundles. An image that
            fits into one tile is given as it is.
        margin_px: by which tiles overlap at each side, and which is thrown away; None is the encoder's ``slide_margin_px``.
        tissue: where a slide is embedded.
        compute: on what, and how fast.

    Raises:
        ValueError: for numbers that do not fit.
    """

    def __init__(
        self,
        encoder: SlideEncoder,
        mpp: float | None = None,
        slide_mpp: float | None = None,
        tile_mpp: float | None = None,
        tile_size_px: int | None = None,
        margin_px: int | None = None,
        tissue: Tissue | None = None,
        compute: Compute | None = None,
        appmag: bool = False,
        skip_problems: bool = False,
    ) -> None:
        if not isinstance(encoder, nn.Module):
            raise ValueError(f"the encoder must be a torch.nn.Module, got {type(encoder).__name__}")
        self.pixels = PixelSizes(mpp or encoder.mpp or USUAL_MPP, slide_mpp, tile_mpp, appmag)
        warn_of_other_mpp(encoder.name, encoder.mpp, self.pixels.mpp, enlargement=float(encoder.enlargement))  # type: ignore[arg-type]
        self.skip_problems = skip_problems
        self.tile_size_px, self.margin_px = _tiling(encoder, tile_size_px, margin_px)
        self.cell_px = self.tile_size_px if encoder.tokens == "class" else encoder.stride_px
        # Fails here, and not at the first slide, when the numbers do not fit together.
        MapGrid.of_image((self.tile_size_px + 1,) * 2, self.tile_size_px, self.margin_px, self.cell_px)
        self.tissue, self.compute = tissue or Tissue(), compute or Compute()
        self._settings = self._all_settings(encoder)
        device = self.compute.torch_device
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
        self.encoder = encoder.to(device).eval()
        network = TileFeatures(self.encoder, self.compute.is_bfloat16)
        self.tile_network: TileFeatures | CompiledTileNetwork = network
        if self.compute.compile:
            self.tile_network = CompiledTileNetwork(network, self.compute.num_tiles(self.tile_size_px), self.tile_size_px)
        # Called when a batch is computed: a benchmark replaces it.
        self._fitted = FittedBatches(lambda tiles, shape: self.tile_network(tiles, shape), network)
        self.stopwatch = Stopwatch()
        self._look_ahead = LookAhead(self._open_slide)

    def run(self, source: str | Path, output_dir: str | Path, split: str | None = None) -> list[Row]:
        """Embed every image of `source` that is not finished yet, see `run_cohort`: several processes may share an `output_dir`.

        Args:
            source: an image, a slide, a folder (searched with its subfolders) or a manifest (``*.csv``).
            output_dir: gets ``<name>.h5`` of every image, ``slides.csv``, ``rows/``, ``settings.json``.
            split: of a manifest, this split only.

        Returns:
            the rows of the images that were computed now.

        Raises:
            ValueError: before anything is computed, for a source that is not there or whose names clash, for an `output_dir`
                where a file of the source would be replaced, and for a folder with features that were made with other settings.
            InferenceFailures: after everything else is done, naming each image that failed; its row says why.
        """
        return run_cohort(self, find_images(source, split, output_dir, (FEATURES_SUFFIX,)), output_dir)

    def settings(self) -> dict[str, Any]:
        """Everything that decides the features, see `SlideMapper.settings`."""
        return dict(self._settings)

    @property
    def folder_name(self) -> str:
        """Name of a folder for these features, which changes with every setting that affects them."""
        decisive = {name: value for name, value in self._settings.items() if name not in NOT_DECISIVE}
        if self.tissue.cache is None and decisive["tissue_mpp"] == UNNAMED_TISSUE_MPP:
            # As in the names of folders that version 0.7.0 made.
            decisive["tissue_mpp"] = None
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
        return f"{self.encoder.name.replace('/', '_').replace(':', '_')}_{digest}"

    def _all_settings(self, encoder: SlideEncoder) -> dict[str, Any]:
        cache = self.tissue.cache
        return {
            "result": FEATURES,
            "encoder": encoder.name,
            "encoder_key": encoder.key,
            "mpp": self.pixels.mpp,
            "slide_mpp": self.pixels.slide_mpp,
            "tile_mpp": self.pixels.tile_mpp,
            "tile_size_px": self.tile_size_px,
            "margin_px": self.margin_px,
            "cell_px": self.cell_px,
            "tissue_only": self.tissue.only,
            "tissue_method": self.tissue.found_by,
            "tissue_mpp": self.tissue.found_at,
            "tissue_dir": None if cache is None else str(cache.folder.absolute()),
            "amp": self.compute.amp,
            "encoder_options": options_of(encoder.description()),
            "features_version": FEATURES_VERSION,
        } | ({"appmag": True} if self.pixels.appmag else {})

    def prepare(self, image: ImageInput) -> None:
        """Begin to open `image` in the background, for a `map_image` that follows soon, whose first steps are then done."""
        self._look_ahead.begin(image)

    def map_image(self, image: ImageInput, output_dir: str | Path, title: str = "") -> Row:
        """Embed one image, write its file and return the numbers of its row."""
        path = Path(output_dir) / f"{image.name}{FEATURES_SUFFIX}"
        with ExitStack() as stack:
            with self.stopwatch.measure("tissue"):
                opened = stack.enter_context(self._look_ahead.take(image))
            num_tiles = int(opened.wanted.sum())
            writer = SlideFeatureWriter(path, opened.frame, self.encoder, self._attributes(), self.compute.num_threads)
            progress = stack.enter_context(tqdm(total=num_tiles, desc=title, unit="tile", leave=False, disable=None))
            with writer:
                store_features(writer, opened.cells, opened.batches, self._fitted, progress, self.stopwatch)
            slide = opened.slide
            return {
                "mpp": slide.mpp,
                "width_px": slide.size_px[0],
                "height_px": slide.size_px[1],
                "num_tiles": num_tiles,
                "num_features": writer.num_features,
                "file_mb": megabytes(path),
            }

    def _attributes(self) -> Mapping[str, Any]:
        """Attributes of a file: how its slide was cut."""
        return {name: self._settings[name] for name in ("tile_size_px", "margin_px")}

    def _open_slide(self, image: ImageInput) -> OpenedCells:
        """The part of `map_image` before the network."""
        compute = self.compute
        with ExitStack() as stack:
            slide = stack.enter_context(self.pixels.open(image))
            self._check_mpp(slide)
            frame = CellFrame(slide, self.pixels.downsample(slide), self.cell_px)
            size_px = self.pixels.size_px(slide, frame.downsample)
            grid = MapGrid.of_image(size_px, self.tile_size_px, self.margin_px, self.cell_px)
            cells = self._cells(frame, grid)
            wanted = grid.tiles_on(cells.is_wanted, self.cell_px)
            batches = read_batches(
                slide,
                grid,
                wanted,
                frame.downsample,
                compute.num_tiles(self.tile_size_px),
                compute.torch_device,
                compute.num_threads,
            )
            first = list(islice(batches, 1))
            stack.pop_all()  # it stays open
            return OpenedCells(slide, grid, wanted, first, batches, frame, cells)

    def _check_mpp(self, slide: Slide) -> None:
        if slide.mpp > self.pixels.mpp * (1 + MPP_TOLERANCE):
            raise ValueError(
                f"{slide.path}: its pixels are {slide.mpp:g} um, coarser than the mpp={self.pixels.mpp:g} at which "
                f"{self.encoder.name} is given images: detail that its features depend on is missing. Give a larger mpp, or "
                "leave the slide out"
            )

    def _cells(self, frame: CellFrame, grid: MapGrid) -> WantedCells:
        shape = frame.grid_shape
        if not self.tissue.only:
            return WantedCells(grid, np.ones(shape, bool), np.ones(shape, np.float32))
        cache, method = self.tissue.cache, self.tissue.found_by
        found = find_tissue(frame.slide, self.tissue.mpp, method) if cache is None else cache.of(frame.slide)
        tissue = cell_shares(found, shape, frame.stride_px)
        return WantedCells(grid, binary_dilation(tissue > 0, np.ones((3, 3), bool)), tissue)


def _tiling(encoder: SlideEncoder, tile_size_px: int | None, margin_px: int | None) -> tuple[int, int]:
    """Tile and margin, in whole cells."""
    stride = encoder.stride_px
    tile_size_px = encoder.slide_tile_px if tile_size_px is None else tile_size_px
    margin_px = encoder.slide_margin_px if margin_px is None else margin_px
    if encoder.tokens == "class" and margin_px:
        raise ValueError(f"{encoder.name} gives one feature per tile, so its tiles must not overlap; got {margin_px=}")
    if tile_size_px < 1 or tile_size_px % stride or margin_px % stride:
        raise ValueError(
            f"tile_size_px and margin_px must be multiples of the stride of {encoder.name}, {stride}; got {tile_size_px=}, "
            f"{margin_px=}"
        )
    return tile_size_px, margin_px
