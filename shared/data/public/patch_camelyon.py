"""PatchCamelyon in its published form, two HDF5 files a split, and how its patches become a network's tiles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

PATCH_SIZE_PX = 96
UPSAMPLED_SIZE_PX = 192
PADDING_PX = 16
SPLITS = ("train", "valid", "test")
PUBLISHED_PATCHES = {"train": 262_144, "valid": 32_768, "test": 32_768}
# Several processes each read every n-th patch. From chunks HDF5 picks single patches over ten times as slowly as it reads a
# run, so a run is read and thinned where it is at most so many times as long as what is wanted.
MAX_SPAN = 8
SOURCE = "https://zenodo.org/records/2546921"

_GZIP_MAGIC = b"\x1f\x8b"
# h5py's own choice of chunks spreads a patch over hundreds of them, which together hold up to 2048 patches: without room for
# all of them every batch would decompress them again.
_CHUNK_CACHE = {"rdcc_nbytes": 64 << 20, "rdcc_nslots": 20011}


class PatchCamelyonDataset(Dataset[dict[str, Any]]):
    """The patches of one split of PatchCamelyon, 96 x 96 px at 10x; a patch is tumour if its centre of 32 x 32 px holds any.

    Item ``i`` is a dictionary: ``image`` uint8 ``(3, 96, 96)``, RGB; ``label`` 0 or 1; ``index`` (``i``). A DataLoader's batch
    is one read of at most eight times its size, and with HDF5's cache of 64 MiB all that is in memory. Every process, forked or
    spawned, opens the file for itself.

    Args:
        folder: of ``camelyonpatch_level_2_split_<split>_x.h5`` (dataset ``x``, uint8 ``(n, 96, 96, 3)``) and ``..._y.h5``
            (``y``, uint8 ``(n, 1, 1, 1)``), unpacked.
        split: ``"train"``, ``"valid"`` or ``"test"``.

    Attributes:
        labels: int64 ``(n,)`` in {0, 1}.

    Raises:
        ValueError: naming the file, if it is missing, still packed or unreadable, or its dataset is not as above, has a label
            other than 0 and 1 or not one for each patch; a patch that cannot be decompressed raises when it is read.

    Reference:
        Veeling et al., Rotation Equivariant CNNs for Digital Pathology, MICCAI 2018; https://zenodo.org/records/2546921.
    """

    def __init__(self, folder: str | Path, split: str = "test") -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
        stem = f"camelyonpatch_level_2_split_{split}"
        self.images_path, labels_path = Path(folder, f"{stem}_x.h5"), Path(folder, f"{stem}_y.h5")
        self._opened: tuple[int, Any] | None = None
        # Closed again, so that a process forked from this one inherits no open file.
        with _open(self.images_path) as file:
            num_patches = len(_dataset(file, "x", (PATCH_SIZE_PX, PATCH_SIZE_PX, 3)))
        self.labels = _read_labels(labels_path, num_patches)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The items of a batch, in the order of `indices`, from one read of the file."""
        # HDF5 reads in ascending order, and nothing twice.
        wanted, positions = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)
        start, stop = int(wanted[0]), int(wanted[-1]) + 1
        try:
            if stop - start <= MAX_SPAN * len(wanted):
                pixels = self._patches()[start:stop][wanted - start]
            else:
                pixels = self._patches()[wanted]
        except OSError as error:
            raise ValueError(f"{self.images_path}: dataset 'x' cannot be read, unpack it again: {error}") from error
        images = torch.from_numpy(pixels[positions]).permute(0, 3, 1, 2)
        labels = self.labels[torch.as_tensor(indices)].tolist()
        return [
            {"image": image, "label": label, "index": int(index)}
            for image, label, index in zip(images, labels, indices, strict=True)
        ]

    def _patches(self) -> Any:
        """The dataset of the patches, in a file that this process has opened."""
        if self._opened is None or self._opened[0] != os.getpid():
            # Let go of what a fork has brought along, or HDF5 would continue with the parent's file descriptor.
            self._opened = None
            # The dataset, which keeps its file open: opened for each batch it would begin with an empty cache.
            self._opened = (os.getpid(), _open(self.images_path)["x"])
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        # Open files cannot be pickled for a spawned process.
        return {**self.__dict__, "_opened": None}


