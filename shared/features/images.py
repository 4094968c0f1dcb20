"""The features of a data set's images in the images' place: embedded once, then read."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data.image_dataset import RegionDataset, image_size, mpp_as_read, read_image
from ..data.record import Record, record_error
from ..data.seeded import draw_key
from ..data.tissue_cache import image_content_key
from ..writers.storage import StorageError
from ..wsi.notices import warn_of_other_mpp
from .copies import Copies, turned
from .image_store import ImageFeatureStore, feature_key, in_shapes

logger = logging.getLogger(__name__)

IMAGE_ONLY = Copies()
# One file of features: what a process that is killed has to compute again, and what it holds in memory until then.
_IMAGES_PER_FILE, _BYTES_PER_FILE = 256, 2**28
_MOST_TARGET_BYTES = 2**30
# Entries of an item that lie on the image's pixels.
_OF_PIXELS = {"mask", "superpixels"}
_POLL_S, _PATIENCE_S = 0.2, 30.0


class EmbeddedImages(Dataset):
    """The items of a `RegionDataset` with the images' features, float16 ``(C, h, w)``, as ``image``.

    Features are computed when the first item is asked for, or by `run`, and kept in a folder by what they were made of: the
    content of the image's file, its region and size, the encoder. What is there is not computed again, by whichever run.

    For training, `copies` are embedded too, and an item is one of them, drawn by (seed, epoch, index, occurrence); its pixel
    labels and super-pixels are turned as its image was.

    Args:
        images: what is embedded; without a transform, which would have to act on features.
        encoder: see `shared.encoders.Encoder`.
        folder: of the features, with a folder in it for each encoder's key.
        device: to compute on.
        copies: see `Copies`.
        batch_size: images a forward pass.
        num_workers: processes that read.
        memory_gib: features are held in memory up to this size.

    Raises:
        ValueError: for a data set with a transform; for an image whose sides are no multiples of the encoder's
            stride; naming row and file of an image that cannot be read.
    """

    def __init__(
        self,
        images: RegionDataset,
        encoder: nn.Module,
        folder: str | Path,
        device: torch.device | str = "cpu",
        copies: Copies = IMAGE_ONLY,
        batch_size: int = 16,
        num_workers: int = 0,
        memory_gib: float = 4.0,
    ) -> None:
        if images.transform.transforms:
            raise ValueError(
                "features are computed from unchanged images: expected a data set without a transform, found "
                f"{images.transform.transforms}. Use copies for augmentation"
            )
        self.images, self.encoder, self.copies = images, encoder, copies
        self.device, self.batch_size, self.num_workers = torch.device(device), batch_size, num_workers
        self.store = ImageFeatureStore(Path(folder) / str(encoder.key), int(memory_gib * 2**30))
        self.epoch = 0
        self._keys: dict[int, list[str]] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._read_targets: dict[int, dict[str, Any]] = {}
        self._target_bytes = 0
        self._is_complete = False
        self._says_not_kept = False

    def __len__(self) -> int:
        return len(self.images.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.draw(index)

    @property
    def data(self) -> Sequence[Record]:
        """Records of the images."""
        return self.images.data

    @property
    def pixel_labels(self) -> str | None:
        """See `RegionDataset`."""
        return self.images.pixel_labels

    @property
    def num_classes(self) -> int:
        """See `RegionDataset`."""
        return self.images.num_classes

    @property
    def class_names(self) -> Sequence[str] | None:
        """See `RegionDataset`."""
        return self.images.class_names

    @property
    def stretch(self) -> bool:
        """See `RegionDataset`."""
        return self.images.stretch

    @property
    def size_px(self) -> int | None:
        """See `RegionDataset`: of the images."""
        return self.images.size_px

    @property
    def mpp(self) -> float | None:
        """See `RegionDataset`: of the images."""
        return self.images.mpp

    def image_size(self, index: int) -> tuple[int, int]:
        """See `RegionDataset`."""
        return self.images.image_size(index)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) whose copies the next items are."""
        self.epoch = epoch

    def draw(self, index: int, occurrence: int = 0) -> dict[str, Any]:
        """Item `index`: a copy of it, another one each time that it occurs in an epoch."""
        features, turn = self.copy_of(index, np.random.default_rng(draw_key(self.images.seed, self.epoch, index, occurrence)))
        targets = dict(self._targets(index))
        for name in _OF_PIXELS & targets.keys():
            targets[name] = turned(targets[name], turn).contiguous()
        return {"image": features, **targets}

    def copy_of(self, index: int, rng: np.random.Generator) -> tuple[Tensor, int]:
        """The features of one copy of an image, drawn by `rng`, and its symmetry, see `turned`."""
        self.run()
        keys, size = self._copies_of(index)
        number = int(rng.integers(len(keys))) if len(keys) > 1 else 0
        return self.store.read(keys[number]), self.copies.of_shape(*size)[number][1]

    def _targets(self, index: int) -> dict[str, Any]:
        """Labels, masks and super-pixels of an image, which are read once."""
        if index not in self._read_targets:
            targets = self.images.targets(index, self._copies_of(index)[1])
            if self.images.superpixels is not None:
                targets["superpixels"] = self.images.superpixels(_image(self.images, index))
            size = sum(targets[name].nbytes for name in _OF_PIXELS & targets.keys())
            if self._target_bytes + size > _MOST_TARGET_BYTES:
                return targets
            self._target_bytes += size
            self._read_targets[index] = targets
        return self._read_targets[index]

    def features(self, index: int) -> Tensor:
        """Features of one image as it is, float16 ``(C, h, w)``."""
        self.run()
        return self.store.read(self._copies_of(index)[0][0])

    def run(self) -> None:
        """Embed what is not there yet; each process of `torch.distributed` the images that are its own by their keys.

        Processes wait for each other's files, not for each other: what no process has written for a while they embed
        themselves.
        """
        if self._is_complete:
            return
        wanted = [(index, number, key) for index in range(len(self)) for number, key in enumerate(self._copies_of(index)[0])]
        rank, num_processes = _rank_and_processes()
        missing = self._missing(wanted)
        if missing:
            logger.info("embedding %d of %d images and copies with %s", len(missing), len(wanted), self.encoder.name)
            self._embed([place for place in missing if int(place[2], 16) % num_processes == rank])
        waited_s, num_left = 0.0, len(missing)
        while missing := self._missing(wanted):
            if waited_s >= _PATIENCE_S:
                self._embed(missing)
            time.sleep(_POLL_S)
            waited_s, num_left = (waited_s + _POLL_S, num_left) if len(missing) == num_left else (0.0, len(missing))
        self._is_complete = True

    def _missing(self, wanted: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
        """The records that no file has, each key once: two records of one image have one key."""
        keys = set(self.store.missing([key for _, _, key in wanted]))
        return list({place[2]: place for place in wanted if place[2] in keys}.values())

    def _copies_of(self, index: int) -> tuple[list[str], tuple[int, int]]:
        """The keys of an image's copies, and its (height, width)."""
        if index not in self._keys:
            record = self.data[index]
            try:
                height, width = self.images.image_size(index)
                self._check_size(height, width)
                self._warn_of_other_mpp(record)
                region = [record.get(name) for name in ("x", "y", "width_px", "height_px")]
                region += ["stretched"] if self.images.stretch else []
                region += [height, width] if self._is_enlarged(record, (height, width)) else []
                what = (image_content_key(record["image"]), region, *self._scale(record), self.images.size_px)
            except (ValueError, OSError) as error:
                raise record_error(record, error) from error
            shape_copies = self.copies.of_shape(height, width)
            jitter = [self.copies.stain_jitter if stain else 0.0 for stain, _ in shape_copies]
            self._keys[index] = [feature_key(*what, *copy, strength) for copy, strength in zip(shape_copies, jitter, strict=True)]
            self._sizes[index] = height, width
        return self._keys[index], self._sizes[index]

    def _scale(self, record: Record) -> tuple[Any, Any]:
        """The image's own micrometres per pixel and the wanted ones, None where it is read as it is stored."""
        own, wanted = record.get("mpp"), self.images.mpp
        return (None, None) if wanted is None or own == wanted else (own, wanted)

    def _is_enlarged(self, record: Record, size: tuple[int, int]) -> bool:
        images = self.images
        return images.multiple_px > 1 and size != image_size(record, images.mpp, images.size_px, images.stretch)

    def _warn_of_other_mpp(self, record: Record) -> None:
        used = mpp_as_read(record, self.images.mpp, self.images.size_px, self.images.stretch)
        enlargement = float(getattr(self.encoder, "enlargement", 1.0))
        warn_of_other_mpp(str(self.encoder.name), getattr(self.encoder, "mpp", None), used, enlargement=enlargement)

    def _check_size(self, height: int, width: int) -> None:
        stride_px = int(self.encoder.stride_px)  # type: ignore[arg-type]
        if height % stride_px or width % stride_px:
            raise ValueError(
                f"the image is read with {width} x {height} px, and {self.encoder.name} gives a feature every {stride_px} px: "
                f"expected sides that are multiples of {stride_px}. Give the data set multiple_px={stride_px}, or choose another "
                "feature_stride_px or image_size_px"
            )

    def _embed(self, todo: Sequence[tuple[int, int, str]]) -> None:
        encoder = self.encoder.to(self.device).eval()
        # Of the image as it is: its stains differ in the same way in every run and every split.
        originals = [self._copies_of(index)[0][0] for index, _, _ in todo]
        reader = _Copied(self.images, self.copies, [(index, number) for index, number, _ in todo], originals)
        # A batch may hold images of several sizes.
        loader = DataLoader(reader, self.batch_size, num_workers=self.num_workers, collate_fn=list)
        progress = tqdm(total=len(todo), desc="embedding", unit="image", disable=None)
        keys = iter(key for _, _, key in todo)
        pending: list[tuple[str, Tensor]] = []
        pending_bytes = 0
        with progress, torch.inference_mode():
            for batch in loader:
                features = list(_encoded(encoder, batch, self.device))
                pending += [(next(keys), values) for values in features]
                pending_bytes += sum(values.nbytes for values in features)
                progress.update(len(batch))
                if len(pending) >= _IMAGES_PER_FILE or pending_bytes >= _BYTES_PER_FILE:
                    self._write(pending)
                    pending, pending_bytes = [], 0
        self._write(pending)

    def _write(self, pending: Sequence[tuple[str, Tensor]]) -> None:
        if not all(torch.isfinite(values).all() for _, values in pending):
            raise ValueError(
                f"the encoder {self.encoder.name} gives features that are not finite, or beyond 65504, the largest number in "
                "half precision"
            )
        for group in in_shapes([values for _, values in pending]):
            self._keep([pending[place] for place in group])

    def _keep(self, computed: Sequence[tuple[str, Tensor]]) -> None:
        """Keep features in the folder or, if it cannot be written to, in memory for this run."""
        try:
            description = self.encoder.description()  # type: ignore[operator]
            self.store.write([key for key, _ in computed], [values for _, values in computed], description)
        except StorageError as error:
            if not all(self.store.hold(key, values) for key, values in computed):
                raise
            if not self._says_not_kept:
                logger.warning("features are computed for this run only: %s", error)
            self._says_not_kept = True


class _Copied(Dataset):
    """Copies of images, as pixels: all that a process needs that reads them.

    Args:
        images: what is copied.
        copies: see `Copies`.
        which: index of the image and number of the copy, for each.
        originals: key of the image as it is, for each.
    """

    def __init__(self, images: RegionDataset, copies: Copies, which: Sequence[tuple[int, int]], originals: Sequence[str]) -> None:
        self.images, self.copies, self.which, self.originals = images, copies, which, originals

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, place: int) -> Tensor:
        index, number = self.which[place]
        image = _image(self.images, index)
        stain, turn = self.copies.of_shape(*image.shape[-2:])[number]
        return self.copies.image(image, stain, turn, int(self.originals[place], 16))


def _image(images: RegionDataset, index: int) -> Tensor:
    """One image as it is read, uint8 ``(3, H, W)``."""
    return read_image(images.data[index], images.mpp, images.size_px, stretch=images.stretch, multiple_px=images.multiple_px)


def _encoded(encoder: nn.Module, batch: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The features of images of any sizes, in their order."""
    features: dict[int, Tensor] = {}
    for group in in_shapes(batch):
        images = torch.stack([batch[place] for place in group]).to(device)
        # As they are stored: a second run reads what a first one computed.
        answers = encoder(images.contiguous(memory_format=torch.channels_last)).half().cpu()
        features |= dict(zip(group, answers.contiguous(), strict=True))
    yield from (features[place] for place in range(len(batch)))


def _rank_and_processes() -> tuple[int, int]:
    distributed = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
