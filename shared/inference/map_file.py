"""A finished map, read by rows: memory does not depend on the slide's size."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
import tifffile

from ..wsi.tiff_tiles import decode_tile


class MapFile:
    """The probability of tumour that `SlideMapper` has written as ``<name>.ome.tif``, a row source.

    Args:
        path: of the file; open until `close`.

    Raises:
        ValueError: if it cannot be read, or holds several classes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._tiff = tifffile.TiffFile(path)
            page = self._tiff.pages[0].aspage()
            num_maps = len(self._tiff.pages)
        except (OSError, tifffile.TiffFileError, IndexError) as error:
            raise ValueError(f"the map {path} cannot be read ({error})") from error
        if num_maps > 1 or not page.is_tiled or page.dtype != np.uint8:
            self.close()
            raise ValueError(f"the map {path} is no map of tumour: wanted one tiled uint8 image, got {num_maps} of {page.dtype}")
        self._page = page
        self._band: tuple[int, np.ndarray] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self._page.imagelength, self._page.imagewidth

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`, uint8 ``(stop - start, W)``, 255 being probability 1."""
        height = self._page.tilelength
        bands = [self._read_band(index)[max(0, start - index * height) :] for index in range(start // height, -(-stop // height))]
        return np.concatenate(bands)[: stop - start] if bands else np.empty((0, self.shape[1]), np.uint8)

    def _read_band(self, index: int) -> np.ndarray:
        """One row of the file's tiles; the last one read is kept, as the next rows often begin in it."""
        if self._band is not None and self._band[0] == index:
            return self._band[1]
        width, top = self._page.tilewidth, index * self._page.tilelength
        band = np.zeros((min(self._page.tilelength, self.shape[0] - top), self.shape[1]), np.uint8)
        num_columns = -(-self.shape[1] // width)
        for column in range(num_columns):
            try:
                tile = decode_tile(self._tiff, self._page, index * num_columns + column)
            except Exception as error:  # each codec has errors of its own
                raise ValueError(f"the map {self.path} is damaged ({error}); remove it and map the slide again") from error
            if tile is not None:
                # Tiles at the border are stored whole.
                part = band[:, column * width : (column + 1) * width]
                part[:] = tile[: part.shape[0], : part.shape[1], 0]
        self._band = (index, band)
        return band

    def close(self) -> None:
        self._tiff.close()

    def __enter__(self) -> MapFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