def upsample_and_pad(patches: Tensor) -> Tensor:
    """Patches at 10x as tiles at 20x: twice the size by bilinear interpolation, then 16 px of black on each side.

    Args:
        patches: ``(B, 3, 96, 96)``, uint8 or float, raw values 0 to 255, on any device.

    Returns:
        float32 ``(B, 3, 224, 224)``, 0 to 255, on the same device, not rounded; the padding is 0 before any normalisation.

    Raises:
        ValueError: if the shape is another.

    Reference:
        Lerousseau et al., MICCAI 2020, section 3.2. "Padded with 0" does not say on which scale: here it is black, not
        the mean colour.

    >>> upsample_and_pad(torch.full((1, 3, 96, 96), 200, dtype=torch.uint8))[0, 0, 112, 14:18]
    tensor([  0.,   0., 200., 200.])
    """
    wanted = (3, PATCH_SIZE_PX, PATCH_SIZE_PX)
    if patches.ndim != 4 or patches.shape[1:] != wanted:
        raise ValueError(f"patches must be (B, {', '.join(map(str, wanted))}); got {tuple(patches.shape)}")
    upsampled = F.interpolate(patches.float(), size=(UPSAMPLED_SIZE_PX,) * 2, mode="bilinear", align_corners=False)
    return F.pad(upsampled, (PADDING_PX,) * 4)


def _open(path: Path) -> Any:
    """An open h5py File."""
    # Here, because nothing else needs h5py: bundles without PatchCamelyon run without it.
    import h5py

    packed = path.with_name(path.name + ".gz")
    if not path.is_file():
        if packed.is_file():
            raise ValueError(f"{packed} is packed as published: run gunzip {packed}")
        raise ValueError(f"{path} does not exist: download {packed.name} from {SOURCE} and unpack it there with gunzip")
    try:
        with path.open("rb") as file:
            is_packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        if not is_packed:
            return h5py.File(path, "r", **_CHUNK_CACHE)
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}") from error
    raise ValueError(f"{path} is still packed: rename it to {packed.name} and run gunzip on it")


def _dataset(file: Any, name: str, shape: tuple[int, ...]) -> Any:
    """The uint8 dataset ``(n, *shape)`` of an open file, with n > 0."""
    wanted = f"must be a dataset of uint8 (n, {', '.join(map(str, shape))}) with n > 0"
    found = file.get(name)
    if not hasattr(found, "dtype"):
        raise ValueError(
            f"{file.filename}: {name!r} {wanted}; got {'nothing' if found is None else 'a group'} (has: {list(file)})"
        )
    if found.dtype != np.uint8 or found.shape[1:] != shape or found.shape[0] == 0:
        raise ValueError(f"{file.filename}: {name!r} {wanted}; got {found.dtype} {found.shape}")
    return found


def _read_labels(path: Path, num_patches: int) -> Tensor:
    try:
        with _open(path) as file:
            values = _dataset(file, "y", (1, 1, 1))[:, 0, 0, 0]
    except OSError as error:
        raise ValueError(f"{path}: dataset 'y' cannot be read, unpack it again: {error}") from error
    if len(values) != num_patches:
        raise ValueError(f"{path}: 'y' must have a label for each of the {num_patches} patches in 'x'; got {len(values)}")
    wrong = np.flatnonzero(values > 1)
    if len(wrong):
        raise ValueError(f"{path}: 'y' must be 0 or 1; got {values[wrong[0]]} at index {wrong[0]}")
    return torch.from_numpy(values.astype(np.int64))
