"""Bags of tiles drawn from whole slides, anew in every epoch: the dataset of methods whose label is a slide's."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..writers import contended_path
from ..wsi import Slide, open_slide, read_mask_region
from .regions import record_error
from .tissue_cache import TissueCache

Record = dict[str, Any]

# A tile's share of tumour is read from so many points along each side.
_SHARE_POINTS = 16


class SlideBagDataset(Dataset):
    """Reads a bag of random tissue tiles from each slide.

    Item ``i`` is a dictionary: ``tiles`` uint8 ``(tiles_per_slide, tile_size_px, tile_size_px, 3)``, ``label`` (int), ``index``
    (``i``), ``xy`` int64 ``(tiles_per_slide, 2)``, the tiles' top-left corners in level-0 pixels, and with `with_shares`
    ``tumour_share`` float32 ``(tiles_per_slide,)`` from the slide's mask. Places depend on (`seed`, epoch, ``i``) only: an
    interrupted and resumed training sees what an uninterrupted one does, with any number of workers or processes.

    Args:
        data: manifest records of whole slides.
        tissue: where to find the slides' tissue.
        tiles_per_slide: in a bag; where a slide has fewer places for tiles, some come twice.
        tile_size_px: side of a tile at `mpp`.
        mpp: micrometres per pixel at which tiles are read.
        min_tissue: least share of tissue in a tile.
        with_shares: also give each tile's share of tumour; a slide with label 0 and no mask has none.
        seed: of the places.

    Raises:
        ValueError: naming the row and the file of a slide that cannot be read, has no pixel size or no tissue, or whose mask is
            missing or does not fit.

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
        super().__init__(data=data)
        self.tissue, self.tiles_per_slide, self.tile_size_px, self.mpp = tissue, tiles_per_slide, tile_size_px, mpp
        self.min_tissue, self.with_shares, self.seed = min_tissue, with_shares, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) whose places the next bags are drawn from."""
        self.epoch = epoch

    def _transform(self, index: int) -> dict[str, Any]:
        record = self.data[index]
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, self.epoch, index)))
        try:
            slide = open_slide(record["image"], mpp=record.get("mpp"))
            xys = self.places(record, slide, rng)
            tiles = slide.read_regions(xys, self.tile_size_px, mpp=self.mpp)
            item = {"tiles": torch.from_numpy(tiles), "label": record["label"], "index": index, "xy": torch.from_numpy(xys)}
            if self.with_shares:
                item["tumour_share"] = self._tumour_shares(record, slide, xys)
        except (ValueError, OSError) as error:
            raise record_error(record, error) from error
        return item

    def places(self, record: Record, slide: Slide, rng: np.random.Generator) -> np.ndarray:
        """Corners of the tiles of one bag, ``(tiles_per_slide, 2)``: (x, y) in level-0 pixels."""
        extent_px = self.tile_size_px * slide.downsample(self.mpp)
        tissue = self.tissue.get(record["image"], record.get("mpp"))
        return tissue.sample_tiles(rng, self.tiles_per_slide, extent_px, self.min_tissue)

    def _tumour_shares(self, record: Record, slide: Slide, xys: np.ndarray) -> Tensor:
        if record.get("mask") is None:
            if record["label"]:
                raise ValueError("the column 'mask' is empty, and tiles of a tumour slide have no truth without it")
            return torch.zeros(len(xys))
        step = self.tile_size_px * slide.downsample(self.mpp) / _SHARE_POINTS
        masks = [
            read_mask_region(record["mask"], (int(x), int(y)), _SHARE_POINTS, slide.size_px, step, record["image"])
            for x, y in xys
        ]
        return torch.tensor([float(mask.mean()) for mask in masks])

    def check(self, index: int) -> str | None:
        """Open a slide, find its tissue and a place for a tile; what is wrong with it, or None."""
        record = self.data[index]
        try:
            if record.get("x") is not None:
                raise ValueError("a bag is drawn from a whole slide; leave x, y and the region's size empty")
            slide = open_slide(record["image"], mpp=record.get("mpp"))
            xys = self.places(record, slide, np.random.default_rng(0))[:1]
            if self.with_shares:
                self._tumour_shares(record, slide, xys)
        except (ValueError, OSError) as error:
            return str(record_error(record, error))
        return None


class _Checks(torch.utils.data.Dataset):
    def __init__(self, dataset: SlideBagDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> str | None:
        return self.dataset.check(index)


def check_slides(datasets: Sequence[SlideBagDataset], num_workers: int = 0) -> None:
    """Open every slide of some data sets and find its tissue, so that a run fails before it trains and not in an epoch.

    Args:
        datasets: to check; the tissue found goes to their caches.
        num_workers: processes.

    Raises:
        ValueError: for the first slide that does not fit, naming row and file.
    """
    with tqdm(total=sum(len(dataset) for dataset in datasets), desc="finding tissue", unit="slide", disable=None) as bar:
        for dataset in datasets:
            loader = DataLoader(_Checks(dataset), batch_size=None, num_workers=num_workers)
            for problem in loader:
                if problem is not None:
                    raise ValueError(problem)
                bar.update()


class _Moments(torch.utils.data.Dataset):
    """Sums and sums of squares of each channel over a slide's tiles, so that pixels stay in the worker."""

    def __init__(self, dataset: SlideBagDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        pixels = self.dataset[index]["tiles"].reshape(-1, 3).double()
        return torch.stack([pixels.sum(0), pixels.square().sum(0), torch.full((3,), float(len(pixels)))])


def pixel_statistics(dataset: SlideBagDataset, file: str | Path, num_workers: int = 0) -> dict[str, list[float]]:
    """Mean and standard deviation of red, green and blue over a data set's tissue tiles.

    Args:
        dataset: of the training slides; its ``tiles_per_slide`` tiles of the first epoch are taken.
        file: JSON that keeps the result; where it exists it is read.
        num_workers: processes that read.

    Returns:
        ``mean`` and ``std``, three values each, as shares of 255.

    Reference:
        Lerousseau et al., MICCAI 2020, section 3.1: "channel-wise standard scaling from training averages and variances".
    """
    file = Path(file)
    if file.is_file():
        return dict(json.loads(file.read_text()))
    loader = DataLoader(_Moments(dataset), batch_size=None, num_workers=num_workers)
    total = torch.zeros(3, 3, dtype=torch.float64)
    for moments in tqdm(loader, desc="colour statistics", unit="slide", disable=None):
        total += moments
    sums, squares, counts = total
    mean = sums / counts
    deviation = (squares / counts - mean**2).clamp(min=0).sqrt()
    result = {"mean": [round(v / 255, 6) for v in mean.tolist()], "std": [round(v / 255, 6) for v in deviation.tolist()]}
    if not all(math.isfinite(v) and v > 0 for v in result["std"]):
        raise ValueError(f"the tiles of the training slides have no variance of colour: {result}; are they images of tissue?")
    with contended_path(file) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    return result
