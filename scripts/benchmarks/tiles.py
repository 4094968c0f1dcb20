"""Tiles per second of the slide loader alone, of the network's training step alone, and of both together."""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from scripts.options.numbers import COUNT, COUNT_FROM_0, PIXEL_SIZE
from shared.data import RegionLoader, SlideBagDataset, TileAugmentation, TissueCache, check_slides, load_manifest
from shared.engines import BagInferer, SlideBags
from shared.losses import AlphaBetaLoss
from shared.networks import InstanceClassifier
from shared.synthetic import demo_manifest
from shared.wsi import Slide

Step = Callable[[dict[str, Any]], None]
READ_AHEAD = 4  # bags per worker, as in `RegionLoader`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--manifest", default="data/demo_slides/slides.csv", help="manifest of the slides; the train split is read"
    )
    parser.add_argument("--slide", help="only measure how fast this slide is read, one tile per call, compared with OpenSlide")
    parser.add_argument("--tissue_dir", default="data/demo_slides/tissue")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--tiles_per_slide", type=COUNT, default=150)
    parser.add_argument("--tile_size_px", type=COUNT, default=224)
    parser.add_argument("--mpp", type=PIXEL_SIZE, default=0.5)
    parser.add_argument("--num_workers", type=COUNT_FROM_0, default=2)
    parser.add_argument("--threads", type=COUNT, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=COUNT, default=12, help="bags per measurement")
    parser.add_argument("--rounds", type=COUNT, default=3, help="measurements of each kind, taken in turn; the fastest counts")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all kinds in turn, so that other processes on the machine disturb them equally."""
    if arguments.slide is not None:
        return _one_slide(arguments)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    records = load_manifest(demo_manifest(arguments.manifest), split="train")
    tissue = TissueCache(arguments.tissue_dir)
    dataset = SlideBagDataset(records, tissue, arguments.tiles_per_slide, arguments.tile_size_px, arguments.mpp)
    check_slides([dataset], arguments.num_workers)
    # As in a training, whose workers live from before its first step to its end.
    bags = _bags(dataset, arguments)
    bag = next(bags)
    step = _training_step(arguments)
    step(bag)
    kinds: dict[str, Callable[[], int]] = {
        "loader": lambda: _through(bags, arguments.steps * 8, _nothing),
        "one_by_one": lambda: _one_by_one(dataset),
        "model": lambda: _through(itertools.repeat(bag), arguments.steps, step),
        "both": lambda: _through(bags, arguments.steps, step),
    }
    speeds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(arguments.rounds):
        for kind, measure in kinds.items():
            # Discards what the workers have read ahead, which would otherwise count as read in no time.
            _through(bags, READ_AHEAD * arguments.num_workers, _nothing)
            start = time.perf_counter()
            num_tiles = measure()
            if torch.device(arguments.device).type == "cuda":
                torch.cuda.synchronize(arguments.device)
            speeds[kind].append(num_tiles / (time.perf_counter() - start))
    best = {kind: max(values) for kind, values in speeds.items()}
    share = best["both"] / best["model"]
    print(f"tiles of {arguments.tile_size_px} px at {arguments.mpp} um per pixel, {arguments.num_workers} workers")
    print(f"loader {best['loader']:.0f} tiles/s; one tile per call through OpenSlide, one process: {best['one_by_one']:.0f}")
    print(f"{arguments.backbone} training step {best['model']:.1f} tiles/s, with the loader {best['both']:.1f}: {share:.1%}")
    return {"tiles_per_s": best, "all": speeds, "both_of_model": share}


def _bags(dataset: SlideBagDataset, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The bags of one epoch after the other, without end."""
    loader = RegionLoader(dataset, 1, num_workers=arguments.num_workers)
    for epoch in itertools.count():
        loader.set_epoch(epoch)
        yield from loader


def _through(bags: Iterator[dict[str, Any]], steps: int, step: Step) -> int:
    num_tiles = 0
    for bag in itertools.islice(bags, steps):
        step(bag)
        num_tiles += bag["tiles"].shape[0] * bag["tiles"].shape[1]
    return num_tiles


def _nothing(bag: dict[str, Any]) -> None:
    pass


def _one_by_one(dataset: SlideBagDataset) -> int:
    """The reference for the loader: read the tiles of one bag through OpenSlide, one per call."""
    record = dataset.data[0]
    with Slide(record["image"], mpp=record.get("mpp"), backend="openslide") as slide:
        places = dataset.places(record, slide, np.random.default_rng(0))
        for x, y in places.tolist():
            slide.read_region((x, y), dataset.tile_size_px, dataset.mpp)
    return len(places)


def _one_slide(arguments: argparse.Namespace) -> dict[str, Any]:
    """Tiles per CPU second through `Slide` and through OpenSlide alone, at the same random places of a slide."""
    cost, rng = dict.fromkeys(("ours", "openslide"), math.inf), np.random.default_rng(0)
    with Slide(arguments.slide) as slide:
        mpp = arguments.mpp if slide.has_mpp else None
        side = round(arguments.tile_size_px * slide.downsample(mpp))
        corner_px = np.array(slide.size_px) - side
        if (corner_px < 0).any():
            raise ValueError(f"{arguments.slide}: expected at least {side} px per side, found {slide.size_px}")
        for _ in range(arguments.rounds):
            places = rng.integers(0, corner_px + 1, (arguments.tiles_per_slide, 2)).tolist()
            cost["ours"] = min(cost["ours"], _ours(arguments, mpp, places))
            cost["openslide"] = min(cost["openslide"], _openslide_alone(arguments.slide, places, side))
    speeds = {name: arguments.tiles_per_slide / seconds for name, seconds in cost.items()}
    ratio = speeds["ours"] / speeds["openslide"]
    print(f"tiles of {arguments.tile_size_px} px, which are {side} px at level 0")
    found = f"{speeds['ours']:.1f} tiles per CPU second; OpenSlide alone, which does not resample: {speeds['openslide']:.1f}"
    print(f"{found}; {ratio:.2f} times as fast")
    return {"tiles_per_cpu_s": speeds, "of_openslide": ratio}


def _ours(arguments: argparse.Namespace, mpp: float | None, places: list[list[int]]) -> float:
    """CPU seconds to open a slide with this project's reader and read the tiles."""
    with Slide(arguments.slide) as slide:
        started = time.process_time()
        for x, y in places:
            slide.read_region((x, y), arguments.tile_size_px, mpp)
        return time.process_time() - started


def _openslide_alone(path: str, places: list[list[int]], side: int) -> float:
    """CPU seconds to open a slide with OpenSlide and read the tiles at level 0."""
    import openslide

    with openslide.OpenSlide(path) as slide:
        started = time.process_time()
        for x, y in places:
            np.asarray(slide.read_region((x, y), 0, (side, side)).convert("RGB"))
        return time.process_time() - started


def _training_step(arguments: argparse.Namespace) -> Step:
    device = torch.device(arguments.device)
    network: nn.Module = InstanceClassifier(arguments.backbone).to(device).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    prepare, infer, loss = SlideBags(TileAugmentation()), BagInferer(), AlphaBetaLoss(alpha=0.2, beta=0.2)

    def step(bag: dict[str, Any]) -> None:
        tiles, labels = prepare(bag, device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16):
            logits = infer(tiles, network)
        optimizer.zero_grad(set_to_none=True)
        loss(logits, labels).backward()
        optimizer.step()

    return step
