"""Batches whose content depends only on the seed and the epoch, not on the number of workers or processes."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from monai.data import DataLoader
from torch.utils.data import Sampler, get_worker_info

from .seeded import SeededDataset

logger = logging.getLogger(__name__)


class EvenBatchSampler(Sampler[list[int]]):
    """Splits an epoch into global batches, and each global batch over the processes, without padding or dropping.

    An epoch of n images takes ``ceil(n / batch_size)`` steps of (nearly) equal size, so that every process has the same number
    of steps and every image is seen exactly once over all processes - whereas `torch`'s DistributedSampler repeats images to
    fill up. A single process sees the very batches that several share, unless these would leave a process without an image:
    then there are fewer and larger ones. Where `batch_size` is below the number of processes, each has one image a step.

    Args:
        labels: class of each image.
        batch_size: images per step over all processes.
        balance: over-sample every class to the size of the largest (CAMEL, section 4.1): images of a small class come
            several times an epoch, as evenly often as can be, and each time again: see `SeededDataset.draw`.
        shuffle: a new order each epoch.
        seed: of the order.
        rank, num_processes: default to those of `torch.distributed`.
        may_idle: no process waits for another in a step, as in validation: there are as many steps as one process would make,
            and a process that has no image of one leaves it out.
        fill: repeat images, drawn at random, until every step has exactly `batch_size` of them.

    Raises:
        ValueError: if there are fewer images than processes, and none may idle.
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
        may_idle: bool = False,
        fill: bool = False,
    ) -> None:
        distributed = dist.is_available() and dist.is_initialized()
        self.rank = rank if rank is not None else (dist.get_rank() if distributed else 0)
        self.num_processes = num_processes if num_processes is not None else (dist.get_world_size() if distributed else 1)
        if batch_size < self.num_processes and shuffle and self.rank == 0:
            logger.warning(
                f"the images or slides per step (batch_size, slides_per_step) are counted over all processes: {batch_size} is "
                f"fewer than {self.num_processes} processes, so each step takes {self.num_processes}, one per process"
            )
        self.labels = np.asarray(labels)
        if len(self.labels) < (1 if may_idle else self.num_processes):
            raise ValueError(f"{len(self.labels)} images are too few for {self.num_processes} processes")
        self.batch_size = max(batch_size, self.num_processes)
        self.balance, self.shuffle, self.seed, self.may_idle, self.fill = balance, shuffle, seed, may_idle, fill
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def num_samples(self) -> int:
        """Images of an epoch, over-sampled and repeated ones counted each time."""
        return self.num_steps * self.batch_size if self.fill else self._num_images

    @property
    def _num_images(self) -> int:
        if not self.balance:
            return len(self.labels)
        counts = np.unique(self.labels, return_counts=True)[1]
        return int(counts.max() * len(counts))

    @property
    def num_steps(self) -> int:
        """Number of steps of an epoch, over all processes."""
        steps = math.ceil(self._num_images / self.batch_size)
        # Spread evenly, a step must still hold an image for every process.
        return steps if self.may_idle or self.fill else max(1, min(steps, self._num_images // self.num_processes))

    def __len__(self) -> int:
        """Batches of this process: one per step, except where it idles."""
        sizes = map(len, np.array_split(np.arange(self.num_samples), self.num_steps))
        return sum(self.rank < size for size in sizes)

    def global_batches(self) -> list[np.ndarray]:
        """Image indices of every step of this epoch, over all processes."""
        rng = np.random.default_rng((self.seed, self.epoch))
        order = np.arange(len(self.labels))
        if self.balance:
            classes, counts = np.unique(self.labels, return_counts=True)
            order = np.concatenate([_oversample(np.flatnonzero(self.labels == c), counts.max(), rng) for c in classes])
        if self.shuffle:
            order = rng.permutation(order)
        if self.fill:
            more = math.ceil(self.num_samples / len(order)) - 1
            order = np.concatenate([order, *(rng.permutation(order) for _ in range(more))])[: self.num_samples]
        return np.array_split(order, self.num_steps)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.draws():
            yield [index for index, _ in batch]

    def draws(self) -> Iterator[list[tuple[int, int]]]:
        """The batches of this process: each image's index and how often it has occurred before in this epoch, in any process."""
        seen: Counter[int] = Counter()
        for batch in self.global_batches():
            drawn = []
            for index in batch.tolist():
                drawn.append((index, seen[index]))
                seen[index] += 1
            share = np.array_split(np.arange(len(drawn)), self.num_processes)[self.rank]
            if len(share):
                yield [drawn[position] for position in share]


class Reading(NamedTuple):
    """The reading of a loader's processes so far: the seconds of all processes together, and the samples."""

    seconds: float
    samples: int
    num_workers: int
    samples_a_step: float


class _OfEpochs:
    """A data set indexed by ``(epoch, index, occurrence)``: a process that reads on while the epoch changes is never one behind.

    Attributes:
        spent: of each process that reads, the seconds and the samples that it has read in them, in memory that they share.
    """

    def __init__(self, dataset: SeededDataset, num_workers: int) -> None:
        self.dataset = dataset
        self.spent = torch.zeros(max(1, num_workers), 2, dtype=torch.float64).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset.data)

    def __getitem__(self, key: tuple[int, int, int]) -> Any:
        epoch, index, occurrence = key
        if self.dataset.epoch != epoch:
            self.dataset.set_epoch(epoch)
        started = time.perf_counter()
        item = self.dataset.draw(index, occurrence)
        worker = get_worker_info()
        self.spent[worker.id if worker is not None else 0] += torch.tensor([time.perf_counter() - started, 1])
        return item


class _BatchesOfEpochs(Sampler[list[tuple[int, int, int]]]):
    """The batches of an `EvenBatchSampler`, as keys of `_OfEpochs`."""

    def __init__(self, batches: EvenBatchSampler) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        epoch = self.batches.epoch
        for batch in self.batches.draws():
            yield [(epoch, index, occurrence) for index, occurrence in batch]


class RegionLoader(DataLoader):
    """A MONAI DataLoader over a `RegionDataset` or a `SlideBagDataset`, in the batches of `EvenBatchSampler`.

    Its worker processes live as long as it does, with their open slides. Start them before training does, see `start`.

    Args:
        dataset: to read from.
        batch_size: images or slides per step over all processes.
        balance, shuffle: see `EvenBatchSampler`.
        num_workers: processes that read and augment; 0 reads in this one.
        seed: of the order.
        may_idle: see `EvenBatchSampler`.
        fill: see `EvenBatchSampler`.
    """

    def __init__(
        self,
        dataset: SeededDataset,
        batch_size: int,
        balance: bool = False,
        shuffle: bool = True,
        num_workers: int = 0,
        seed: int = 0,
        may_idle: bool = False,
        fill: bool = False,
    ) -> None:
        labels = [record.get("label") or 0 for record in dataset.data]
        self._batches = EvenBatchSampler(labels, batch_size, balance, shuffle, seed, may_idle=may_idle, fill=fill)
        self._started: tuple[int, Iterator[Any]] | None = None
        super().__init__(
            _OfEpochs(dataset, num_workers),  # type: ignore[arg-type]
            batch_sampler=_BatchesOfEpochs(self._batches),
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if num_workers else None,
            persistent_workers=num_workers > 0,
            # Otherwise a pass draws from the stream of the network's dropout, or does not when its workers live already.
            generator=torch.Generator(),
        )

    @property
    def num_samples(self) -> int:
        """Images of an epoch over all processes, over-sampled ones counted each time."""
        return self._batches.num_samples

    def readings(self) -> list[Reading]:
        """The reading of its processes since it was made."""
        seconds, samples = self.dataset.spent.sum(0).tolist()  # type: ignore[attr-defined]
        samples_a_step = self.num_samples / (len(self) * self._batches.num_processes)
        return [Reading(seconds, int(samples), self.num_workers, samples_a_step)]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) that the next iteration goes through."""
        self._batches.set_epoch(epoch)

    def defer_augmentation(self) -> None:
        """See `RegionDataset.defer_augmentation`; data sets that augment nothing stay as they are."""
        dataset = self.dataset.dataset  # type: ignore[attr-defined]
        if hasattr(dataset, "defer_augmentation"):
            dataset.defer_augmentation()

    def start(self) -> None:
        """Start the worker processes, and let them read ahead for the next iteration, if that is of the present epoch.

        A worker begins as a copy of this process, whose pages are then copied one by one when it writes to them: that of a
        small process costs nothing, that of one in the middle of training seconds and gigabytes.
        """
        if self.num_workers:
            self._started = (self._batches.epoch, super().__iter__())

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        started, self._started = self._started, None
        return started[1] if started is not None and started[0] == self._batches.epoch else super().__iter__()

    def close(self) -> None:
        """End the worker processes; another iteration starts new ones."""
        iterator, self._iterator, self._started = self._iterator, None, None
        if iterator is not None:
            # Not left to the garbage collector: an engine may still hold the iterator.
            iterator._shutdown_workers()  # type: ignore[attr-defined]


class PairedLoader:
    """Batches of several loaders side by side: ``{name: batch of that loader}``.

    An epoch is one pass over the leading loader; each other begins a newly shuffled pass with each epoch and whenever it ends.

    Args:
        loaders: by name; those that are None are left out.
        leading: name of the one whose pass is an epoch; None: the longest.
        num_steps: of an epoch, instead of a pass over the leading one; trainings with few and with many images then take as
            many steps.

    Reference:
        The two routes of CAMEL's constrained retrain (Fig. 5), in which the instances lead; the masked and the labelled images
        of joint segmentation and classification, of which the fewer are repeated.
    """

    def __init__(
        self, loaders: Mapping[str, RegionLoader | None], leading: str | None = None, num_steps: int | None = None
    ) -> None:
        self.loaders = {name: loader for name, loader in loaders.items() if loader is not None}
        if not self.loaders or (leading is not None and leading not in self.loaders):
            raise ValueError(f"need loaders, one of which leads; got {', '.join(self.loaders) or 'none'}, {leading=}")
        if num_steps is not None and num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        lengths = {name: len(loader) for name, loader in self.loaders.items()}
        self._num_steps = num_steps or (lengths[leading] if leading else max(lengths.values()))
        self.epoch = 0

    def __len__(self) -> int:
        return self._num_steps

    def readings(self) -> list[Reading]:
        """The reading of each loader's processes since it was made."""
        return [reading for loader in self.loaders.values() for reading in loader.readings()]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (from 0) that the next iteration goes through."""
        self.epoch = epoch
        for name, loader in self.loaders.items():
            loader.set_epoch(self._pass(name, 0))

    def defer_augmentation(self) -> None:
        """See `RegionLoader.defer_augmentation`."""
        for loader in self.loaders.values():
            loader.defer_augmentation()

    def start(self) -> None:
        """See `RegionLoader.start`."""
        for loader in self.loaders.values():
            loader.start()

    def close(self) -> None:
        """See `RegionLoader.close`."""
        for loader in self.loaders.values():
            loader.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        endless = {name: self._endless(name) for name in self.loaders}
        for _ in range(len(self)):
            yield {name: next(batches) for name, batches in endless.items()}

    def _endless(self, name: str) -> Iterator[Any]:
        for number in range(self._passes(name)):
            self.loaders[name].set_epoch(self._pass(name, number))
            yield from self.loaders[name]

    def _passes(self, name: str) -> int:
        return math.ceil(len(self) / len(self.loaders[name]))

    def _pass(self, name: str, number: int) -> int:
        # Numbered across epochs, so that an epoch's batches follow from its number alone.
        return self.epoch * self._passes(name) + number


def _oversample(indices: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    whole, rest = divmod(size, len(indices))
    return np.concatenate([np.tile(indices, whole), rng.choice(indices, rest, replace=False)])
