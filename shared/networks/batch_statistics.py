"""Batch normalisation for a training step in two passes: score all instances, then learn from the picked ones."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

__all__ = ["BatchStatistics", "recorded_batch_statistics"]


@dataclass
class _Record:
    """A layer's own running statistics, set aside, and stand-ins in which a forward pass leaves those of its batch."""

    layer: Any
    momentum: float | None
    own: dict[str, Tensor]
    batch: dict[str, Tensor]
    num_elements: int = 0

    @property
    def biased_var(self) -> Tensor:
        # A layer normalises by the variance over n, but hands the one over n - 1 to its running variance.
        return self.batch["running_var"] * ((self.num_elements - 1) / self.num_elements)


class BatchStatistics:
    """What `recorded_batch_statistics` gives: the statistics of the last pass in train mode."""

    def __init__(self, records: list[_Record]) -> None:
        self._records = records

    @property
    def is_recording(self) -> bool:
        """Whether there is a layer whose batch statistics are recorded; then the pass has to hold the whole batch."""
        return bool(self._records)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Normalise with the recorded statistics as constants; nothing is recorded meanwhile.

        Raises:
            RuntimeError: if no pass was recorded.
        """
        recorded = [record for record in self._records if record.num_elements]
        if self._records and not recorded:
            raise RuntimeError("applied() needs a forward pass of the network in train mode before it; got none")
        try:
            for record in recorded:
                record.layer.eval()
                record.layer.running_var = record.biased_var
            yield
        finally:
            for record in recorded:
                record.layer.train()
                record.layer.running_var = record.batch["running_var"]


@contextmanager
def recorded_batch_statistics(network: nn.Module) -> Iterator[BatchStatistics]:
    """Learn from a few instances with the batch statistics of all of them.

    ::

        with recorded_batch_statistics(network) as statistics:
            with torch.no_grad():
                logits = network(instances)
            with statistics.applied():
                loss = loss_function(network(instances[picked]))
        loss.backward()

    In the second pass the picks have the logits that they had in the first. At the end the running statistics are
    what one ordinary forward pass in train mode over all instances would have left; after an exception they are
    untouched. The gradient takes the statistics for constants, unlike that of one pass over all. Layers in eval mode
    and those without running statistics (GroupNorm, `FrozenBatchNorm2d`) are left alone.

    Args:
        network: the network, whose batch normalisation layers of any kind are in train mode.

    Raises:
        ValueError: if the network is a DistributedDataParallel that broadcasts buffers before each forward pass, which
            would give every rank the statistics of the first.

    Reference:
        Our own, for the selection of Xu et al., CAMEL, ICCV 2019, section 3.1: with Ioffe & Szegedy, ICML 2015, a
        pass over the picks alone would see other statistics than the pass that picked them.
    """
    if isinstance(network, DistributedDataParallel) and network.broadcast_buffers:
        raise ValueError("DistributedDataParallel must have broadcast_buffers=False; got True")
    records = [_set_aside(layer) for layer in network.modules() if _is_recorded(layer)]
    try:
        with ExitStack() as hooks:
            for record in records:
                handle = record.layer.register_forward_pre_hook(partial(_count_elements, record))
                hooks.callback(handle.remove)
            yield BatchStatistics(records)
    finally:
        for record in records:
            _put_back(record)
    for record in records:
        _update_running(record)


def _is_recorded(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.training and layer.running_mean is not None


def _set_aside(layer: Any) -> _Record:
    own = dict(layer.named_buffers(recurse=False))
    # None of these tensors changes after the second pass, whose backward may so come later.
    batch = {name: torch.zeros_like(buffer) for name, buffer in own.items()}
    for name, buffer in batch.items():
        setattr(layer, name, buffer)
    record = _Record(layer, layer.momentum, own, batch)
    record.layer.momentum = 1.0
    return record


def _put_back(record: _Record) -> None:
    for name, buffer in record.own.items():
        setattr(record.layer, name, buffer)
    record.layer.momentum = record.momentum


def _count_elements(record: _Record, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if not layer.training:
        return
    record.num_elements = inputs[0].numel() // inputs[0].shape[1]
    if isinstance(layer, nn.SyncBatchNorm) and distributed.is_initialized():
        # All ranks together, taken for equally large.
        record.num_elements *= distributed.get_world_size(layer.process_group)


@torch.no_grad()
def _update_running(record: _Record) -> None:
    if not record.num_elements:
        return
    record.own["num_batches_tracked"] += 1
    # As in nn.BatchNorm2d, no momentum means the plain average over all batches so far.
    momentum = 1 / int(record.own["num_batches_tracked"]) if record.momentum is None else record.momentum
    for name in ("running_mean", "running_var"):
        record.own[name].lerp_(record.batch[name], momentum)
