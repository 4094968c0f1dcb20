"""Bags of tiles drawn from whole slides, again in every epoch: the dataset of methods with one label per slide."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from monai.data import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..geometry.pyramid import MPP_TOLERANCE
from ..writers.atomic import contended_path
from ..wsi.slide import Slide
from ..wsi.slide_pool import open_slide
from .passed_slides import PassedSlides
from .record import Record, record_error
from .record_masks import read_record_mask
from .seeded import draw_key
from .splits import copies_in_two_splits
from .tissue_cache import TISSUE_VERSION, TissueCache, slide_content_key

logger = logging.getLogger(__name__)


# A tile's share of tumour is read from so many points along each side.
_SHARE_POINTS = 16
_MAX_NAMED_PROBLEMS = 20


class SlideBagDataset(Dataset):
    """Reads a bag of random tissue tiles from each slide.

    Item ``i`` is a dictionary: ``tiles`` uint8 ``(tiles_per_slide, tile_size_px, tile_size_px, 3)``, ``label`` (int), ``index``
    (``i``), ``xy`` int64 ``(tiles_per_slide, 2)``, the tiles' top-left corners in level-0 pixels, and with `with_shares`
    ``tumour_share`` float32 ``(tiles_per_slide,)`` from the slide's mask. Places depend on (`seed`, epoch, ``i``, occurrence)
    only, see `draw`: an interrupted and resumed training sees what an uninterrupted one does, with any number of workers or
    processes.

    Args:
        data: manifest records of whole slides.
        tissue: where to find the slides' tissue.
        tiles_per_slide: in a bag, at least 1; where a slide has fewer places for tiles, some come twice.
        tile_size_px: side of a tile at `mpp`.
        mpp: micrometres per pixel at which tiles are read; slides are at least as fine, to 2 %.
        min_tissue: least share of tissue in a tile, in (0, 1].
        with_shares: also give each tile's share of tumour; a slide with label 0 and no mask has none.
        seed: of the places.

    Raises:
        ValueError: for a number out of range; naming the row and the file of a slide that cannot be read, has no pixel size or
            no tissue or is coarser than `mpp`, or whose mask is missing or does not fit.

    Reference:
        Lerousseau et al., MICCAI 2020, section 3.1: 150 tiles of 224 px at 20x (0.5 um per pixel), once a slide and epoch.
    """

    def __init__(
        self,
        data: Sequence[Record],
        tissue: TissueCache,
        tiles_per_slide: int = 150,
        tile_size_px: int = 224,
        mpp: float = 0.5,
        min_tissue: float = 0.5,
        with_shares: bool = False,
        seed: int = 0,
    ) -> None:
        if tiles_per_slide < 1 or tile_size_px < 1 or not mpp > 0:
            raise ValueError(
                f"need tiles_per_slide, tile_size_px >= 1 and mpp > 0; got {tiles_per_slide=}, {tile_size_px=}, {mpp=}"
            )
        if not 0 < min_tissue <= 1:
            raise ValueError(f"min_tissue must be a share in (0, 1], got {min_tissue}")
        super().__init__(data=data)
        self.tissue, self.tiles_per_slide, self.tile_size_px, self.mpp = tissue, tiles_per_slide, tile_size_px, mpp
        self.min_tissue, self.with_shares, self.seed = min_tissue, with_shares, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) whose places the next bags are drawn from."""
        self.epoch = epoch

    def _transform(self, index: int) -> dict[str, Any]:
        return self.draw(index)

    def draw(self, index: int, occurrence: int = 0) -> dict[str, Any]:
        """Item `index`, which has occurred `occurrence` times in this epoch, with tiles from other places each time."""
        record = self.data[index]
        rng = np.random.default_rng(draw_key(self.seed, self.epoch, index, occurrence))
        try:
            slide = self._open(record)
            tiles, xys = self.bag(record, slide, rng)
            item = {"tiles": tiles, "label": record["label"], "index": index, "xy": torch.from_numpy(xys)}
            if self.with_shares:
                item["tumour_share"] = self._tumour_shares(record, slide, xys)
        except (ValueError, OSError) as error:
            raise record_error(record, error) from error
        return item

    def bag(self, record: Record, slide: Slide, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
        """The tiles of one bag, and their corners as `places` gives them."""
        xys = self.places(record, slide, rng)
        return torch.from_numpy(slide.read_regions(xys, self.tile_size_px, mpp=self.mpp)), xys

    def _open(self, record: Record) -> Slide:
        slide = open_slide(record["image"], mpp=record.get("mpp"))
        if slide.mpp > self.mpp * (1 + MPP_TOLERANCE):
            raise ValueError(
                f"its pixels are {slide.mpp:g} um, coarser than the mpp={self.mpp:g} at which tiles are read: detail that a "
                "method learns from other slides is missing. Choose a larger mpp, or leave the slide out"
            )
        return slide

    def places(self, record: Record, slide: Slide, rng: np.random.Generator) -> np.ndarray:
        """Corners of the tiles of one bag, ``(tiles_per_slide, 2)``: (x, y) in level-0 pixels."""
        tissue = self.tissue.get(record["image"], record.get("mpp"))
        return tissue.sample_tiles(rng, self.tiles_per_slide, self._extent_px(record, slide), self.min_tissue)

    def _extent_px(self, record: Record, slide: Slide) -> float:
        """Side of a tile in level-0 pixels."""
        return self.tile_size_px * slide.downsample(self.mpp)

    def _tumour_shares(self, record: Record, slide: Slide, xys: np.ndarray) -> Tensor:
        if record.get("mask") is None:
            if record["label"]:
                raise ValueError("the column 'mask' is empty, and without it the tiles of a tumour slide have no ground truth")
            return torch.zeros(len(xys))
        step = self._extent_px(record, slide) / _SHARE_POINTS
        masks = [read_record_mask(record, (int(x), int(y)), _SHARE_POINTS, slide.size_px, step) for x, y in xys]
        return torch.tensor([float(mask.mean()) for mask in masks])

    def passed_slides(self) -> PassedSlides:
        """The slides that need not be checked again; none are remembered if nothing is written to the tissue's folder."""
        settings = [self.tile_size_px, self.mpp, self.min_tissue, self.with_shares, self.tissue.mpp, self.tissue.method]
        return PassedSlides(self.tissue.folder if self.tissue.keep else None, [*settings, TISSUE_VERSION])

    def check(self, index: int) -> str | None:
        """Open a slide, find its tissue and a place for a tile; what is wrong with it, or None."""
        record = self.data[index]
        try:
            if record.get("x") is not None:
                raise ValueError("bags are drawn from whole slides: leave x, y and the size of the region empty")
            slide = self._open(record)
            xys = self.places(record, slide, np.random.default_rng(0))[:1]
            if self.with_shares:
                self._tumour_shares(record, slide, xys)
        except (ValueError, OSError) as error:
            return str(record_error(record, error))
        return None


class _Checks(torch.utils.data.Dataset):
    """For each of some slides: the index, the problem or None, the key of the content, and what to note of it."""

    def __init__(self, dataset: SlideBagDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices, self.passed = dataset, indices, dataset.passed_slides()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> tuple[int, str | None, str, dict[str, Any] | None]:
        index = self.indices[number]
        record = self.dataset.data[index]
        known = self.passed.content_of(record)
        if known is not None:
            return index, None, known, None
        problem = self.dataset.check(index)
        if problem is not None:
            # What cannot be read has no content to compare.
            return index, problem, "", None
        content = slide_content_key(record["image"])
        tissue = self.dataset.tissue.file(record["image"], open_slide(record["image"], mpp=record.get("mpp")).mpp)
        return index, None, content, self.passed.entry(record, content, tissue)


def check_slides(datasets: Sequence[SlideBagDataset], num_workers: int = 0) -> None:
    """Open every slide of some data sets and find its tissue, so that a run fails before it trains and not in an epoch.

    Each process of `torch.distributed` opens its share of the slides, and all learn what the others found. Slides that passed
    before are not opened again until something changes, see `PassedSlides`.

    Args:
        datasets: to check; the tissue found goes to their caches.
        num_workers: processes per process of `torch.distributed`.

    Raises:
        ValueError: on every process, for all slides that do not fit and all that are in two splits, as files of the same
            content: their number and the first 20, each with row and file.
    """
    rank, num_processes = _rank_and_processes()
    shares = [range(rank, len(dataset), num_processes) for dataset in datasets]
    found: list[tuple[int, int, str | None, str]] = []
    new: list[list[dict[str, Any]]] = [[] for _ in datasets]
    with tqdm(total=sum(map(len, shares)), desc="finding tissue", unit="slide", disable=None) as bar:
        for number, (dataset, share) in enumerate(zip(datasets, shares, strict=True)):
            for *result, entry in DataLoader(_Checks(dataset, share), batch_size=None, num_workers=num_workers):
                found.append((number, *result))
                new[number] += [] if entry is None else [entry]
                bar.update()
    found = sorted(itertools.chain.from_iterable(_gather(found)), key=lambda one: one[:2])
    for number, dataset in enumerate(datasets):
        entries = list(itertools.chain.from_iterable(_gather(new[number])))
        if rank == 0:
            dataset.passed_slides().write(entries)
    problems = [problem for _, _, problem, _ in found if problem is not None]
    keys = [(datasets[number].data[index], number, key) for number, index, _, key in found if key]
    copies = copies_in_two_splits([(record, key, record.get("split") or str(number)) for record, number, key in keys])
    problems += [str(record_error(record, problem)) for record, problem in copies]
    if problems:
        more = f", the first {_MAX_NAMED_PROBLEMS}" if len(problems) > _MAX_NAMED_PROBLEMS else ""
        lines = "\n".join(f"  {problem}" for problem in problems[:_MAX_NAMED_PROBLEMS])
        raise ValueError(f"{len(problems)} of {len(found)} slides cannot be used{more}:\n{lines}")


def _rank_and_processes() -> tuple[int, int]:
    distributed = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)


def _gather(item: Any) -> list[Any]:
    """Gather the values of all processes on every process, in the order of their ranks."""
    num_processes = _rank_and_processes()[1]
    if num_processes == 1:
        return [item]
    items: list[Any] = [None] * num_processes
    dist.all_gather_object(items, item)
    return items


class _Moments(torch.utils.data.Dataset):
    """Sums and sums of squares of each channel over the tiles of some slides, so that pixels stay in the worker."""

    def __init__(self, dataset: SlideBagDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Tensor:
        pixels = self.dataset[self.indices[number]]["tiles"].reshape(-1, 3).double()
        return torch.stack([pixels.sum(0), pixels.square().sum(0), torch.full((3,), float(len(pixels)))])


def pixel_statistics(dataset: SlideBagDataset, file: str | Path, num_workers: int = 0) -> dict[str, list[float]]:
    """Mean and standard deviation of red, green and blue over a data set's tissue tiles.

    Each process of `torch.distributed` reads its share of the slides; all have the same result.

    Args:
        dataset: of the training slides; its ``tiles_per_slide`` tiles of the first epoch are taken.
        file: JSON that keeps the result; where it exists and is whole, it is read.
        num_workers: processes that read, a process of `torch.distributed`.

    Returns:
        ``mean`` and ``std``, three values each, as shares of 255.

    Raises:
        ValueError: on every process, for slides that cannot be read and for tiles of one colour.

    Reference:
        Lerousseau et al., MICCAI 2020, section 3.1: "channel-wise standard scaling from training averages and variances".
    """
    file = Path(file)
    rank, num_processes = _rank_and_processes()
    # What the first process finds counts: others may look when it has written already.
    known = _gather(_read_statistics(file) if rank == 0 else None)[0]
    if known is not None:
        return dict(known)
    loader = DataLoader(_Moments(dataset, range(rank, len(dataset), num_processes)), batch_size=None, num_workers=num_workers)
    total, problem = torch.zeros(3, 3, dtype=torch.float64), None
    try:
        for moments in tqdm(loader, desc="colour statistics", unit="slide", disable=None):
            total += moments
    except ValueError as error:
        if num_processes == 1:
            raise
        problem = str(error)  # the other processes wait for this one
    shares = _gather((total, problem))
    problems = [problem for _, problem in shares if problem is not None]
    if problems:
        raise ValueError(problems[0])
    sums, squares, counts = torch.stack([total for total, _ in shares]).sum(0)
    mean = sums / counts
    deviation = (squares / counts - mean**2).clamp(min=0).sqrt()
    result = {"mean": [round(v / 255, 6) for v in mean.tolist()], "std": [round(v / 255, 6) for v in deviation.tolist()]}
    if not all(math.isfinite(v) and v > 0 for v in result["std"]):
        raise ValueError(f"the tiles of the training slides have no variance in colour: {result}; are they images of tissue?")
    if rank == 0:
        with contended_path(file) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")
    return result


def _read_statistics(file: Path) -> dict[str, list[float]] | None:
    """Read what `pixel_statistics` has written; None if there is no file, or it is damaged or incomplete."""
    try:
        found = json.loads(file.read_text())
        result = {name: [float(value) for value in found[name]] for name in ("mean", "std")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = repr(error)
    else:
        values = result["mean"] + result["std"]
        if [len(part) for part in result.values()] == [3, 3] and all(map(math.isfinite, values)) and min(result["std"]) > 0:
            return result
        problem = str(result)
    logger.warning("%s does not hold mean and std of three channels (%s): they are computed again", file, problem)
    return None
