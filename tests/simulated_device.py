"""Simulated GPUs: tensors that say ``cuda:0`` or ``cuda:1`` and compute on the CPU, and count whenever the host would wait.

On a GPU the host runs ahead of the device. It waits where it reads a value (``item``, a condition, `tolist`), where the shape of
a result depends on values (``nonzero``, a mask as index), and where a copy is not asked to be ``non_blocking``. Here each of
these is counted by the line of the project that asked for it.

Tensors of both devices in one operation are an error, as they are on GPUs. A copy to the host in the background holds garbage
until an event is waited for that was recorded behind it, on the stream of its device.

What it cannot show: speed, memory, kernels and their rounding, autocast, bfloat16, `torch.compile`, `torch.inference_mode` (in
its place there are no gradients), pinned memory, NCCL, whether
copies *to* a device and other streams are waited for, and whatever asks torch's C++ code for the device, to which these tensors
lie on the CPU. Tensors that are made on the host are not mistaken for those of a device, but to mix both is no error here, as it
would be on a GPU. No process or thread but the one that opened it may use it.
"""

import sys
from collections import Counter
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

PROJECT = Path(__file__).parents[1]
DEVICES = [torch.device("cuda", 0), torch.device("cuda", 1)]
DEVICE = DEVICES[0]
# Whose results, or the shapes of whose results, the host has to be told.
READS = {"_local_scalar_dense", "equal", "is_nonzero"}
SHAPED_BY_VALUES = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "histc", "argwhere"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}

waits: Counter[str] = Counter()
# Of each device the copies to the host that are under way: where to, and what.
under_way: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {device.index: [] for device in DEVICES}


def wait(kind):
    """Count that the host waits, at the line of the project that is at work."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PROJECT / "shared"):
            waits[f"{path.relative_to(PROJECT)}:{frame.f_lineno} {kind}"] += 1
            return
        frame = frame.f_back
    waits[f"elsewhere {kind}"] += 1


class OnDevice(torch.Tensor):
    """A tensor of a device, which holds the one of the host that computes in its place."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: DEVICES[self.index])
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @staticmethod
    def __new__(cls, held, index=0):
        strides, offset = held.stride(), held.storage_offset()
        made = torch.Tensor._make_wrapper_subclass(cls, held.size(), strides, offset, dtype=held.dtype, layout=held.layout)
        made.held, made.index = held, index
        return made

    def tolist(self):
        wait("tolist")
        return self.held.tolist()

    def record_stream(self, stream):
        pass

    def numpy(self, *args, **kwargs):
        raise TypeError("a tensor of the device has no array")

    __array__ = numpy

    def __reduce_ex__(self, protocol):
        return OnDevice, (self.held.detach(), self.index)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        count(func, args)
        indices = {value.index for value in tree_leaves((args, kwargs)) if isinstance(value, OnDevice)}
        if len(indices) > 1 and func._schema.name != "aten::copy_":
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, found cuda:0 and cuda:1")
        index = args[0].index if isinstance(args[0], OnDevice) else min(indices)
        held = func(*tree_map(host, args), **tree_map(host, kwargs or {}))
        made = tree_map(lambda value: OnDevice(value, index) if isinstance(value, torch.Tensor) else value, held)
        return return_and_correct_aliasing(func, args, kwargs or {}, made)


def host(value):
    return value.held if isinstance(value, OnDevice) else value


def count(func, args):
    name = func._schema.name.removeprefix("aten::")
    if name in READS:
        wait("value read")
    elif name in SHAPED_BY_VALUES or (name == "repeat_interleave" and func._overloadname == "Tensor"):
        wait(f"{name}, whose shape depends on values")
    elif name in INDEXED and any(_is_mask(index) for index in args[1]):
        wait("mask as index")
    elif name == "copy_" and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice) and not (args[2:] and args[2]):
        wait("blocking copy")


def _is_mask(index):
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _index(device):
    """Of a simulated device; None for the host."""
    if device is None or torch.device(device).type != DEVICE.type:
        return None
    return torch.device(device).index or 0


class Stream:
    """Of a device; it is never behind the host."""

    def __init__(self, device=None):
        self.index = _index(device) or 0

    def wait_event(self, event):
        pass


class Event:
    """The copies to the host that were under way on a stream when it was recorded have arrived once it was waited for."""

    def record(self, stream=None):
        self.copies = list(under_way[(stream or Stream()).index])

    def synchronize(self):
        for place, values in self.copies:
            place.copy_(values)


class _Simulation(TorchFunctionMode):
    """What moves tensors between host and device, and makes them on either."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda):
            return self._moved(func, args, kwargs)
        index = _index(kwargs.get("device"))
        if index is not None and func is not torch._C._nn._parse_to:
            # Also what numbers are filled in with; lists and arrays have to be brought there.
            if func in (torch.as_tensor, torch.tensor, torch.asarray) and not isinstance(args[0], OnDevice):
                wait("blocking copy")
            made = func(*args, **kwargs | {"device": "cpu"})
            return made if isinstance(made, OnDevice) else OnDevice(made, index)
        return func(*args, **kwargs)

    def _moved(self, func, args, kwargs):
        values, *rest = args
        if func is torch.Tensor.cpu:
            rest, kwargs = ["cpu"], {}
        elif func is torch.Tensor.cuda:
            rest, kwargs = [DEVICE, *rest[1:]], {"non_blocking": kwargs.get("non_blocking", False)}
        if rest and isinstance(rest[0], torch.Tensor):
            rest = [rest[0].device, rest[0].dtype]
        copy = kwargs.pop("copy", False)
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*rest, **kwargs)
        there, here = _index(device), values.index if isinstance(values, OnDevice) else None
        if device is not None and there != here:
            if not non_blocking:
                wait("blocking copy")
            copied = host(values).detach().clone()
            values = self._arriving(copied, here) if there is None and non_blocking else copied
            values = values if there is None else OnDevice(copied, there)
        options = {"dtype": dtype or values.dtype, "copy": copy}
        return torch.Tensor.to(values, **options | ({"memory_format": memory_format} if memory_format else {}))

    @staticmethod
    def _arriving(copied, index):
        """What the host has of a copy in the background: garbage at first."""
        garbage = torch.full_like(copied, 113)
        under_way[index].append((garbage, copied))
        return garbage


@contextmanager
def simulated_device(monkeypatch):
    """A machine with two GPUs while the block runs; gives the counter of `waits`, which the caller may clear."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(DEVICES))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda values: values)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    monkeypatch.setattr(clip_grad, "_group_tensors_by_device_and_dtype", _grouped(clip_grad._group_tensors_by_device_and_dtype))
    # Views of these tensors cannot be made in the real one.
    monkeypatch.setattr(torch.inference_mode, "__enter__", torch.no_grad.__enter__)
    monkeypatch.setattr(torch.inference_mode, "__exit__", torch.no_grad.__exit__)
    waits.clear()
    for copies in under_way.values():
        copies.clear()
    before = torch.__future__.get_swap_module_params_on_conversion()
    # Parameters stay the objects that an optimizer has, as they do where a module is moved to a GPU.
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with _Simulation():
            yield waits
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def _grouped(group):
    """Torch's own grouping of tensors, with the device that they say."""

    def grouped(*args, **kwargs):
        groups = group(*args, **kwargs).items()
        return {(of[0][0][0].device, dtype): of for (_, dtype), of in groups}

    return grouped
