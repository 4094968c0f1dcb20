"""Where one image's tiles are, in model pixels (at the network's mpp) and in map pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Axis:
    """Tiling of one axis, in model pixels: tile ``i`` starts at ``i * step - margin`` and decides ``step`` pixels."""

    length: int
    tile: int
    margin: int

    @property
    def step(self) -> int:
        return self.tile - 2 * self.margin

    @property
    def count(self) -> int:
        return -(-self.length // self.step)


@dataclass(frozen=True)
class MapGrid:
    """Tiles that overlap by twice a margin; within the margins a tile decides its *core*.

    The margins are thrown away (`CroppedCores`, the default) or blended (`BlendedCores`). Thrown away, each map pixel is one
    tile's word, equal to what the network says of the whole image when the margin covers its receptive field; blending would
    mix in predictions with a cut-off surround. Where the receptive field is larger than any margin, and for classifiers with
    one output per tile, blending averages the seams away.

    Args:
        image_size_px: (width, height) of the image in model pixels.
        tile_size_px: side of a square tile in model pixels. Along an axis where the image fits into one tile, the tile
            has the image's length and no margin: a small image reaches the network as it is.
        margin_px: model pixels discarded at each side of a tile.
        map_downsample: model pixels per map pixel.

    Raises:
        ValueError: if the margins leave nothing of the tile, or tile or margin are no multiple of `map_downsample`.

    >>> grid = MapGrid.of_image((1000, 300), tile_size_px=512, margin_px=64, map_downsample=4)
    >>> grid.map_shape, grid.tile_shape, grid.num_tiles, grid.x.step
    ((75, 250), (300, 512), (1, 3), 384)
    """

    x: Axis
    y: Axis
    map_downsample: int

    @classmethod
    def of_image(cls, image_size_px: tuple[int, int], tile_size_px: int, margin_px: int, map_downsample: int) -> MapGrid:
        if margin_px < 0 or tile_size_px - 2 * margin_px <= 0:
            raise ValueError(f"need 0 <= 2 * margin_px < tile_size_px, got {margin_px=}, {tile_size_px=}")
        if map_downsample < 1 or tile_size_px % map_downsample or margin_px % map_downsample:
            raise ValueError(
                f"tile and margin must be multiples of map_downsample: {tile_size_px=}, {margin_px=}, {map_downsample=}"
            )

        def axis(length: int) -> Axis:
            return Axis(length, length, 0) if length <= tile_size_px else Axis(length, tile_size_px, margin_px)

        return cls(axis(image_size_px[0]), axis(image_size_px[1]), map_downsample)

    @property
    def map_shape(self) -> tuple[int, int]:
        """(H, W) of the map."""
        return -(-self.y.length // self.map_downsample), -(-self.x.length // self.map_downsample)

    @property
    def core_shape(self) -> tuple[int, int]:
        """(H, W) in map pixels of what one tile decides; of a tile that is as long as its image the last one may be a part."""
        return -(-self.y.step // self.map_downsample), -(-self.x.step // self.map_downsample)

    @property
    def margin_shape(self) -> tuple[int, int]:
        """(H, W) in map pixels of a tile's margins."""
        return self.y.margin // self.map_downsample, self.x.margin // self.map_downsample

    @property
    def map_tile_shape(self) -> tuple[int, int]:
        """(H, W) of a tile in map pixels, see `core_shape`."""
        return -(-self.y.tile // self.map_downsample), -(-self.x.tile // self.map_downsample)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(H, W) of a tile in model pixels."""
        return self.y.tile, self.x.tile

    @property
    def num_tiles(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.y.count, self.x.count

    def tiles_on(self, mask: np.ndarray, pixels_per_cell: int) -> np.ndarray:
        """Which tiles' cores touch `mask`.

        Args:
            mask: bool ``(h, w)``, a cell being `pixels_per_cell` model pixels wide and high, from the top-left corner.
            pixels_per_cell: model pixels per cell.

        Returns:
            bool ``(rows, columns)``.
        """
        # Sums over prefixes give the count in any box with four reads.
        sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        top, bottom = self._cells(self.y, mask.shape[0], pixels_per_cell)
        left, right = self._cells(self.x, mask.shape[1], pixels_per_cell)
        return (sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]) > 0

    @staticmethod
    def _cells(axis: Axis, num_cells: int, pixels_per_cell: int) -> tuple[np.ndarray, np.ndarray]:
        """First cell that each tile's core touches, and the cell after the last."""
        starts = np.arange(axis.count) * axis.step
        ends = -(-(starts + axis.step) // pixels_per_cell)
        return (starts // pixels_per_cell).clip(max=num_cells), ends.clip(max=num_cells)

    def blocks(self, wanted: np.ndarray, block_size_px: int) -> Iterator[Block]:
        """Blocks of neighbouring tiles that hold all `wanted` tiles, bool ``(rows, columns)``, each once.

        A block's cores are at most `block_size_px` model pixels wide and high, but a block has at least one tile.
        """
        rows_a_block, columns_a_block = (max(1, block_size_px // axis.step) for axis in (self.y, self.x))
        for top in range(0, self.y.count, rows_a_block):
            for left in range(0, self.x.count, columns_a_block):
                found = np.argwhere(wanted[top : top + rows_a_block, left : left + columns_a_block])
                if len(found):
                    yield Block(self, [(top + int(row), left + int(column)) for row, column in found])


@dataclass(frozen=True)
class Block:
    """The smallest rectangle around some of a grid's tiles."""

    grid: MapGrid
    tiles: list[tuple[int, int]]

    @cached_property
    def _first(self) -> tuple[int, int]:
        return min(row for row, _ in self.tiles), min(column for _, column in self.tiles)

    @property
    def origin_px(self) -> tuple[int, int]:
        """(x, y) of the top-left corner in model pixels; negative at the image's border."""
        row, column = self._first
        return column * self.grid.x.step - self.grid.x.margin, row * self.grid.y.step - self.grid.y.margin

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) in model pixels."""
        row, column = self._first
        last_row, last_column = max(row for row, _ in self.tiles), max(column for _, column in self.tiles)
        x, y = self.grid.x, self.grid.y
        return (last_column - column) * x.step + x.tile, (last_row - row) * y.step + y.tile

    def offset(self, tile: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of one tile inside the block."""
        row, column = self._first
        top, left = (tile[0] - row) * self.grid.y.step, (tile[1] - column) * self.grid.x.step
        return slice(top, top + self.grid.y.tile), slice(left, left + self.grid.x.tile)
