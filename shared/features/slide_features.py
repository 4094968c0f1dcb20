"""Features of one slide, read from an HDF5 file that this project, TRIDENT, CLAM or STAMP has written."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from ..data.tissue_cache import slide_content_key
from ..wsi.notices import warn_of_stated_mpp
from ..wsi.slide import Slide
from .conventions import OWN, Header, neighbour_distance, num_cells, read_header
from .encoder_options import differing_options

logger = logging.getLogger(__name__)

FEATURES_SUFFIX = ".h5"
# Corners are whole pixels, each rounded on its own.
_ROUNDING_PX = 1.0


class KeyedEncoder(Protocol):
    """The interface of an encoder that is used here."""

    name: str
    channels: int

    @property
    def aliases(self) -> Sequence[str]: ...

    @property
    def key(self) -> str: ...


class SlideFeatures:
    """A vector for each of many square patches of a slide, and where they are.

    Only what is asked for is read, and each process opens the file for itself. Use it as a context manager, or `close` it.

    Args:
        path: the file.
        header: what it says of itself.
        shape: (n, d) of the features.
        slide_mpp: micrometres per level-0 pixel, where the file does not say.

    Attributes:
        convention: "this project", "TRIDENT", "CLAM" or "STAMP".
        dim: length of a vector.
        mpp: micrometres per pixel of the image that the encoder got; None where the file does not say.
        slide_mpp: micrometres per level-0 pixel, as given or as the file says.
        slide_key, encoder_name, encoder_key: of which slide and encoder; None where the file does not say.
    """

    def __init__(self, path: Path, header: Header, shape: tuple[int, int], slide_mpp: float | None = None) -> None:
        self.path, self._header, self._shape = path, header, shape
        self.convention, self.dim = header.convention, shape[1]
        self.mpp, self.slide_mpp = header.mpp, header.slide_mpp if slide_mpp is None else slide_mpp
        self.slide_key, self.encoder_name, self.encoder_key = header.slide_key, header.encoder_name, header.encoder_key
        self._file: h5py.File | None = None
        self._pid = 0

    @classmethod
    def open(cls, path: str | Path, slide_mpp: float | None = None) -> SlideFeatures:
        """Open a file of features.

        Args:
            path: of the file.
            slide_mpp: micrometres per level-0 pixel of its slide: STAMP's corners are micrometres, and become level-0 pixels by
                it.

        Raises:
            ValueError: naming the file, if it is missing, half-written or holds no features of a slide.
        """
        path = Path(path)
        file = _open(path)
        try:
            with file:
                header = read_header(file)
                shape = file[header.dataset].shape
                # TRIDENT has had a first axis of length 1, and writes (0,) where there is no patch at all.
                shape = shape[1:] if len(shape) == 3 and shape[0] == 1 else (0, 0) if shape == (0,) else shape
                num_corners = int(np.prod(file["coords"].shape)) // 2
                if len(shape) != 2 or shape[0] != num_corners:
                    raise ValueError(
                        f"expected one vector per patch, found features {file[header.dataset].shape} and corners "
                        f"{file['coords'].shape}"
                    )
        except (ValueError, KeyError, OSError) as error:
            raise ValueError(f"{path} cannot be used: {error}") from error
        return cls(path, header, (int(shape[0]), int(shape[1])), slide_mpp)

    def __len__(self) -> int:
        return self._shape[0]

    def __enter__(self) -> SlideFeatures:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None

    @property
    def _opened(self) -> h5py.File:
        if self._file is None or self._pid != os.getpid():
            self._file, self._pid = _open(self.path), os.getpid()
        return self._file

    def _dataset(self) -> h5py.Dataset:
        return self._opened[self._header.dataset]

    def read(self, indices: Sequence[int] | NDArray[np.int64] | None = None) -> NDArray[np.float16]:
        """Features ``(n, dim)`` in half precision, of all patches or of those with these `indices`, in their order.

        Raises:
            ValueError: naming the file, if it is damaged, or of another program and holds numbers that are not finite in half
                precision.
        """
        dataset = self._dataset()
        rows = dataset[0] if dataset.ndim == 3 else dataset
        try:
            # What is beyond half precision becomes infinite, which is refused below.
            with np.errstate(over="ignore"):
                if indices is None:
                    # Without patches TRIDENT's array has no second axis.
                    found = np.asarray(rows[:], dtype=np.float16).reshape(self._shape)
                else:
                    found = self._read_some(rows, np.asarray(indices, dtype=np.int64).reshape(-1))
        except OSError as error:
            raise ValueError(f"{self.path} is damaged: {error}; delete it and embed the slide again") from error
        # Ours were checked when they were written.
        is_finite = np.ones(len(found), bool) if self.convention == OWN else np.isfinite(found).all(axis=1)
        if not is_finite.all():
            raise ValueError(
                f"{self.path} contains features that cannot be used: expected numbers up to 65504, the limit of half precision, "
                f"found larger ones or NaN in {np.count_nonzero(~is_finite)} of {len(found)} patches. Embed the slide again, or "
                "leave it out"
            )
        return found

    def _read_some(self, rows: Any, indices: NDArray[np.int64]) -> NDArray[np.float16]:
        """Chunk by chunk, each decoded once: HDF5 itself selects scattered rows a hundred times as slowly."""
        found = np.empty((len(indices), self.dim), dtype=np.float16)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"{self.path} contains {len(self)} features, requested were {indices.min()} to {indices.max()}")
        chunk = rows.chunks[0] if getattr(rows, "chunks", None) else max(1, len(self))
        order = np.argsort(indices, kind="stable")
        numbers = indices[order] // chunk
        for places in np.split(order, np.flatnonzero(np.diff(numbers)) + 1):
            if len(places):
                start = int(indices[places[0]] // chunk) * chunk
                found[places] = rows[start : start + chunk][indices[places] - start]
        return found

    @cached_property
    def coords(self) -> NDArray[np.int64]:
        """(x, y) of the patches' top-left corners in level-0 pixels, ``(n, 2)``.

        Raises:
            ValueError: for a file of STAMP that was opened without `slide_mpp`.
        """
        corners = np.asarray(self._opened["coords"][:]).reshape(-1, 2)
        if np.issubdtype(corners.dtype, np.integer) and self._to_level0 == 1:
            return corners.astype(np.int64)
        return np.floor(corners * self._to_level0 * self._header.scale + 0.5).astype(np.int64)

    @property
    def _to_level0(self) -> float:
        """Level-0 pixels per unit of the header's sizes."""
        if not self._header.is_in_um:
            return 1.0
        if self.slide_mpp is None:
            raise ValueError(
                f"{self.path}: its coordinates are in micrometres; give slide_mpp, the slide's micrometres per level-0 pixel"
            )
        return 1 / self.slide_mpp

    @property
    def stride_px(self) -> float:
        """Distance between neighbouring patches in level-0 pixels.

        Raises:
            ValueError: where nothing says it: a file of CLAM with a patch or two.
        """
        if self._header.stride is not None:
            return self._header.stride * self._to_level0
        distance = neighbour_distance(self.coords)
        if distance is None:
            raise ValueError(f"{self.path} does not state the size of its patches, and no two of them are neighbours")
        return distance

    @property
    def stride_um(self) -> float | None:
        """Distance between neighbouring patches in micrometres; None where it, or the pixel size, is not known.

        By the file's own pixel size where it states one, as in `patch_um`: TRIDENT cuts patches of as many level-0 pixels from
        every slide of one magnification, whatever its scanner's true pixel size.
        """
        if self._header.stride is None or self._header.is_in_um:
            return self._header.stride
        slide_mpp = self._header.slide_mpp or self.slide_mpp
        return None if slide_mpp is None else self._header.stride * slide_mpp

    @property
    def patch_um(self) -> float | None:
        """Side of the patch that a feature stands for in micrometres; None where it, or the pixel size, is not known.

        By the file's own pixel size, not by a given `slide_mpp`: `mpp` is of the same nominal size, so that `patch_size_px` is
        exact.
        """
        if self._header.patch is None or self._header.is_in_um:
            return self._header.patch
        return None if self._header.slide_mpp is None else self._header.patch * self._header.slide_mpp

    @property
    def patch_px(self) -> float:
        """Side of the patch that a feature stands for, in level-0 pixels; of CLAM's files the distance between neighbours."""
        return self.stride_px if self._header.patch is None else self._header.patch * self._to_level0

    @property
    def true_mpp(self) -> float | None:
        """`mpp` by the slide's own pixel size, where the file states a nominal one; None where that, or a size, is not known.

        TRIDENT sorts slides into magnifications, and calls one of 0.3 to 0.6 um 20x.
        """
        if self.slide_mpp is None or self._header.patch is None or self._header.patch_px is None:
            return None
        return self.slide_mpp * self._header.patch / self._header.patch_px

    @cached_property
    def tissue(self) -> NDArray[np.float32] | None:
        """Share of tissue in each patch, ``(n,)``; None if the file does not state it, as in those of other programs."""
        dataset = self._opened.get("tissue") if self.convention == OWN else None
        return None if dataset is None else np.asarray(dataset[:], dtype=np.float32)

    @cached_property
    def grid(self) -> NDArray[np.int64]:
        """(row, column) of each patch on a grid of `stride_px`, ``(n, 2)``; cell (0, 0) of our own files is the slide's corner.

        Raises:
            ValueError: where the patches lie on no common grid: CLAM and TRIDENT may begin one a piece of tissue.
        """
        if not len(self):
            return np.empty((0, 2), dtype=np.int64)
        corners = self.coords[:, ::-1]
        origin = np.zeros(2) if self.convention == OWN else corners.min(axis=0) % self.stride_px
        cells = np.rint((corners - origin) / self.stride_px)
        if np.abs(cells * self.stride_px + origin - corners).max() > _ROUNDING_PX:
            raise ValueError(
                f"{self.path}: its patches do not lie on a common grid of {self.stride_px:g} level-0 pixels, so no map can be "
                "made of them; they can be used as a bag"
            )
        return cells.astype(np.int64)

    @property
    def grid_shape(self) -> tuple[int, int]:
        """(rows, columns) of the grid: of the whole slide if the file states its size, else up to the last patch."""
        size_px = self._header.slide_size_px
        if size_px is not None and self.convention == OWN:
            columns, rows = (num_cells(length, self.stride_px) for length in size_px)
            return rows, columns
        rows, columns = (int(number) + 1 for number in self.grid.max(axis=0)) if len(self) else (0, 0)
        return rows, columns

    def lay_out(self, values: NDArray[Any], fill: float = 0) -> NDArray[Any]:
        """Values of the patches ``(n, ...)`` on the grid, ``(rows, columns, ...)``, with `fill` where there is no patch."""
        laid_out = np.full((*self.grid_shape, *values.shape[1:]), fill, dtype=values.dtype)
        laid_out[self.grid[:, 0], self.grid[:, 1]] = values
        return laid_out

    def check(self, slide: Slide | None = None, encoder: KeyedEncoder | None = None) -> None:
        """Check that these are features of this slide, of these coordinates and by this encoder.

        Files of TRIDENT, CLAM and STAMP carry no key. What can be checked: whether the name of the encoder and the length
        of the vectors are those of this one, and the patches lie on the slide. Where no name can be compared, that is logged
        once, and so is a pixel size that is not that of the slide.

        Raises:
            ValueError: naming the file, what is expected, what is found, and the remedy.
        """
        if encoder is not None:
            self._check_encoder(encoder)
        if slide is not None:
            self._check_slide(slide)

    def _check_encoder(self, encoder: KeyedEncoder) -> None:
        if self.encoder_key is not None and self.encoder_key != encoder.key:
            raise ValueError(
                f"{self.path} contains features of another encoder: expected {encoder.name} ({encoder.key}), found "
                f"{self.encoder_name} ({self.encoder_key}){self._other_options(encoder)}. Embed the slides with this encoder, "
                "into another folder"
            )
        if self.encoder_key is None:
            self._check_name(encoder)
        if len(self) and self.dim != encoder.channels:
            is_half = self.encoder_key is None and 2 * self.dim == encoder.channels
            remedy = ". They may be class tokens alone: give foreign_features.json, or --tokens class" if is_half else ""
            raise ValueError(
                f"{self.path} contains features of another encoder: {encoder.name} gives {encoder.channels} values, found "
                f"{self.dim}{f' of {self.encoder_name}' if self.encoder_name else ''}{remedy}"
            )

    def _other_options(self, encoder: KeyedEncoder) -> str:
        """Which options of one encoder differ, as its error adds them."""
        if self.encoder_name != encoder.name:
            return ""
        try:
            found = dict(json.loads(self._opened.attrs["encoder"]))
        except (KeyError, ValueError):
            return ""
        differing = differing_options(getattr(encoder, "description", dict)(), found)
        return "; " + "; ".join(differing or ["its weights differ"])

    def _check_name(self, encoder: KeyedEncoder) -> None:
        if self.encoder_name is None or not encoder.aliases:
            _warn_of_nameless(self.path.parent, self.convention, encoder.name)
        elif is_other_name(self.encoder_name, encoder.aliases):
            raise ValueError(
                f"{self.path} contains features of another encoder: expected {encoder.name} (called "
                f"{', '.join(encoder.aliases)}), found {self.encoder_name}. Give that encoder, or a folder with features of "
                "this one"
            )

    def is_of(self, slide: Slide) -> bool:
        """Whether the features are of a slide with this content; True for files that do not state it."""
        return self.slide_key in (None, slide_content_key(slide.path))

    def _check_slide(self, slide: Slide) -> None:
        if self.slide_key is not None and not self.is_of(slide):
            key = slide_content_key(slide.path)
            raise ValueError(
                f"{self.path} contains features of another slide than {slide.path}: expected the content hash {key[:16]}, found "
                f"{self.slide_key[:16]}. Embed the slide again"
            )
        if self.convention == OWN and self.slide_mpp is not None and abs(self.slide_mpp / slide.mpp - 1) > 1e-6:
            raise ValueError(
                f"{self.path} contains features at other coordinates: expected pixels of {slide.mpp:g} um at level 0 of "
                f"{slide.path}, found {self.slide_mpp:g} um. Embed the slide again, or give the pixel size used then"
            )
        if self._header.slide_size_px not in (None, slide.size_px):
            raise ValueError(
                f"{self.path} contains features of another slide: expected {slide.size_px} px, the size of {slide.path}, found "
                f"{self._header.slide_size_px} px"
            )
        warn_of_stated_mpp(self.path.parent, self.convention, self.mpp, self.true_mpp)
        corners = self.coords
        if len(self) and (corners.min() <= -self.patch_px or (corners >= slide.size_px).any()):
            raise ValueError(
                f"{self.path} contains features at other coordinates: corners from {tuple(corners.min(axis=0).tolist())} to "
                f"{tuple(corners.max(axis=0).tolist())} do not all lie on {slide.path}, of {slide.size_px} level-0 pixels"
            )


def is_other_name(name: str, names: Sequence[str]) -> bool:
    """Whether an encoder's name in a file is none of these, whatever their case and separators.

    STAMP appends the beginning of a hash to its names.

    >>> is_other_name("UNI_v1", ["uni", "uni_v1"]), is_other_name("mahmood-uni-0b1d4bf2", ["mahmood-uni"])
    (False, False)
    >>> is_other_name("virchow", ["virchow2"])
    True
    """
    without_hash = re.sub(r"-[0-9a-f]{8,}$", "", name)
    return {_bare(name), _bare(without_hash)}.isdisjoint(map(_bare, names))


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@cache
def _warn_of_nameless(folder: Path, convention: str, encoder: str) -> None:
    logger.warning(
        "%s: the names do not show whether its files of %s are features of %s; only the length of the vectors is checked",
        *(folder, convention, encoder),
    )


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: embed the slide first")
    try:
        # Readers need no lock, and file systems of networks do not always give one.
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise ValueError(
            f"{path} is not a complete HDF5 file: it was truncated or is something else ({error}). Delete it and embed the "
            "slide again"
        ) from error
