"""The options of a `SlideMapper`, in groups: its tiles, the tissue, what is written and how it is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..data.tissue_cache import TissueCache
from ..front_door.cores import available_cores
from ..networks.precision import computes_bfloat16
from ..writers.optional_formats import check_packages
from ..writers.volume import check_volume_format
from ..wsi.annotations.frames import QUPATH, check_frame
from ..wsi.tissue.detection import TISSUE_METHODS
from .tiles.symmetries import symmetries
from .tiles.tile_network import compile_problem

CROP, BLEND = STITCHINGS = ("crop", "blend")
# Larger ones would take much more memory than batches of tiles do.
WHOLE_IMAGE_PX = 2048
# Tiles a batch that keep a device busy: CPUs any, GPUs so many of this side.
CPU_BATCH, GPU_BATCH, GPU_TILE_PX = 16, 256, 256
MOST_THREADS = 16


@dataclass(frozen=True)
class Tiles:
    """How an image is cut into tiles for the network, and its answers are put together.

    Args:
        tile_size_px: side of a tile at the network's mpp. An image that fits into one tile is given to the network as it is;
            what a tile holds beyond the border of a larger one is the image mirrored.
        margin_px: by which a tile overlaps its neighbours at each side. Seams vanish when it covers the receptive field; 0 for
            a classifier whose tiles lie side by side. Keep ``tile_size_px - 2 * margin_px`` a multiple of the network's stride,
            or neighbouring tiles see shifted grids.
        stitching: what becomes of the margins: ``"crop"`` throws them away, ``"blend"`` averages the overlapping tiles,
            weighted by the distance from their edges.
        tta: average over symmetries of the tiles: ``"none"``, ``"flips"`` (4 passes) or ``"dihedral"`` (8).
        whole_image_px: PNG, JPEG and BMP images, and untiled TIFF of up to 4096 px per side, are given to the network whole
            where neither side is longer than this at the network's mpp, as the evaluations do; larger ones, slides, and images
            for a network with one answer per tile come in tiles. 0: everything in tiles.

    Raises:
        ValueError: for an unknown word or a negative number.
    """

    tile_size_px: int = 512
    margin_px: int = 64
    stitching: str = CROP
    tta: str = "none"
    whole_image_px: int = WHOLE_IMAGE_PX

    def __post_init__(self) -> None:
        if self.stitching not in STITCHINGS:
            raise ValueError(f"stitching must be one of {', '.join(STITCHINGS)}; got {self.stitching!r}")
        symmetries(self.tta)
        if self.whole_image_px < 0:
            raise ValueError(f"whole_image_px must be 0 or more, got {self.whole_image_px}")


@dataclass(frozen=True)
class Tissue:
    """Where an image is mapped.

    Args:
        only: tiles without tissue are skipped and score 0, and shares are of the tissue. False: whole images.
        method: how tissue is found, see `shared.wsi.tissue_mask`: as in training, where that finds any. None is that of
            `cache`, or "otsu".
        cache: where training found and kept the slides' tissue: theirs, and masks edited there, count. None: it is found on the
            overlay picture, and where features are stored at `mpp`.
        mpp: micrometres per pixel at which tissue is found where features are stored without a `cache`, whose own counts.

    Raises:
        ValueError: for an unknown method, or another than that of the kept masks.
    """

    only: bool = True
    method: str | None = None
    cache: TissueCache | None = None
    mpp: float = 8.0

    def __post_init__(self) -> None:
        kept = None if self.cache is None else self.cache.method
        found = self.found_by
        if found not in TISSUE_METHODS or found != (kept or found):
            of_kept = "" if kept is None else f", or {kept}, that of the saved tissue masks"
            raise ValueError(f"tissue_method must be one of {', '.join(TISSUE_METHODS)}; got {self.method!r}{of_kept}")

    @property
    def found_by(self) -> str:
        """The method that counts."""
        return self.method or (None if self.cache is None else self.cache.method) or "otsu"

    @property
    def found_at(self) -> float:
        """Micrometres per pixel of the tissue masks that count where features are stored."""
        return self.mpp if self.cache is None else self.cache.mpp


@dataclass(frozen=True)
class Outputs:
    """The files that are written for an image's map.

    Args:
        map_downsample: pixels at the network's mpp per map pixel, averaged; None is 4 for slides and 1 for tiles: PNG, JPEG and
            BMP images, and untiled TIFF of up to 4096 px per side.
        min_area_um2: smaller polygons are left out, also of the areas in the table.
        simplify_um: polygons' outlines move by no more than this to have fewer points; 0: they follow the map's pixels. Areas
            are those of the map's pixels always.
        tile_table: also write ``<name>.tiles.csv``, a row per tile (its core) with WSInfer's columns; means of the
            network's answers, those on glass included.
        volume: also write the map as ``"nifti"`` (``.nii.gz``) or ``"metaimage"`` (``.mha``).
        ome_zarr: also write the map as ``<name>.ome.zarr``, a folder; needs zarr.
        geoparquet: also write the outlines as ``<name>.geoparquet``, with the coordinates of ``<name>.geojson``; needs
            geopandas and pyarrow.
        annotation_frame: from where the outlines in ``<name>.geojson`` count their level-0 pixels: ``"qupath"``, from the
            corner of what was scanned where the slide says which part that is, or ``"level0"``; see
            `shared.wsi.annotations.frames`.
        overview_size_px: longest side of the overlay picture.

    Raises:
        ValueError: for an unknown word, a number that is out of range, or a package that is missing.
    """

    map_downsample: int | None = None
    min_area_um2: float = 1000.0
    simplify_um: float = 1.5
    tile_table: bool = False
    volume: str | None = None
    ome_zarr: bool = False
    geoparquet: bool = False
    annotation_frame: str = QUPATH
    overview_size_px: int = 1024

    def __post_init__(self) -> None:
        if self.min_area_um2 < 0 or self.simplify_um < 0:
            raise ValueError(
                f"min_area_um2 and simplify_um must be 0 or more, got min_area_um2={self.min_area_um2}, "
                f"simplify_um={self.simplify_um}"
            )
        _check_positive("overview_size_px", self.overview_size_px)
        check_volume_format(self.volume)
        for name in ("ome_zarr", "geoparquet"):
            if getattr(self, name):
                check_packages(name)
        check_frame(self.annotation_frame)


@dataclass(frozen=True)
class Compute:
    """How fast maps are made, and, but for `amp`, nothing of what they show.

    Args:
        batch_size: tiles per batch; None: 16, and on GPUs as many as hold the pixels of 256 tiles of 256 px, 256 at most.
        device: None is CUDA where there is one.
        amp: compute in bfloat16 on GPUs and on CPUs that are two to three times as fast so, see `computes_bfloat16`.
        compile: the network through `torch.compile`: once a minute or so at the first slide, then about 1.5 times as fast.
            Needs a C++ compiler.
        num_workers: threads that read ahead; None: one for each core that this process may use, 16 at most.

    Raises:
        ValueError: for numbers below 1, and where `compile` cannot work on this machine.
    """

    batch_size: int | None = None
    device: str | torch.device | None = None
    amp: bool = True
    compile: bool = False
    num_workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_workers"):
            if getattr(self, name) is not None:
                _check_positive(name, getattr(self, name))
        problem = compile_problem(self.torch_device) if self.compile else None
        if problem is not None:
            raise ValueError(f"compile=True does not work here: {problem}")

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    @property
    def num_threads(self) -> int:
        """Threads that read ahead."""
        return self.num_workers or min(available_cores(), MOST_THREADS)

    def num_tiles(self, tile_size_px: int) -> int:
        """Tiles a batch, of this side."""
        if self.batch_size is not None:
            return self.batch_size
        if self.torch_device.type == "cpu":
            return CPU_BATCH
        return max(1, min(GPU_BATCH, GPU_BATCH * GPU_TILE_PX**2 // tile_size_px**2))

    @property
    def is_bfloat16(self) -> bool:
        return self.amp and computes_bfloat16(self.torch_device)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
