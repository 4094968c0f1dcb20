"""Measures speed as ratios within one run - ours against the naive way, on this machine, with these settings - and robustness.

python scripts/benchmark.py cmil            a cMIL training step against back-propagating through all N * N instances
python scripts/benchmark.py area-noise      CDWS-MIL's region F with areas that an annotator gives too small or too large
python scripts/benchmark.py synthetic       milliseconds to generate an image
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

from shared.data import split_into_instances
from shared.engines import SelectedInstanceInferer
from shared.engines.sweep import Sweep, summarise
from shared.losses import SelectedInstanceLoss
from shared.networks import InstanceClassifier
from shared.synthetic import synthesize_image

Step = Callable[[Tensor, Tensor], None]


def selected_step(network: nn.Module, instances_per_side: int) -> Step:
    """Ours: score without gradients, then forward and backward on the picks."""
    infer = SelectedInstanceInferer("max_max", instances_per_side)
    loss = nn.BCEWithLogitsLoss()

    def step(images: Tensor, labels: Tensor) -> None:
        network.zero_grad(set_to_none=True)
        loss(infer(images, network, labels=labels), labels).backward()

    return step


def naive_step(network: nn.Module, instances_per_side: int) -> Step:
    """Forward and backward through every instance; the loss looks at the picks."""
    loss = SelectedInstanceLoss("max_max")

    def step(images: Tensor, labels: Tensor) -> None:
        network.zero_grad(set_to_none=True)
        instances = split_into_instances(images, instances_per_side).flatten(0, 1)
        logits = network(instances.contiguous(memory_format=torch.channels_last))
        loss(logits.reshape(len(images), -1), labels).backward()

    return step


STEPS = {"ours": selected_step, "naive": naive_step}


def measure_cmil(arguments: argparse.Namespace, kind: str, instances_per_side: int, results: Any) -> None:
    """Seconds of the fastest step and peak memory of one kind of step, in a process of its own."""
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    network = InstanceClassifier(arguments.backbone).to(device).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    size = arguments.image_size_px
    images = torch.randint(0, 256, (arguments.batch_size, 3, size, size), dtype=torch.uint8, device=device)
    labels = (torch.arange(arguments.batch_size, device=device) % 2).float()
    step = STEPS[kind](network, instances_per_side)
    before = peak_memory(device)
    seconds = []
    for _ in range(arguments.repeats + 1):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bfloat16):
            step(images, labels)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    # The fastest step: whatever else runs on the machine can only add to it.
    results.put({"seconds": min(seconds[1:]), "memory_mib": (peak_memory(device) - before) / 2**20})


def peak_memory(device: torch.device) -> int:
    """Highest memory so far in bytes: of the device on CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cmil(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both kinds of step for each N, turn by turn."""
    context = multiprocessing.get_context("spawn")
    rows = {}
    for instances_per_side in arguments.instances_per_side:
        measured = {}
        for kind in STEPS:
            results = context.Queue()
            process = context.Process(target=measure_cmil, args=(arguments, kind, instances_per_side, results))
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


def synthetic(arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds to generate one image with tumour, median over seeds."""
    seconds = []
    for seed in range(arguments.repeats):
        start = time.perf_counter()
        synthesize_image(seed, tumour_share=0.3, size_px=320)
        seconds.append(time.perf_counter() - start)
    row = {"median_ms": 1e3 * statistics.median(seconds), "min_ms": 1e3 * min(seconds)}
    print(f"320 px image: median {row['median_ms']:.0f} ms, minimum {row['min_ms']:.0f} ms")
    return row


def area_noise(arguments: argparse.Namespace) -> dict[str, Any]:
    """Region F and predicted area for every bias of the areas, mean and deviation over seeds; trains what is not finished."""
    fixed = {name: json.loads(text) for name, text in arguments.set}
    varied = {"area_offset": arguments.offsets, "seed": arguments.seeds}
    table = Sweep(arguments.config_file, varied, arguments.output_dir, fixed).run()
    # Of the fusion, which the table names last: single outputs stand before it.
    fusion = [name for name in map(str, table) if name.startswith("regions.") and name.endswith(".f_all")][-1].removesuffix(
        ".f_all"
    )
    metrics = [f"{fusion}.{score}" for score in ("f_all", "f_ca", "f_nc", "predicted_area_ca", "true_area_ca")]
    summary = summarise(table, list(varied), metrics, over=["seed"])
    print(summary.rename(columns=lambda name: name.removeprefix(f"{fusion}.")).to_string(index=False, float_format="%.4f"))
    return {str(row["area_offset"]): row for row in summary.to_dict("records")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    commands = parser.add_subparsers(dest="command", required=True)
    parser_cmil = commands.add_parser("cmil", help="a cMIL step, ours against the naive one")
    parser_cmil.add_argument("--backbone", default="resnet18")
    parser_cmil.add_argument("--image_size_px", type=int, default=320)
    parser_cmil.add_argument("--instances_per_side", type=int, nargs="+", default=[4, 8])
    parser_cmil.add_argument("--batch_size", type=int, default=4)
    parser_cmil.add_argument("--repeats", type=int, default=10)
    parser_cmil.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser_cmil.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser_cmil.add_argument("--bfloat16", action="store_true", help="autocast both kinds of step to bfloat16")
    parser_area = commands.add_parser("area-noise", help="CDWS-MIL trained with biased areas")
    parser_area.add_argument("--config_file", nargs="+", default=["bundles/cdws_mil/configs/train.json"])
    parser_area.add_argument("--offsets", type=float, nargs="+", default=[-0.2, -0.1, 0.0, 0.1, 0.2])
    parser_area.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser_area.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="JSON value of a key")
    parser_area.add_argument("--output_dir", type=Path, required=True, help="gets a folder a training")
    parser_synthetic = commands.add_parser("synthetic", help="generated images")
    parser_synthetic.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    results = {"cmil": cmil, "area-noise": area_noise, "synthetic": synthetic}[arguments.command](arguments)
    if arguments.json is not None:
        machine = {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
        arguments.json.write_text(json.dumps({"command": vars(arguments), **machine, "results": results}, indent=2, default=str))


if __name__ == "__main__":
    main()
