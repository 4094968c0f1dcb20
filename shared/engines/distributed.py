"""The parts of `torch.distributed` that the engines need, with trivial results in a single process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# A slide may take an hour, and processes that have no slide left wait for it. None waits this long for a process that has
# died: torchrun then ends the others, and so does `srun --kill-on-bad-exit`.
PATIENCE = timedelta(hours=12)
# All are started at about the same time; one that never comes is no reason to wait for hours.
JOINING = timedelta(minutes=10)


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if is_distributed() else 0


def num_processes() -> int:
    return dist.get_world_size() if is_distributed() else 1


def barrier() -> None:
    """Wait until every process is here, so that all may read what rank 0 has written."""
    if is_distributed():
        dist.barrier()


def gather_in_order(share: list[Item]) -> list[Item]:
    """The whole list on every process, from shares that took items ``rank, rank + n, rank + 2 n ...``."""
    if not is_distributed():
        return share
    shares: list[list[Item]] = [[] for _ in range(num_processes())]
    dist.all_gather_object(shares, share)
    return _in_turn(shares)


def gather_on_first(share: list[Item]) -> list[Item]:
    """Like `gather_in_order`, on rank 0 only; the others get an empty list, and never hold more than their share."""
    if not is_distributed():
        return share
    shares: list[list[Item]] | None = [[] for _ in range(num_processes())] if rank() == 0 else None
    dist.gather_object(share, shares)
    return [] if shares is None else _in_turn(shares)


def broadcast_from_first(item: Item) -> Item:
    """Send the value of rank 0 to every process; the values of the others are ignored."""
    if not is_distributed():
        return item
    items = [item if rank() == 0 else None]
    dist.broadcast_object_list(items)
    return cast(Item, items[0])


def over_dataset(
    dataset: Dataset[Any],
    answer: Callable[[dict[str, Any]], Iterable[Item]],
    batch_size: int = 1,
    num_workers: int = 0,
    title: str = "scoring",
    unit: str = "batch",
) -> list[Item]:
    """The result of `answer` for each item of a data set, in its order and on every process; each process reads its share.

    Args:
        dataset: read once, from the first item to the last.
        answer: takes a batch and gives one answer for each of its items.
        batch_size: items per batch.
        num_workers: processes that read.
        title: of the progress bar of rank 0.
        unit: what the progress bar calls a batch.
    """
    share = Subset(dataset, range(rank(), len(dataset), num_processes()))  # type: ignore[arg-type]
    loader = DataLoader(share, batch_size, num_workers=num_workers, pin_memory=torch.cuda.is_available())
    progress = tqdm(loader, desc=title, unit=unit, disable=None if rank() == 0 else True, leave=False)
    return gather_in_order([item for batch in progress for item in answer(batch)])


def _in_turn(shares: list[list[Item]]) -> list[Item]:
    merged = [item for items in zip(*shares, strict=False) for item in items]
    shortest = min(len(items) for items in shares)
    return merged + [items[shortest] for items in shares if len(items) > shortest]


def unwrap(network: nn.Module) -> nn.Module:
    """The network itself, without the wrapper that exchanges gradients."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def add_up(value: Tensor) -> Tensor:
    """The sum of all processes' tensors; changes `value`."""
    if is_distributed():
        dist.all_reduce(value)
    return value


def average(value: Tensor) -> Tensor:
    """The mean of all processes' tensors; changes `value`."""
    if is_distributed():
        add_up(value)
        value /= num_processes()
    return value


def sum_of_means(terms: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The part of every process in a sum of means over all of them; the mean of it over the processes is that sum."""
    totals, weights = (torch.stack(values) for values in zip(*terms, strict=True))
    mean_weights = average(weights.detach().clone())
    # Where nothing has a weight there is nothing to learn.
    return (totals / mean_weights.clamp(min=torch.finfo(mean_weights.dtype).tiny)).sum()


def average_buffers(network: nn.Module) -> None:
    """Give every process the mean of all processes' floating-point buffers (running statistics), in place."""
    for buffer in unwrap(network).buffers():
        if torch.is_floating_point(buffer):
            average(buffer)


def initialize_distributed(backend: str | None = None) -> torch.device:
    """Join the process group that ``torchrun`` describes, or SLURM's tasks, and choose this process' device.

    The device is the visible one of the process' number on its machine. Where fewer are visible, as where SLURM shows each task
    its own GPU alone, the visible ones are taken in turn.

    Tensors on GPUs are exchanged by NCCL where every process has its own GPU, else by gloo, as are those in the memory of
    the machine, and objects. Processes wait for each other for hours, as their shares of a work may be unequal.

    Args:
        backend: ``"nccl"`` or ``"gloo"``, for GPUs; by default as described above.

    Returns:
        The device for this process: the CPU where any process sees no GPU.
    """
    local_rank = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0")
    num_visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = torch.device("cuda", local_rank % num_visible) if num_visible else torch.device("cpu")
    if dist.is_initialized():
        return device
    store, number, world = next(dist.rendezvous("env://", timeout=JOINING))
    # The same answer on every rank, or they would wait for each other with different backends.
    seen = _seen_by_all(dist.PrefixStore("devices", store), number, world, device)
    if "" in seen:
        device = torch.device("cpu")
    if number == 0:
        _warn_of_missing_gpus(seen)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        on_devices = backend or ("nccl" if len(set(seen)) == world else "gloo")
        backend = f"cpu:gloo,cuda:{on_devices}"
    dist.init_process_group(
        backend or "gloo",
        store=dist.PrefixStore("default_pg", store),
        rank=number,
        world_size=world,
        timeout=PATIENCE,
        device_id=device if backend == "cpu:gloo,cuda:nccl" else None,
    )
    return device


def _seen_by_all(store: dist.Store, number: int, world: int, device: torch.device) -> list[str]:
    """The GPU of every process, by the number that it has over all processes; "" for none."""
    own = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
    store.set(str(number), own)
    return [store.get(str(other)).decode() for other in range(world)]


def _warn_of_missing_gpus(seen: list[str]) -> None:
    without, num_devices = seen.count(""), len({*seen} - {""})
    if 0 < without < len(seen):
        logger.warning(f"{without} of {len(seen)} processes see no GPU, so all processes compute on the CPU")
    elif 0 < num_devices < len(seen):
        logger.warning(
            f"{len(seen)} processes share {num_devices} GPU(s), which is slow and only for tests: start one process per GPU "
            f"(--nproc_per_node={num_devices})"
        )
