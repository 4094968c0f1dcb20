"""Network -> probabilities on the map's grid, with reading, computing and storing at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ..geometry import nearest_finer_level
from ..wsi import Slide
from .map_grid import Block, MapGrid
from .probability_map import ProbabilityMap

# Neighbouring tiles are read together, in blocks of this side in model pixels: the overlaps in them are decoded once.
BLOCK_SIZE_PX = 2048
LARGEST_SOURCE_PX = 4096  # the same in pixels of the level that is read: about 50 MB a thread
TilePosition = tuple[int, int]
Batch = tuple[list[TilePosition], Tensor]


def tumour_probability(logits: Tensor) -> Tensor:
    """Probability of tumour, float32.

    Args:
        logits: ``(B, C, H, W)`` of a segmentation network or ``(B, C)`` of a classifier; one channel is taken through a
            sigmoid, of two the second one's softmax is taken.

    Returns:
        ``(B, H, W)``; of a classifier ``(B, 1, 1)``.

    Raises:
        ValueError: for any other shape.
    """
    if logits.ndim not in (2, 4) or logits.shape[1] not in (1, 2):
        raise ValueError(f"the network must return logits (B, C, H, W) or (B, C) with C = 1 or 2, got {tuple(logits.shape)}")
    if logits.ndim == 2:
        logits = logits[:, :, None, None]
    logits = logits.float()
    return logits[:, 0].sigmoid() if logits.shape[1] == 1 else (logits[:, 1] - logits[:, 0]).sigmoid()


def to_map_pixels(probability: Tensor, shape: tuple[int, int]) -> Tensor:
    """Bring tiles ``(B, h, w)`` to `shape` (H, W): means where the network is finer than the map, else bilinear."""
    if probability.shape[1:] == shape:
        return probability
    is_finer = probability.shape[1] >= shape[0] and probability.shape[2] >= shape[1]
    if is_finer:
        return functional.interpolate(probability[:, None], size=shape, mode="area")[:, 0]
    return functional.interpolate(probability[:, None], size=shape, mode="bilinear", align_corners=False)[:, 0]


@torch.inference_mode()
def predict_cores(network: nn.Module, grid: MapGrid, amp: bool, tiles: Tensor) -> Tensor:
    """The part of the map that each tile decides.

    Args:
        network: raw RGB 0..255, float32 ``(B, 3, H, W)`` -> logits, see `tumour_probability`.
        grid: gives the tile's margins and the map's resolution.
        amp: compute in bfloat16 where autocast allows.
        tiles: uint8 ``(B, H, W, 3)`` on the network's device.

    Returns:
        uint8 ``(B, *grid.core_shape)``, 255 being probability 1.
    """
    # The permuted view of (B, H, W, 3) is channels_last already.
    with torch.autocast(tiles.device.type, dtype=torch.bfloat16, enabled=amp):
        logits = network(tiles.permute(0, 3, 1, 2).float())
    step = grid.map_downsample
    height, width = (length // step for length in grid.tile_shape)
    probability = to_map_pixels(tumour_probability(logits), (height, width))
    top, left = grid.y.margin // step, grid.x.margin // step
    core = probability[:, top : height - top, left : width - left]
    return (core * 255).round().to(torch.uint8)


def fill_map(
    probability_map: ProbabilityMap, batches: Iterable[Batch], predict: Callable[[Tensor], Tensor], progress: tqdm
) -> None:
    """Store what `predict` (`predict_cores` but for its last argument) says of each batch.

    A batch comes back from the device and is stored while the next one is computed.
    """
    waiting: tuple[list[TilePosition], Tensor, torch.cuda.Event | None] | None = None
    for positions, tiles in batches:
        cores = predict(tiles).to("cpu", non_blocking=True)
        arrived = None
        if tiles.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        if waiting is not None:
            _store(probability_map, *waiting, progress)
        waiting = positions, cores, arrived
    if waiting is not None:
        _store(probability_map, *waiting, progress)


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

    Args:
        slide: the slide.
        grid: its tiles.
        wanted: which of them, bool ``(rows, columns)``.
        downsample: level-0 pixels per model pixel, as `Slide.downsample` returns it.
        batch_size: tiles a batch; the last may have fewer.
        device: where the batches are wanted.
        num_workers: reading threads (decoders release the GIL); one block more than there are threads is held.

    Yields:
        positions (row, column) and tiles uint8 ``(B, H, W, 3)``.
    """
    level = slide.level_downsamples[nearest_finer_level(slide.level_downsamples, downsample)]
    block_size_px = int(min(BLOCK_SIZE_PX, LARGEST_SOURCE_PX * level / downsample))
    blocks = _read_ahead(slide, grid.blocks(wanted, block_size_px), downsample, num_workers)
    positions: list[TilePosition] = []
    tiles: list[Tensor] = []
    for block, rgb in blocks:
        pixels = torch.from_numpy(rgb)
        if device.type == "cuda":
            pixels = pixels.pin_memory().to(device, non_blocking=True)
        for position in block.tiles:
            positions.append(position)
            tiles.append(pixels[block.offset(position)])
            if len(tiles) == batch_size:
                yield positions, torch.stack(tiles).to(device)
                positions, tiles = [], []
    if tiles:
        yield positions, torch.stack(tiles).to(device)


def _store(
    probability_map: ProbabilityMap,
    positions: list[TilePosition],
    cores: Tensor,
    arrived: torch.cuda.Event | None,
    progress: tqdm,
) -> None:
    if arrived is not None:
        arrived.synchronize()
    for position, core in zip(positions, cores.numpy(), strict=True):
        probability_map.write_tile(position, core)
    progress.update(len(positions))


def _read_ahead(slide: Slide, blocks: Iterator[Block], downsample: float, num_workers: int) -> Iterator[tuple[Block, np.ndarray]]:
    """Read blocks in order with several threads, at most one more than there are threads being ready or under way."""

    def read(block: Block) -> np.ndarray:
        # Not rounded: the reader places regions to a fraction of a pixel where it resamples.
        corner = np.array([block.origin_px]) * downsample
        return slide.read_regions(corner, block.size_px, mpp=slide.mpp * downsample)[0]

    executor = ThreadPoolExecutor(num_workers, thread_name_prefix="read-ahead")
    under_way: deque[tuple[Block, Future[np.ndarray]]] = deque()
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
