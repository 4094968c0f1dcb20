"""Batches of tiles, read ahead of their use.

MONAI's `SlidingWindowSplitter` and `PatchInferer` are not used: on slides they go through a reader that takes one location a
call, each patch on its own, in the thread that computes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ...geometry.mirroring import mirrored_indices
from ...geometry.pyramid import nearest_finer_level
from ...wsi.slide import Slide
from .map_grid import Block, MapGrid
from .stitching import TilePosition

# Neighbouring tiles are read together, in blocks of this side in model pixels: the overlaps in them, and the file's own
# tiles, are decoded once.
BLOCK_SIZE_PX = 2048
LARGEST_SOURCE_PX = 4096  # the same in pixels of the level that is read: about 50 MB a thread
Batch = tuple[list[TilePosition], Tensor]


def read_batches(
    slide: Slide,
    grid: MapGrid,
    wanted: np.ndarray,
    downsample: float,
    batch_size: int,
    device: torch.device,
    num_workers: int,
) -> Generator[Batch, None, None]:
    """Read tiles ahead of their use, and cut and batch them on the device.

    What reaches beyond the image is the image mirrored at its border. At the border of a whole slide that is glass again; where
    tissue is cut off, a white frame would be an edge that the network takes for one of the tissue.

    Args:
        slide: the slide.
        grid: its tiles.
        wanted: which of them, bool ``(rows, columns)``.
        downsample: level-0 pixels per model pixel, as `Slide.downsample` returns it.
        batch_size: tiles per batch; the last may have fewer.
        device: where the batches are wanted.
        num_workers: reading threads (decoders release the GIL); one block more than there are threads is held.

    Yields:
        positions (row, column) and tiles uint8 ``(B, H, W, 3)``.
    """
    level = slide.level_downsamples[nearest_finer_level(slide.level_downsamples, downsample)]
    block_size_px = int(min(BLOCK_SIZE_PX, LARGEST_SOURCE_PX * level / downsample))
    blocks = _read_ahead(slide, grid.blocks(wanted, block_size_px), downsample, num_workers, device)
    positions: list[TilePosition] = []
    tiles: list[Tensor] = []
    for block, pixels in _upload(blocks, device):
        for position in block.tiles:
            positions.append(position)
            tiles.append(pixels[block.offset(position)])
            if len(tiles) == batch_size:
                yield positions, _stack(tiles)
                positions, tiles = [], []
    if tiles:
        yield positions, _stack(tiles)


def _stack(tiles: list[Tensor]) -> Tensor:
    """Tiles ``(H, W, 3)``, views of blocks, as ``(B, H, W, 3)``."""
    if tiles[0].is_cuda:
        return torch.stack(tiles)
    # On a CPU torch.stack copies such views value by value, some 30 times as slowly as a copy, which takes whole rows.
    batch = torch.empty((len(tiles), *tiles[0].shape), dtype=torch.uint8)
    for place, tile in zip(batch, tiles, strict=True):
        place.copy_(tile)
    return batch


def _upload(blocks: Iterator[tuple[Block, Tensor]], device: torch.device) -> Iterator[tuple[Block, Tensor]]:
    """Bring blocks to the device, on CUDA through a separate stream: a block is copied while the one before is computed."""
    if device.type != "cuda":
        for block, pixels in blocks:
            yield block, pixels.to(device)
        return
    stream = torch.cuda.Stream(device)
    under_way: deque[tuple[Block, Tensor, torch.cuda.Event]] = deque()

    def arrived() -> tuple[Block, Tensor]:
        block, pixels, copied = under_way.popleft()
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        # Else its memory could be given to the next copy while this stream still computes with it.
        pixels.record_stream(current)
        return block, pixels

    for block, pinned in blocks:
        with torch.cuda.stream(stream):
            pixels = pinned.to(device, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(stream)
        under_way.append((block, pixels, copied))
        if len(under_way) > 1:
            yield arrived()
    while under_way:
        yield arrived()


def _read_ahead(
    slide: Slide, blocks: Iterator[Block], downsample: float, num_workers: int, device: torch.device
) -> Generator[tuple[Block, Tensor], None, None]:
    """Read blocks in order with several threads, at most one more than there are threads being ready or under way."""

    def read(block: Block) -> Tensor:
        pixels = torch.from_numpy(_read_mirrored(slide, block, downsample))
        return pixels.pin_memory() if device.type == "cuda" else pixels

    executor = ThreadPoolExecutor(num_workers, thread_name_prefix="read-ahead")
    under_way: deque[tuple[Block, Future[Tensor]]] = deque()
    try:
        for block in blocks:
            under_way.append((block, executor.submit(read, block)))
            if len(under_way) > num_workers:
                first, future = under_way.popleft()
                yield first, future.result()
        while under_way:
            first, future = under_way.popleft()
            yield first, future.result()
    finally:
        # The slide is closed next, so a read under way has to end first.
        executor.shutdown(wait=True, cancel_futures=True)


def _read_mirrored(slide: Slide, block: Block, downsample: float) -> np.ndarray:
    """A block's pixels, uint8 ``(H, W, 3)``, beyond the image mirrored."""
    lengths = (block.grid.x.length, block.grid.y.length)
    columns, rows = (
        mirrored_indices(start, start + size, length)
        for start, size, length in zip(block.origin_px, block.size_px, lengths, strict=True)
    )
    (left, right), (top, bottom) = ((int(places.min()), int(places.max()) + 1) for places in (columns, rows))
    # Not rounded: the reader places regions to a fraction of a pixel where it resamples.
    corner = np.array([(left, top)]) * downsample
    pixels = slide.read_regions(corner, (right - left, bottom - top), mpp=slide.mpp * downsample)[0]
    is_inside = np.array_equal(columns, np.arange(left, right)) and np.array_equal(rows, np.arange(top, bottom))
    return pixels if is_inside else pixels[np.ix_(rows - top, columns - left)]
