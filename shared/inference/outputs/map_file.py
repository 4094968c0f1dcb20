"""A finished map, read by rows: memory does not depend on the slide's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from ...wsi.tiff.tiles import decode_tile


class MapFile:
    """A map that `SlideMapper` has written as ``<name>.ome.tif``; one of tumour is a row source.

    Args:
        path: of the file; open until `close`.
        num_classes: 2 for a map of tumour; of C classes the file holds C maps, that of the background first.

    Raises:
        ValueError: if it cannot be read, or holds another number of classes.
    """

    def __init__(self, path: str | Path, num_classes: int = 2) -> None:
        try:
            self._tiff = tifffile.TiffFile(path)
            pages = [self._tiff.pages[index].aspage() for index in range(len(self._tiff.pages))]
            page = pages[0]
        except (OSError, tifffile.TiffFileError, IndexError) as error:
            raise ValueError(f"the map {path} cannot be read ({error})") from error
        is_alike = all(other.is_tiled and other.shape == page.shape and other.dtype == np.uint8 for other in pages)
        if len(pages) != (1 if num_classes == 2 else num_classes) or not is_alike:
            self.close()
            expected = f"{num_classes} tiled uint8 images, one for each class"
            if num_classes == 2:
                expected = "one tiled uint8 image, of tumour"
            raise ValueError(f"the map {path} was expected to hold {expected}; found {len(pages)} of {page.dtype}")
        self._channels = [_Channel(Path(path), self._tiff, page) for page in pages]

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self._channels[0].shape

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` of the first map, uint8 ``(stop - start, W)``, 255 being probability 1."""
        return self._channels[0].read_rows(start, stop)

    def read_channels(self, start: int, stop: int) -> np.ndarray:
        """`read_rows` of every map, ``(num_maps, stop - start, W)``."""
        return np.stack([channel.read_rows(start, stop) for channel in self._channels])

    def read_decisions(self, start: int, stop: int) -> np.ndarray:
        """The map's rows `start` to `stop`: the probability of tumour and, of several classes, the likeliest.

        Tumour is all that is not class 0. Of equally likely classes the first is meant. Where nothing was mapped every class is
        0, and so are both answers.

        Returns:
            uint8 ``(1, stop - start, W)`` or, of several classes, ``(2, stop - start, W)``.
        """
        values = self.read_channels(start, stop)
        if len(values) == 1:
            return values
        tumour = np.where(values.any(axis=0), 255 - values[0], np.uint8(0))
        return np.stack([tumour, values.argmax(axis=0).astype(np.uint8)])

    def close(self) -> None:
        self._tiff.close()

    def __enter__(self) -> MapFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Channel:
    """One image of an open TIFF, read by rows."""

    def __init__(self, path: Path, tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> None:
        self._path, self._tiff, self._page = path, tiff, page
        self._band: tuple[int, np.ndarray] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self._page.imagelength, self._page.imagewidth

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`, uint8 ``(stop - start, W)``."""
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
            except Exception as error:  # each codec has its own errors
                raise ValueError(f"the map {self._path} is damaged ({error}); remove it and map the slide again") from error
            if tile is not None:
                # Tiles at the border are stored whole.
                part = band[:, column * width : (column + 1) * width]
                part[:] = tile[: part.shape[0], : part.shape[1], 0]
        self._band = (index, band)
        return band
