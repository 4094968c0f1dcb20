"""A slide's features into an HDF5 file that appears whole or not at all, and that TRIDENT and CLAM read as well."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..data.tissue_cache import slide_content_key
from ..geometry.pyramid import nearest_finer_level
from ..writers.hdf5 import whole_file
from ..wsi.slide import Slide
from .compressed_rows import CompressedRows
from .conventions import FEATURES_VERSION, UM_PX_AT_1X, num_cells

_COMPRESSED = {"compression": "gzip", "compression_opts": 1, "shuffle": True}


class DescribedEncoder(Protocol):
    """The recorded description of an encoder."""

    name: str
    channels: int
    stride_px: int

    @property
    def key(self) -> str: ...

    def description(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class CellFrame:
    """Where the cells of a slide lie: cell (row, column) begins at ``(column, row) * stride_px`` in level-0 pixels.

    Args:
        slide: the slide.
        downsample: level-0 pixels per pixel of the encoder's image, as `Slide.downsample` returns it.
        cell_px: side of a cell in those pixels: the encoder's stride.
    """

    slide: Slide
    downsample: float
    cell_px: int

    @property
    def stride_px(self) -> float:
        """Side of a cell in level-0 pixels."""
        return self.cell_px * self.downsample

    @property
    def grid_shape(self) -> tuple[int, int]:
        """(rows, columns) of the cells whose centre lies on the slide, at least one of each."""
        columns, rows = (num_cells(length, self.stride_px) for length in self.slide.size_px)
        return rows, columns

    def corners(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """(x, y) of the top-left corners, in whole level-0 pixels, of cells ``(n, 2)``: (row, column)."""
        return np.floor(cells[:, ::-1] * self.stride_px + 0.5).astype(np.int64)

    def attributes(self, name: str) -> dict[str, Any]:
        """Attributes of the corners, as in TRIDENT and CLAM."""
        slide, mpp = self.slide, self.slide.mpp * self.downsample
        level = nearest_finer_level(slide.level_downsamples, self.downsample)
        return {
            "patch_size": self.cell_px,
            "patch_size_level0": self.stride_px,
            "level0_magnification": UM_PX_AT_1X / slide.mpp,
            "target_magnification": UM_PX_AT_1X / mpp,
            "overlap": 0,
            "level0_width": slide.size_px[0],
            "level0_height": slide.size_px[1],
            "patch_level": level,
            "downsample": slide.level_downsamples[level],
            "custom_downsample": self.downsample / slide.level_downsamples[level],
            "level_dim": slide.level_sizes_px[level],
            "downsampled_level_dim": slide.level_sizes_px[level],
            "name": name,
        }


class SlideFeatureWriter:
    """Writes features batch by batch under a temporary name, and renames the file when the block ends without an error.

    The data sets: ``features`` float16 ``(n, d)``, in compressed chunks; ``coords`` int64 ``(n, 2)``, top-left corners (x, y)
    in level-0 pixels; ``tissue`` float16 ``(n,)``, the share of tissue in each cell. Use it as a context manager.

    Args:
        path: of the file.
        frame: of the slide's cells.
        encoder: by which the features are made.
        settings: further attributes of the file: what else decides the features.
        num_workers: threads that compress.

    Raises:
        StorageError: if the disk is full, the folder is read-only or the like.
    """

    def __init__(
        self,
        path: str | Path,
        frame: CellFrame,
        encoder: DescribedEncoder,
        settings: Mapping[str, Any] | None = None,
        num_workers: int = 2,
    ) -> None:
        self.path, self.frame, self.encoder = Path(path), frame, encoder
        self._settings, self._num_workers = settings or {}, num_workers
        self._num_features = 0
        self._stack = ExitStack()

    def __enter__(self) -> SlideFeatureWriter:
        with ExitStack() as stack:
            self._whole = stack.enter_context(whole_file(self.path))
            file = self._whole.file
            file.attrs.update(self._attributes() | dict(self._settings))
            rows = CompressedRows(file, "features", self.encoder.channels, self._num_workers)
            rows.dataset.attrs.update({"name": self.path.stem, "encoder": self.encoder.name})
            self._features = stack.enter_context(rows)
            self._coords = file.create_dataset("coords", (0, 2), np.int64, maxshape=(None, 2), chunks=(4096, 2), **_COMPRESSED)
            self._coords.attrs.update(self.frame.attributes(self.path.stem))
            self._tissue = file.create_dataset("tissue", (0,), np.float16, maxshape=(None,), chunks=(4096,), **_COMPRESSED)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def num_features(self) -> int:
        """Number of features so far, or in the whole file."""
        return self._num_features

    def append(self, features: NDArray[Any], cells: NDArray[np.int64], tissue: NDArray[Any]) -> None:
        """Add cells.

        Args:
            features: ``(n, d)``.
            cells: (row, column) of each, ``(n, 2)``.
            tissue: share of tissue in each, ``(n,)``.

        Raises:
            ValueError: if a feature is no number, or too large for half precision.
            OSError: if the disk is full or the like.
        """
        with np.errstate(over="ignore"):
            halves = np.asarray(features, dtype=np.float16)
        if not np.isfinite(halves).all():
            raise ValueError(
                f"the encoder {self.encoder.name} gives features that are not finite, or beyond 65504, the largest number in "
                "half precision"
            )
        self._features.append(halves)
        start = self._num_features
        self._num_features += len(halves)
        for dataset, values in (
            (self._coords, self.frame.corners(cells)),
            (self._tissue, np.asarray(tissue, dtype=np.float16)),
        ):
            dataset.resize(start + len(values), axis=0)
            dataset[start:] = values
        self._whole.check()

    def _attributes(self) -> dict[str, Any]:
        slide, frame, encoder = self.frame.slide, self.frame, self.encoder
        return {
            "features_version": FEATURES_VERSION,
            "encoder_name": encoder.name,
            "encoder_key": encoder.key,
            "encoder": json.dumps(encoder.description(), default=str),
            "slide_key": slide_content_key(slide.path),
            "slide_mpp": slide.mpp,
            "slide_width": slide.size_px[0],
            "slide_height": slide.size_px[1],
            "mpp": slide.mpp * frame.downsample,
            "patch_px": frame.stride_px,
            "stride_px": frame.stride_px,
            "written_by": __version__,
        }
