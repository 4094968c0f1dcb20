"""A simulated GPU: tensors that say ``cuda`` and compute on the CPU, and count whenever the host would have to wait for them.

On a GPU the host runs ahead of the device. It waits where it reads a value (``item``, a condition, `tolist`), where the shape of
a result depends on values (``nonzero``, a mask as index), and where a copy is not asked to be ``non_blocking``. Here each of
these is counted by the line of the project that asked for it.

What it cannot show: speed, memory, kernels and their rounding, autocast, streams and events, pinned memory, NCCL, and whatever
asks torch's C++ code for the device, to which these tensors lie on the CPU. Tensors that are made on the host are not mistaken
for those of the device, but to mix both is no error here, as it would be on a GPU. No process but this one may use it.
"""

import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_map

PROJECT = Path(__file__).parents[1]
DEVICE = torch.device("cuda", 0)
# Whose results, or the shapes of whose results, the host has to be told.
READS = {"_local_scalar_dense", "equal", "is_nonzero"}
SHAPED_BY_VALUES = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "histc", "argwhere"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}

waits: Counter[str] = Counter()


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
    """A tensor of the device, which holds the one of the host that computes in its place."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @staticmethod
    def __new__(cls, held):
        strides, offset = held.stride(), held.storage_offset()
        made = torch.Tensor._make_wrapper_subclass(cls, held.size(), strides, offset, dtype=held.dtype, layout=held.layout)
        made.held = held
        return made

    def tolist(self):
        wait("tolist")
        return self.held.tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("a tensor of the device has no array")

    __array__ = numpy

    def __reduce_ex__(self, protocol):
        return OnDevice, (self.held.detach(),)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        count(func, args)
        held = func(*tree_map(host, args), **tree_map(host, kwargs or {}))
        made = tree_map(lambda value: OnDevice(value) if isinstance(value, torch.Tensor) else value, held)
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


def _is_device(device):
    return device is not None and torch.device(device).type == DEVICE.type


class _Simulation(TorchFunctionMode):
    """What moves tensors between host and device, and makes them on either."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda):
            return self._moved(func, args, kwargs)
        if _is_device(kwargs.get("device")) and func is not torch._C._nn._parse_to:
            # Also what numbers are filled in with; lists and arrays have to be brought there.
            if func in (torch.as_tensor, torch.tensor, torch.asarray) and not isinstance(args[0], OnDevice):
                wait("blocking copy")
            made = func(*args, **kwargs | {"device": "cpu"})
            return made if isinstance(made, OnDevice) else OnDevice(made)
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
        if device is not None and _is_device(device) != isinstance(values, OnDevice):
            if not non_blocking:
                wait("blocking copy")
            values = OnDevice(values.detach().clone()) if _is_device(device) else values.held.detach().clone()
        options = {"dtype": dtype or values.dtype, "copy": copy}
        return torch.Tensor.to(values, **options | ({"memory_format": memory_format} if memory_format else {}))


@contextmanager
def simulated_device(monkeypatch):
    """A machine with one GPU while the block runs; gives the counter of `waits`, which the caller may clear."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    monkeypatch.setattr(clip_grad, "_group_tensors_by_device_and_dtype", _grouped(clip_grad._group_tensors_by_device_and_dtype))
    waits.clear()
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
