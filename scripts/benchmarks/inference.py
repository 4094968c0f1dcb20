"""Tiles per second when mapping a slide end to end, compared with the network's pure forward rate in the same run."""

from __future__ import annotations

import argparse
import copy
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scripts.options.numbers import COUNT, COUNT_FROM_0
from shared.inference import Compute, ImageInput, SlideMapper, Tiles
from shared.inference.row import Row
from shared.networks import InstanceClassifier
from shared.networks.precision import computes_bfloat16

from .repeated_slide import MPP, PATCH_PX, TILE_PX, write_repeated_slide

# In a pause the reading threads first fill their queue, so that they do not disturb the measurement of the network.
_SETTLE_STEP_S, _IDLE_SHARE = 0.05, 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size_px", type=COUNT, nargs=2, default=[24576, 20480], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument(
        "--tiles", type=COUNT, default=5120, help="256 px tiles with tissue, in patches of 64 tiles; the rest is glass"
    )
    parser.add_argument("--slide", type=Path, help="keep the generated slide at this path, or use the one already there")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch_size", type=COUNT, default=32)
    parser.add_argument("--margin_px", type=COUNT_FROM_0, default=0)
    parser.add_argument("--stitching", default="crop")
    parser.add_argument("--tta", default="none")
    parser.add_argument("--num_workers", type=COUNT, default=2)
    parser.add_argument("--threads", type=COUNT, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no_compile", action="store_true")
    parser.add_argument(
        "--pauses",
        type=COUNT,
        default=32,
        help="pauses during the run, in each of which every kind of pure forward pass is timed",
    )
    parser.add_argument("--pause_batches", type=COUNT, default=3, help="batches of each kind per pause")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Map the slide once, and time the network alone in pauses, so that other processes disturb both equally."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import shared.inference"], check=True, cwd=Path(__file__).parents[2], capture_output=True
    )
    startup = {"import": time.perf_counter() - started}
    device = torch.device(arguments.device)
    network = InstanceClassifier(arguments.backbone).eval()
    kinds = forward_kinds(copy.deepcopy(network), device, is_compiled=not arguments.no_compile)
    images = torch.randint(0, 256, (arguments.batch_size, 3, TILE_PX, TILE_PX), device=device).float()
    alone = PureForward(kinds, images.contiguous(memory_format=torch.channels_last), device)
    mapper = SlideMapper(
        network,
        mpp=MPP,
        tiles=Tiles(TILE_PX, arguments.margin_px, arguments.stitching, arguments.tta),
        compute=Compute(arguments.batch_size, device, compile=not arguments.no_compile, num_workers=arguments.num_workers),
    )
    tiles = torch.zeros(arguments.batch_size, TILE_PX, TILE_PX, 3, dtype=torch.uint8, device=device)
    with torch.inference_mode():
        started = time.perf_counter()
        mapper.tile_network(tiles, (TILE_PX // 4, TILE_PX // 4))
        startup["first batch"] = time.perf_counter() - started
        alone.measure(arguments.pause_batches)
    alone.reset()
    with tempfile.TemporaryDirectory() as folder:
        startup["first slide"] = _map_one_patch(mapper, Path(folder))
        slide = arguments.slide or Path(folder, "slide.tif")
        if not slide.is_file():
            write_repeated_slide(slide, tuple(arguments.size_px), arguments.tiles)
        step = max(1, arguments.tiles // arguments.batch_size // arguments.pauses)
        paused = Paused(mapper.tile_network, alone, step, arguments.pause_batches)
        mapper.tile_network = paused  # type: ignore[assignment]
        started = time.perf_counter()
        row = mapper.map_image(ImageInput(slide, "slide"), Path(folder))
        seconds = time.perf_counter() - started - paused.seconds
    mapper.stopwatch.seconds["network"] -= paused.seconds
    return _report(row, seconds, alone.rates(), startup, mapper.stopwatch.seconds)


def _map_one_patch(mapper: SlideMapper, folder: Path) -> float:
    """Extra seconds of a process's first slide, in which code for reading, tissue detection and results is loaded."""
    path = folder / "first.tif"
    write_repeated_slide(path, (PATCH_PX, PATCH_PX), 1)
    seconds = []
    for name in ("first", "again"):
        started = time.perf_counter()
        mapper.map_image(ImageInput(path, name), folder)
        seconds.append(time.perf_counter() - started)
    mapper.stopwatch.seconds.clear()
    # On a busy machine the second slide may be the slower one.
    return max(0.0, seconds[0] - seconds[1])


def forward_kinds(network: nn.Module, device: torch.device, is_compiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """The kinds of forward pass of the network alone, on images that are already on the device."""
    nchw, nhwc = network.to(device), copy.deepcopy(network).to(device)
    nhwc.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]
    is_bfloat16 = computes_bfloat16(device)

    def bfloat16(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16) if is_bfloat16 else nullcontext():
            return nhwc(images)

    kinds: dict[str, Callable[[Tensor], Tensor]] = {"fp32 NCHW": lambda images: nchw(images.contiguous())}
    kinds["bf16 NHWC" if is_bfloat16 else "fp32 NHWC"] = bfloat16
    if is_compiled:
        kinds["compiled"] = torch.compile(bfloat16, dynamic=False, options={"freezing": device.type == "cpu"})
    return kinds


class PureForward:
    """Times several kinds of forward pass in turn."""

    def __init__(self, kinds: dict[str, Callable[[Tensor], Tensor]], images: Tensor, device: torch.device) -> None:
        self.kinds, self.images, self.device = kinds, images, device
        self.reset()

    def reset(self) -> None:
        """Discard the times measured so far."""
        self.seconds = dict.fromkeys(self.kinds, 0.0)
        self.batches = dict.fromkeys(self.kinds, 0)

    def measure(self, num_batches: int) -> None:
        for kind, forward in self.kinds.items():
            # One batch is enough for the slowest kind, because the map is compared with the fastest.
            count = 1 if kind == "fp32 NCHW" else num_batches
            _wait_for(self.device)
            started = time.perf_counter()
            for _ in range(count):
                forward(self.images)
            _wait_for(self.device)
            self.seconds[kind] += time.perf_counter() - started
            self.batches[kind] += count

    def rates(self) -> dict[str, float]:
        return {kind: len(self.images) * self.batches[kind] / self.seconds[kind] for kind in self.kinds}


class Paused:
    """The mapper's network, with a pause for `PureForward` every `step` batches."""

    def __init__(self, network: Callable, alone: PureForward, step: int, num_batches: int) -> None:
        self.network, self.alone, self.step, self.num_batches = network, alone, step, num_batches
        self.calls, self.seconds = 0, 0.0

    def __call__(self, tiles: Tensor, map_shape: tuple[int, int]) -> Tensor:
        self.calls += 1
        if self.calls % self.step == self.step // 2:
            _wait_for(tiles.device)
            started = time.perf_counter()
            reading = _wait_until_idle()
            self.alone.measure(self.num_batches)
            # The tiles read meanwhile are part of the map, so their time counts.
            self.seconds += time.perf_counter() - started - reading / torch.get_num_threads()
        return self.network(tiles, map_shape)


def _wait_until_idle() -> float:
    """Wait until the other threads of this process are idle; return the CPU seconds that they used until then."""
    total = 0.0
    while True:
        before = time.process_time()
        time.sleep(_SETTLE_STEP_S)
        used = time.process_time() - before
        total += used
        if used < _IDLE_SHARE * _SETTLE_STEP_S:
            return total


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _report(
    row: Row, seconds: float, rates: dict[str, float], startup: dict[str, float], stages: dict[str, float]
) -> dict[str, Any]:
    best = max(rates, key=lambda kind: rates[kind])
    rate = row["num_tiles"] / seconds
    # ru_maxrss is in KiB on Linux.
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"slide of {row['width_px']} x {row['height_px']} px, {row['num_tiles']} tiles of {TILE_PX} px at {MPP} um per pixel")
    print("start-up: " + ", ".join(f"{name} {value:.1f} s" for name, value in startup.items()))
    print("stages: " + ", ".join(f"{name} {value:.1f} s" for name, value in stages.items()))
    print("pure forward pass, tiles/s: " + ", ".join(f"{kind} {value:.1f}" for kind, value in rates.items()))
    print(f"end to end {rate:.1f} tiles/s in {seconds:.1f} s: {rate / rates[best]:.1%} of {best}; peak memory {peak_gib:.2f} GiB")
    print(f"{rate / rates['fp32 NCHW']:.2f} times fp32 NCHW")
    return {
        "tiles": row["num_tiles"],
        "tiles_per_s": rate,
        "pure_tiles_per_s": rates,
        "of_best_pure": rate / rates[best],
        "of_fp32_nchw": rate / rates["fp32 NCHW"],
        "startup_s": startup,
        "stages_s": stages,
        "peak_gib": peak_gib,
    }
