"""A cMIL training step compared with back-propagation through all N * N instances."""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scripts.options.numbers import COUNT
from shared.data import split_into_instances
from shared.engines import SelectedInstanceInferer
from shared.losses import SelectedInstanceLoss
from shared.networks import InstanceClassifier

Step = Callable[[Tensor, Tensor], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--image_size_px", type=COUNT, default=320)
    parser.add_argument("--instances_per_side", type=COUNT, nargs="+", default=[4, 8])
    parser.add_argument("--batch_size", type=COUNT, default=4)
    parser.add_argument("--repeats", type=COUNT, default=10)
    parser.add_argument("--threads", type=COUNT, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--bfloat16", action="store_true", help="run both kinds of step under bfloat16 autocast")


def _selected_step(network: nn.Module, instances_per_side: int) -> Step:
    """Our step: score without gradients, then forward and backward on the selected instances."""
    infer = SelectedInstanceInferer("max_max", instances_per_side)
    loss = nn.BCEWithLogitsLoss()

    def step(images: Tensor, labels: Tensor) -> None:
        network.zero_grad(set_to_none=True)
        loss(infer(images, network, labels=labels), labels).backward()

    return step


def _naive_step(network: nn.Module, instances_per_side: int) -> Step:
    """The naive step: forward and backward through every instance; the loss uses the selected ones."""
    loss = SelectedInstanceLoss("max_max")

    def step(images: Tensor, labels: Tensor) -> None:
        network.zero_grad(set_to_none=True)
        instances = split_into_instances(images, instances_per_side).flatten(0, 1)
        logits = network(instances.contiguous(memory_format=torch.channels_last))
        loss(logits.reshape(len(images), -1), labels).backward()

    return step


STEPS = {"ours": _selected_step, "naive": _naive_step}


def _measure(arguments: argparse.Namespace, kind: str, instances_per_side: int, results: Any) -> None:
    """Seconds of the fastest step and peak memory of one kind of step, in a separate process."""
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    network = InstanceClassifier(arguments.backbone).to(device).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    size = arguments.image_size_px
    images = torch.randint(0, 256, (arguments.batch_size, 3, size, size), dtype=torch.uint8, device=device)
    labels = (torch.arange(arguments.batch_size, device=device) % 2).float()
    step = STEPS[kind](network, instances_per_side)
    before = _peak_memory(device)
    seconds = []
    for _ in range(arguments.repeats + 1):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bfloat16):
            step(images, labels)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    # The fastest step counts, because other processes on the machine can only slow a step down.
    results.put({"seconds": min(seconds[1:]), "memory_mib": (_peak_memory(device) - before) / 2**20})


def _peak_memory(device: torch.device) -> int:
    """Peak memory so far in bytes, of the device on CUDA and otherwise of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure both kinds of step for each N, in turn."""
    context = multiprocessing.get_context("spawn")
    rows = {}
    for instances_per_side in arguments.instances_per_side:
        measured = {}
        for kind in STEPS:
            results = context.Queue()
            process = context.Process(target=_measure, args=(arguments, kind, instances_per_side, results))
            process.start()
            measured[kind] = results.get()
            process.join()
        speedup = measured["naive"]["seconds"] / measured["ours"]["seconds"]
        rows[f"N={instances_per_side}"] = {**measured, "speedup": speedup}
        print(
            f"N={instances_per_side}: ours {measured['ours']['seconds'] * 1e3:.0f} ms, {measured['ours']['memory_mib']:.0f} MiB; "
            f"naive {measured['naive']['seconds'] * 1e3:.0f} ms, {measured['naive']['memory_mib']:.0f} MiB; "
            f"{speedup:.2f} times as fast",
            flush=True,
        )
    return rows
