"""Super-pixels of an image, computed once: the instances of CDWS-MIL "with SP" (Jia et al., IEEE TMI 2017, section III.C)."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.segmentation import slic
from torch import Tensor

from ...writers.atomic import atomic_path

# Raise it with every change of the ids that an image gets: what other versions have cached is not found then.
SUPERPIXELS_VERSION = 2
_MAX_ID = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Superpixels:
    """SLIC super-pixels of an image, from a folder where the image was seen before.

    A file's name is a hash of the image's pixels and of the settings: the folder may serve several data sets, sizes and
    settings, and a changed image is computed again, as is one whose file is damaged. Several processes may use the folder at
    the same time. Another version of scikit-image does not make files invalid.

    Args:
        folder: of the cache; made when the first file is written.
        num_superpixels: wanted in an image; on H&E SLIC comes within a fifth of it.

    Raises:
        ValueError: if the number is not 1 to 65535.

    Reference:
        Achanta et al., IEEE TPAMI 2012, in the parameter-free form SLICO, on Lab colours: each super-pixel finds its own
        compactness. The paper names no settings. With a fixed compactness of 10 the texture of H&E leaves half of the number.
    """

    folder: str | Path
    num_superpixels: int = 900

    def __post_init__(self) -> None:
        if not 1 <= self.num_superpixels <= _MAX_ID:
            raise ValueError(f"need num_superpixels in 1..{_MAX_ID}; got num_superpixels={self.num_superpixels}")

    def __call__(self, image: Tensor) -> Tensor:
        """Super-pixels of one image.

        Args:
            image: RGB, uint8 ``(3, H, W)``.

        Returns:
            int32 ``(1, H, W)``: each pixel's super-pixel, numbered from 0 without gaps.

        Raises:
            ValueError: for another type or shape.
        """
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"need an image uint8 (3, H, W); got {image.dtype} {tuple(image.shape)}")
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        path = Path(self.folder) / f"{self._key(pixels)}.npz"
        ids = _read(path, pixels.shape[:2])
        if ids is None:
            ids = self._compute(pixels)
            _write(path, ids)
        return torch.from_numpy(ids.astype(np.int32))[None]

    def _key(self, pixels: NDArray[np.uint8]) -> str:
        settings = (SUPERPIXELS_VERSION, int(self.num_superpixels), pixels.shape)
        key = hashlib.sha256(repr(settings).encode())
        key.update(pixels.data)
        return key.hexdigest()

    def _compute(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint16]:
        ids = slic(pixels, self.num_superpixels, slic_zero=True, start_label=0, channel_axis=-1)
        if ids.max() > _MAX_ID:
            raise ValueError(
                f"{ids.max() + 1} super-pixels in one image are too many: at most {_MAX_ID + 1} are possible, so choose fewer"
            )
        return ids.astype(np.uint16)


def _read(path: Path, size: tuple[int, ...]) -> NDArray[np.uint16] | None:
    """Ids ``(height, width)``; None without a file that holds them."""
    try:
        with np.load(path) as arrays:
            ids: NDArray[np.uint16] = arrays["ids"]
    except Exception:
        # A damaged file raises whatever its bytes lead to; in each case it is computed again.
        return None
    return ids if ids.shape == size and ids.dtype == np.uint16 else None


def _write(path: Path, ids: NDArray[np.uint16]) -> None:
    # `atomic_path` is for one writer, and two workers may compute one image at a time: each has its own name.
    own = path.with_name(f"{path.stem}-{uuid.uuid4().hex}.npz")
    with atomic_path(own) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, ids=ids)
    own.replace(path)
