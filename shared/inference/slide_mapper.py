"""Slides in; tumour maps, polygons, pictures and a table out."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from .. import __version__
from ..data.tissue_cache import TissueCache
from ..geometry.pyramid import mpp_to_downsample, snap_downsample
from ..networks.precision import computes_bfloat16
from ..writers.volume import check_volume_format
from ..writers.wsinfer_table import column_name, tile_table
from ..wsi.annotations.frames import QUPATH, check_frame
from ..wsi.formats import PLAIN_SUFFIXES
from ..wsi.slide import Slide
from ..wsi.tissue.detection import TISSUE_METHODS
from .cohort.cohort import run_cohort
from .cohort.finished import weights_sha256
from .cohort.row_store import Row
from .inputs import ImageInput, find_images
from .look_ahead import LookAhead, OpenedSlide
from .outputs.probability_map import ProbabilityMap
from .outputs.slide_results import TILE_TABLE_SUFFIX, ResultOptions, Scale, write_results
from .overview import Overview, read_overview
from .stopwatch import Stopwatch
from .tiles.map_grid import MapGrid
from .tiles.network_map import fill_map
from .tiles.stitching import BlendedCores, CroppedCores, Stitching, check_blending
from .tiles.tile_network import CompiledTileNetwork, TileNetwork, compile_problem
from .tiles.tile_reader import read_batches

MAP_SUFFIX = ".map.part"
SLIDE_MAP_DOWNSAMPLE = 4
# Larger untiled TIFF files are exported slides, and without a pixel size an error.
LARGEST_TILE_PX = 4096
# Larger ones would take much more memory than batches of tiles do.
WHOLE_IMAGE_PX = 2048
BINARY_NAMES = ("normal", "tumour")
OVERLAPS = ("crop", "blend")


class SlideMapper:
    """Runs one network over images and slides of any size and writes, for each, what people and programs read next.

    Args:
        network: raw RGB 0..255, float32 ``(B, 3, H, W)`` -> logits ``(B, C, H, W)`` (segmentation, any resolution) or
            ``(B, C)`` (one answer a tile), with C = 1 (sigmoid) or 2 (softmax, channel 1 is tumour), or as many as there
            are `class_names`. It normalises itself. Several that answer together are one `ProbabilityEnsemble`.
        mpp: micrometres per pixel that the network wants. A slide whose own pixel size, or a whole multiple of it, is
            within 2 % is read there without resampling.
        tile_size_px: side of a tile at `mpp`. An image that fits into one tile is given to the network as it is; what a tile
            holds beyond the border of a larger one is the image mirrored.
        margin_px: by which a tile overlaps its neighbours at each side, see `overlap`. Seams vanish when it covers the
            receptive field; 0 for a classifier whose tiles lie side by side. Keep ``tile_size_px - 2 * margin_px`` a
            multiple of the network's stride, or neighbouring tiles see shifted grids.
        map_downsample: pixels at `mpp` per map pixel, averaged; None is 4 for slides and 1 for tiles: PNG, JPEG and BMP
            images, and untiled TIFF of up to 4096 px a side.
        threshold: probability from which a map pixel is tumour; not used with `class_names`.
        min_area_um2: smaller polygons are left out, also of the areas in the table.
        tissue_only: tiles without tissue are skipped and score 0, and shares are of the tissue. False: whole images.
        tissue_method: how tissue is found, see `shared.wsi.tissue_mask`: as in training, where that finds any. None is that
            of `tissue`, or "otsu".
        tissue: where training found and kept the slides' tissue: theirs, and masks edited there, count. None: it is found on
            the overlay picture.
        slide_mpp: level-0 mpp of slides that carry none. Tiles without one are taken to be at `mpp`, or at this if it is given.
        batch_size: tiles a batch.
        device: None is CUDA where there is one.
        amp: compute in bfloat16 on GPUs and on CPUs with matrix units for it, where it is two to three times as fast.
        num_workers: threads that read ahead.
        overview_size_px: longest side of the overlay picture.
        class_names: of the network's classes, three at least, for maps of several classes: probabilities are a softmax,
            areas and polygons are those of the likeliest class. Class 0 is the background and gets no polygons. None: a
            map of tumour.
        overlap: what becomes of the margins: ``"crop"`` throws them away, ``"blend"`` averages the overlapping tiles,
            weighted by the distance from their edges.
        tta: average over symmetries of the tiles: ``"none"``, ``"flips"`` (4 passes) or ``"dihedral"`` (8).
        compile: the network through `torch.compile`: once a minute or so at the first slide, then about 1.5 times as
            fast. Needs a C++ compiler.
        simplify_um: polygons' outlines move by no more than this to have fewer points; 0: they follow the map's pixels.
            Areas are those of the map's pixels always.
        tile_table: also write ``<name>.tiles.csv``, a row a tile (its core) with WSInfer's columns.
        volume: also write the map as ``"nifti"`` (``.nii.gz``) or ``"metaimage"`` (``.mha``).
        whole_image_px: PNG, JPEG and BMP images, and untiled TIFF of up to 4096 px a side, are given to the network whole
            where neither side is longer than this at `mpp`, as the evaluations do; larger ones, slides, and images for a
            network with one answer a tile come in tiles. 0: everything in tiles.
        annotation_frame: from where the outlines in ``<name>.geojson`` count their level-0 pixels: ``"qupath"``, from the corner
            of what was scanned where the slide says which part that is, or ``"level0"``; see `shared.wsi.annotations.frames`.
        tile_mpp: of PNG, JPEG and BMP images without one, before `slide_mpp` and `mpp`: what `load_manifest` calls so.

    Raises:
        ValueError: for numbers or names that do not fit, and where `compile` cannot work on this machine.
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
        class_names: Sequence[str] | None = None,
        overlap: str = "crop",
        tta: str = "none",
        compile: bool = False,
        simplify_um: float = 1.5,
        tile_table: bool = False,
        volume: str | None = None,
        whole_image_px: int = WHOLE_IMAGE_PX,
        annotation_frame: str = QUPATH,
        tile_mpp: float | None = None,
        tissue_method: str | None = None,
        tissue: TissueCache | None = None,
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
        if overlap not in OVERLAPS or simplify_um < 0:
            raise ValueError(f"need overlap of {', '.join(OVERLAPS)} and simplify_um >= 0, got {overlap=}, {simplify_um=}")
        if whole_image_px < 0:
            raise ValueError(f"whole_image_px must be 0 or more, got {whole_image_px}")
        self.tissue_method = _tissue_method(tissue_method, tissue)
        check_volume_format(volume)
        check_frame(annotation_frame)
        _check_class_names(class_names)
        # Fails here, and not at the first slide, when the numbers do not fit together.
        grid = MapGrid.of_image((tile_size_px + 1,) * 2, tile_size_px, margin_px, map_downsample or SLIDE_MAP_DOWNSAMPLE)
        if overlap == "blend":
            check_blending(grid.x)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        problem = compile_problem(self.device) if compile else None
        if problem is not None:
            raise ValueError(f"compile=True cannot work here: {problem}")
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
        self.network = network.to(self.device).eval()
        self.amp = amp
        tiles = TileNetwork(self.network, len(class_names) if class_names else 1, tta, amp and computes_bfloat16(self.device))
        self._tiles = tiles
        self.tile_network = CompiledTileNetwork(tiles, batch_size, tile_size_px) if compile else tiles
        self.mpp = mpp
        self.tile_size_px = tile_size_px
        self.margin_px = margin_px
        self.map_downsample = map_downsample
        self.threshold = threshold
        self.min_area_um2 = min_area_um2
        self.tissue_only = tissue_only
        self.tissue = tissue
        self.slide_mpp, self.tile_mpp = slide_mpp, tile_mpp
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.overview_size_px = overview_size_px
        self.class_names = list(class_names) if class_names else None
        self.overlap = overlap
        self.tta = tta
        self.compile = compile
        self.simplify_um = simplify_um
        self.tile_table = tile_table
        self.volume = volume
        self.whole_image_px = whole_image_px
        self.annotation_frame = annotation_frame
        self.stopwatch = Stopwatch()
        self._look_ahead = LookAhead(self._open_slide)

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
            ValueError: before anything is computed, for a source that is not there or whose names clash.
            InferenceFailures: after everything else is done, naming each image that failed; its row says why.
        """
        return run_cohort(self, find_images(source, split, output_dir), output_dir)

    def settings(self) -> dict[str, Any]:
        """Everything that decides the results; the network by its class and a hash of its weights.

        Not what only decides how fast they come, and to the last bit: batch size, device, compilation. So machines of
        different kinds can share one output folder.
        """
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
            "tissue_method": self.tissue_method,
            "tissue_mpp": None if self.tissue is None else self.tissue.mpp,
            "tissue_dir": None if self.tissue is None else str(self.tissue.folder.absolute()),
            "slide_mpp": self.slide_mpp,
            "tile_mpp": self.tile_mpp,
            "amp": self.amp,
            "overview_size_px": self.overview_size_px,
            "class_names": self.class_names,
            "overlap": self.overlap,
            "tta": self.tta,
            "simplify_um": self.simplify_um,
            "tile_table": self.tile_table,
            "volume": self.volume,
            "whole_image_px": self.whole_image_px,
            "annotation_frame": self.annotation_frame,
            "version": __version__,
        }

    def expect(self, image: ImageInput) -> None:
        """Begin to open `image` in the background, for a `map_image` soon to come: what it does first is then done."""
        self._look_ahead.begin(image)

    def map_image(self, image: ImageInput, output_dir: str | Path, title: str = "") -> Row:
        """Map one image, write its files and return the numbers of its row."""
        base = Path(output_dir) / image.name
        num_classes = len(self.class_names) if self.class_names else 1
        with ExitStack() as stack:
            with self.stopwatch.measure("overview and tissue"):
                opened = stack.enter_context(self._look_ahead.take(image))
            path = base.with_name(image.name + MAP_SUFFIX)
            probability_map = stack.enter_context(ProbabilityMap(path, opened.grid, num_classes))
            self._fill(probability_map, opened, title)
            options = ResultOptions(
                self.class_names, self.threshold, self.min_area_um2, self.simplify_um, self.volume, self.annotation_frame
            )
            with self.stopwatch.measure("results"):
                results = write_results(base, probability_map, opened.overview, opened.scale, options)
            return results | {"num_tiles": int(opened.wanted.sum())}

    def _fill(self, probability_map: ProbabilityMap, opened: OpenedSlide, title: str) -> None:
        grid, wanted = opened.grid, opened.wanted
        is_blended = self.overlap == "blend"
        stitching: Stitching = BlendedCores(probability_map, grid, wanted) if is_blended else CroppedCores(probability_map, grid)
        with ExitStack() as stack:
            table = None
            if self.tile_table:
                path = probability_map.path.with_name(probability_map.path.name.removesuffix(MAP_SUFFIX) + TILE_TABLE_SUFFIX)
                box_of = functools.partial(opened.scale.core_box, grid)
                table = stack.enter_context(tile_table(path, box_of, self.class_names or BINARY_NAMES))
            progress = stack.enter_context(tqdm(total=int(wanted.sum()), desc=title, unit="tile", leave=False, disable=None))
            fill_map(stitching, grid, chain(opened.first, opened.others), self.tile_network, progress, self.stopwatch, table)

    def _open_slide(self, image: ImageInput) -> OpenedSlide:
        """Everything of `map_image` that comes before the network."""
        with ExitStack() as stack:
            slide = stack.enter_context(self._open(image))
            scale = self._scale(slide)
            grid = self._grid(slide, scale)
            overview = self._overview(slide, grid, scale, self.tissue_only)
            wanted = grid.tiles_on(overview.holds_tissue, overview.factor * scale.map_downsample)
            batches = read_batches(slide, grid, wanted, scale.downsample, self.batch_size, self.device, self.num_workers)
            first = list(islice(batches, 1))
            stack.pop_all()  # it stays open
            return OpenedSlide(slide, scale, grid, overview, wanted, first, batches)

    def sees_whole(self, slide: Slide, downsample: float) -> bool:
        """Whether the network gets an image in one piece, see `whole_image_px`; `downsample`: its pixels per model pixel."""
        longest = max(slide.size_px) / downsample
        if longest <= self.tile_size_px:
            return True
        return _is_tile(slide) and longest <= self.whole_image_px and not self._answers_per_tile

    @functools.cached_property
    def _answers_per_tile(self) -> bool:
        return self._tiles.has_one_answer_per_tile(self.tile_size_px)

    def _grid(self, slide: Slide, scale: Scale) -> MapGrid:
        """The tiles of a slide, or the one tile of an image that the network gets whole."""
        tile_size_px = self.tile_size_px
        size = (math.ceil(slide.size_px[0] / scale.downsample), math.ceil(slide.size_px[1] / scale.downsample))
        if _is_tile(slide) and self.sees_whole(slide, scale.downsample):
            # As `read_image` rounds it: a last pixel that lies for the most part beyond the image is none of it.
            size = (max(1, round(slide.size_px[0] / scale.downsample)), max(1, round(slide.size_px[1] / scale.downsample)))
            tile_size_px = max(tile_size_px, math.ceil(max(size) / scale.map_downsample) * scale.map_downsample)
        return MapGrid.of_image(size, tile_size_px, self.margin_px, scale.map_downsample)

    def _overview(self, slide: Slide, grid: MapGrid, scale: Scale, tissue_only: bool) -> Overview:
        size_px, method = self.overview_size_px, self.tissue_method
        return read_overview(slide, grid, scale.downsample, size_px, tissue_only, method, self.tissue)

    def _open(self, image: ImageInput) -> Slide:
        slide = Slide(image.path, mpp=image.mpp)
        if slide.has_mpp:
            return slide
        slide.close()
        is_plain = slide.path.suffix.lower() in PLAIN_SUFFIXES
        fallback = (self.tile_mpp if is_plain else None) or self.slide_mpp or (self.mpp if _is_tile(slide) else None)
        if fallback is None:
            raise ValueError(
                f"{image.path} has no mpp{slide.mpp_note}: give slide_mpp, or list it in a manifest with a column 'mpp'."
            )
        return Slide(image.path, mpp=fallback)

    def _scale(self, slide: Slide) -> Scale:
        downsample = mpp_to_downsample(self.mpp, slide.mpp)
        # A whole number of level-0 pixels, where one is near, keeps coordinates exact; a level of the slide wins.
        downsample = snap_downsample([max(1, round(downsample))], downsample)
        downsample = slide.downsample(slide.mpp * downsample)
        map_downsample = self.map_downsample or (1 if _is_tile(slide) else SLIDE_MAP_DOWNSAMPLE)
        return Scale(slide.size_px, slide.mpp, downsample, map_downsample, slide.qupath_origin_px)


def _is_tile(slide: Slide) -> bool:
    """True for PNG, JPEG and BMP, whose pixel size nobody can trust, and for TIFF that is small and not tiled."""
    # What Pillow opens is no slide: see `open_file`.
    is_plain = slide.path.suffix.lower() in PLAIN_SUFFIXES
    return slide.backend == "pillow" and (is_plain or max(slide.size_px) <= LARGEST_TILE_PX)


def _tissue_method(method: str | None, tissue: TissueCache | None) -> str:
    kept = None if tissue is None else tissue.method
    found = method or kept or "otsu"
    if found not in TISSUE_METHODS or found != (kept or found):
        of_tissue = "" if kept is None else f", that of the kept tissue masks being {kept}"
        raise ValueError(f"tissue_method must be one of {', '.join(TISSUE_METHODS)}; got {method!r}{of_tissue}")
    return found


def _check_class_names(names: Sequence[str] | None) -> None:
    if names is None:
        return
    columns = {column_name(name).casefold() for name in names}
    if isinstance(names, str) or len(names) < 3 or len(columns) < len(names) or "" in columns:
        raise ValueError(f"class_names must be three or more different names, background first, or null; got {names!r}")
