"""Batches whose content depends on the seed and the epoch alone, not on the number of workers or processes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from monai.data import DataLoader
from torch.utils.data import Sampler


class SeededDataset(Protocol):
    """A map-style data set of manifest records whose randomness depends on its seed, the epoch and the index."""

    data: Any

    def set_epoch(self, epoch: int) -> None: ...


class EvenBatchSampler(Sampler[list[int]]):
    """Splits an epoch into global batches, and each global batch over the processes, without padding or dropping.

    An epoch of n images takes ``ceil(n / batch_size)`` steps of (nearly) equal size, so that every process has the same number
    of steps and every image is seen exactly once over all processes - whereas `torch`'s DistributedSampler repeats images to
    fill up. A single process sees the very batches that several share, unless these would leave a process without an image:
    then there are fewer and larger ones.

    Args:
        labels: class of each image.
        batch_size: images a step over all processes.
        balance: over-sample every class to the size of the largest (CAMEL, section 4.1): images of a small class come
            several times an epoch, as evenly often as can be.
        shuffle: a new order each epoch.
        seed: of the order.
        rank, num_processes: default to those of `torch.distributed`.
    """

    def __init__(
        self,
        labels: Sequence[int],
        batch_size: int,
        balance: bool = False,
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        num_processes: int | None = None,
    ) -> None:
        distributed = dist.is_available() and dist.is_initialized()
        self.rank = rank if rank is not None else (dist.get_rank() if distributed else 0)
        self.num_processes = num_processes if num_processes is not None else (dist.get_world_size() if distributed else 1)
        if batch_size < self.num_processes:
            raise ValueError(
                f"batch_size counts images over all processes: {batch_size} is fewer than {self.num_processes} processes"
            )
        self.labels = np.asarray(labels)
        if len(self.labels) < self.num_processes:
            raise ValueError(f"{len(self.labels)} images are too few for {self.num_processes} processes")
        self.batch_size, self.balance, self.shuffle, self.seed = batch_size, balance, shuffle, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def num_samples(self) -> int:
        """Images of an epoch, over-sampled ones counted each time."""
        if not self.balance:
            return len(self.labels)
        counts = np.unique(self.labels, return_counts=True)[1]
        return int(counts.max() * len(counts))

    def __len__(self) -> int:
        steps = math.ceil(self.num_samples / self.batch_size)
        # Spread evenly, a step must still hold an image for every process.
        return max(1, min(steps, self.num_samples // self.num_processes))

    def global_batches(self) -> list[np.ndarray]:
        """Image indices of every step of this epoch, over all processes."""
        rng = np.random.default_rng((self.seed, self.epoch))
        order = np.arange(len(self.labels))
        if self.balance:
            classes, counts = np.unique(self.labels, return_counts=True)
            order = np.concatenate([_oversample(np.flatnonzero(self.labels == c), counts.max(), rng) for c in classes])
        if self.shuffle:
            order = rng.permutation(order)
        return np.array_split(order, len(self))

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.global_batches():
            yield np.array_split(batch, self.num_processes)[self.rank].tolist()


class RegionLoader(DataLoader):
    """A MONAI DataLoader over a `RegionDataset` or a `SlideBagDataset`, in the batches of `EvenBatchSampler`.

    Args:
        dataset: to read from.
        batch_size: images or slides a step over all processes.
        balance, shuffle: see `EvenBatchSampler`.
        num_workers: processes that read and augment; 0 reads in this one.
        seed: of the order.
    """

    def __init__(
        self,
        dataset: SeededDataset,
        batch_size: int,
        balance: bool = False,
        shuffle: bool = True,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        labels = [record.get("label") or 0 for record in dataset.data]
        self._records = dataset
        self._batches = EvenBatchSampler(labels, batch_size, balance=balance, shuffle=shuffle, seed=seed)
        super().__init__(
            dataset,  # type: ignore[arg-type]
            batch_sampler=self._batches,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if num_workers else None,
        )

    @property
    def num_samples(self) -> int:
        """Images of an epoch over all processes, over-sampled ones counted each time."""
        return self._batches.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) that the next iteration goes through."""
        self._batches.set_epoch(epoch)
        self._records.set_epoch(epoch)


class PairedLoader:
    """Each batch of `instances` beside a batch of `images`: the two routes of CAMEL's constrained retrain (Fig. 5).

    An epoch is one pass over `instances`; `images` begins a newly shuffled pass with each epoch and whenever it ends.
    Yields ``{"instances": batch, "images": batch}``.
    """

    def __init__(self, instances: RegionLoader, images: RegionLoader) -> None:
        self.instances, self.images = instances, images
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.instances)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.instances.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        images = self._endless_images()
        for batch in self.instances:
            yield {"instances": batch, "images": next(images)}

    def _endless_images(self) -> Iterator[Any]:
        # Passes are numbered across epochs, so that an epoch's images follow from its number alone.
        passes_an_epoch = math.ceil(len(self.instances) / len(self.images))
        for number in range(passes_an_epoch):
            self.images.set_epoch(self.epoch * passes_an_epoch + number)
            yield from self.images


def _oversample(indices: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    whole, rest = divmod(size, len(indices))
    return np.concatenate([np.tile(indices, whole), rng.choice(indices, rest, replace=False)])
