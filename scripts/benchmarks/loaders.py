"""CPU milliseconds that a worker spends per sample in each kind of training, at the papers' sizes, with two loaders.

"before" is the straightforward loader, which decodes every file again and augments step by step with MONAI's chain, and reads one
tile per call through OpenSlide; "now" is this project's. Caches are measured after the first epoch. With a GPU, a worker passes
images on as they are read, and whole batches are augmented on the GPU.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from monai.transforms import Compose
from numpy.typing import NDArray
from PIL import Image

from scripts.options.numbers import COUNT
from shared.data import PixelCache, RegionDataset, normalized_and_augmented, training_augmentation
from shared.data.record import Record
from shared.synthetic import synthesize_slide, write_slide
from shared.wsi import Slide

MPP = 0.5
SLIDE_PX = (3100, 4100)
TILE_PX, TILES = 224, 32
# Aperio's JPEG 2000 with RGB pixels, and the description by which OpenSlide recognises its slides.
APERIO_JPEG_2000 = 33005
APERIO = "Aperio Image Library v11.2.1\n{1}x{0} [0,0 {1}x{0}] (256x256) J2K/KDU Q=70|AppMag = 20|MPP = 0.5"


class Row(NamedTuple):
    """A kind of sample, and the functions that read a sample by its index: before, now, and for augmentation on a GPU."""

    name: str
    before: Callable[[int], object]
    now: Callable[[int], object]
    with_gpu: Callable[[int], object] | None = None
    samples_a_read: int = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", type=COUNT, default=8, help="samples per row, of which the lower quartile counts")
    parser.add_argument(
        "--shrink", type=COUNT, default=1, help="divide all sizes by this: faster, but not valid as a measurement"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure both loaders in turn on one thread, so that other processes disturb both equally."""
    torch.set_num_threads(1)
    results = {}
    print(f"{'CPU-ms per sample':44}{'before':>8}{'now':>8}{'ratio':>7}{'with a GPU':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for row in _rows(Path(folder), arguments.samples, arguments.shrink):
            measured = _measure(row, arguments.samples)
            ratio = measured["before"] / measured["now"]
            results[row.name] = {**measured, "ratio": ratio}
            gpu = f"{measured['with_gpu']:12.1f}" if "with_gpu" in measured else f"{'':12}"
            print(f"{row.name:44}{measured['before']:8.1f}{measured['now']:8.1f}{ratio:7.1f}{gpu}", flush=True)
    return results


def _measure(row: Row, num_samples: int) -> dict[str, float]:
    ways = {"before": row.before, "now": row.now} | ({"with_gpu": row.with_gpu} if row.with_gpu else {})
    for name in ways.keys() - {"before"}:
        # The first epoch, which fills the caches; "before" has none.
        for index in range(num_samples):
            ways[name](index)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(num_samples):
        for name, read in ways.items():
            start = time.process_time()
            read(index)
            spent[name].append((time.process_time() - start) * 1e3)
    return {name: float(np.percentile(times, 25)) / row.samples_a_read for name, times in spent.items()}


def _rows(folder: Path, num: int, shrink: int) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    height, width = (side // shrink for side in SLIDE_PX)
    slide = synthesize_slide(0, 0.3, (height, width))
    write_slide(folder / "slide.tif", slide.image, MPP)
    images = _Images(folder, num, rng)
    image_px, crop_px, small_px = 1280 // shrink, 640 // shrink, 128 // shrink

    regions = images.regions(folder / "slide.tif", (width, height), image_px)
    yield _row("CAMEL cMIL, 1280 px", regions, image_px)
    labelled: list[Record] = [{**record, "instances": "0110" * 4} for record in regions]
    yield _row("CAMEL segmentation, 640 of 1280 px", labelled, image_px, crop_px, "instances")
    masked = images.masked(regions, slide.tumour)
    yield _row("fully supervised, 640 of 1280 px, PNG mask", masked, image_px, crop_px, "mask", PixelCache(folder / "masks"))

    pictures = images.pictures(slide.image[: 3000 // shrink, : 3000 // shrink], 500 / 3000)
    turns = training_augmentation(free_rotation=False, max_scale=1.0)
    yield _row("CDWS, 500 of 3000 px PNG", pictures, 500 // shrink, cache=PixelCache(folder / "cdws"), augmentation=turns)
    tiles = images.pictures(slide.image[:image_px, :image_px], 1.0)
    side = image_px // 4
    instances: list[Record] = [{**tile, "x": 0, "y": side, "width_px": side, "height_px": side} for tile in tiles]
    yield _row("constrained retrain, 320 of 1280 px PNG", instances, side, cache=PixelCache(folder / "picks"))
    small = images.masked(images.regions(folder / "slide.tif", (width, height), small_px), slide.tumour)
    joint = normalized_and_augmented(["image", "mask"], augment=True, stain_jitter=0.1)
    cache = PixelCache(folder / "joint")
    yield _row("joint, masked 128 px, PNG mask", small, small_px, None, "mask", cache, augmentation=joint)

    yield _tile_row("alpha/beta, a tile of 224 px, JPEG", folder / "slide.tif", rng)
    _write_jpeg_2000(folder / "slide.svs", slide.image)
    yield _tile_row("alpha/beta, a tile of 224 px, JPEG 2000", folder / "slide.svs", rng)


class _Images:
    """Records of generated images, two per image, with a separate copy of each file that is decoded as a whole.

    The loader "before" gets every other record, so that it never finds a file that the process has already decoded, just as in an
    epoch of many images.
    """

    def __init__(self, folder: Path, num: int, rng: np.random.Generator) -> None:
        self.folder, self.num, self.rng = folder, num, rng
        self._num_files = 0

    def regions(self, slide: Path, size_px: tuple[int, int], side_px: int) -> list[Record]:
        corners = [[int(self.rng.integers(0, side - side_px + 1)) for side in size_px] for _ in range(self.num)]
        return [
            {"image": str(slide), "mpp": MPP, "label": 1, "x": x, "y": y, "width_px": side_px, "height_px": side_px}
            for x, y in corners
            for _ in range(2)
        ]

    def masked(self, records: Sequence[Record], mask: NDArray[np.bool_]) -> list[Record]:
        files = self._copies(Image.fromarray(mask.astype(np.uint8) * 255))
        return [{**record, "mask": file} for record, file in zip(records, files, strict=True)]

    def pictures(self, image: NDArray[np.uint8], scale: float) -> list[Record]:
        """Pictures that are `scale` times as large when they are read at 0.5 um per pixel."""
        return [{"image": file, "mpp": MPP * scale, "label": 1} for file in self._copies(Image.fromarray(image))]

    def _copies(self, image: Image.Image) -> list[str]:
        self._num_files += 1
        files = [self.folder / f"{self._num_files}_{index}.png" for index in range(2 * self.num)]
        image.save(files[0])
        for file in files[1:]:
            shutil.copyfile(files[0], file)
        return [str(file) for file in files]


def _row(
    name: str,
    records: Sequence[Record],
    size_px: int,
    crop_px: int | None = None,
    pixel_labels: str | None = None,
    cache: PixelCache | None = None,
    augmentation: Any = None,
) -> Row:
    keys = ["image"] if pixel_labels is None else ["image", "mask"]
    now: Any = augmentation or training_augmentation(keys, crop_size_px=crop_px)
    # The sampling is either the augmentation itself or its last transform.
    sampling = now if hasattr(now, "deferred") else now.transforms[-1]
    make = functools.partial(RegionDataset, size_px=size_px, mpp=MPP, pixel_labels=pixel_labels)
    before = make(records[::2], transform=Compose(sampling.transforms))
    datasets = [make(records[1::2], transform=now, cache=cache) for _ in range(2)]
    datasets[1].defer_augmentation()
    return Row(name, before.__getitem__, datasets[0].__getitem__, datasets[1].__getitem__)


def _tile_row(name: str, path: Path, rng: np.random.Generator) -> Row:
    with Slide(path, mpp=MPP) as slide:
        tile_px = min(TILE_PX, *slide.size_px)
        corners = rng.integers(0, np.array(slide.size_px) - tile_px + 1, (TILES, 2))

    # Each bag opens its slide, as in a cohort too large for a process to keep its slides open, so no tile is cached.
    def now(_: int) -> None:
        with Slide(path, mpp=MPP) as slide:
            slide.read_regions(corners, tile_px, MPP)

    def before(_: int) -> None:
        with Slide(path, mpp=MPP, backend="openslide") as slide:
            for x, y in corners.tolist():
                slide.read_region((x, y), tile_px, MPP)

    return Row(name, before, now, samples_a_read=TILES)


def _write_jpeg_2000(path: Path, image: NDArray[np.uint8]) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            image,
            tile=(256, 256),
            photometric="rgb",
            compression=APERIO_JPEG_2000,
            compressionargs={"level": 35},
            description=APERIO.format(*image.shape),
            metadata=None,
        )
