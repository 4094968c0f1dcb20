"""What a device computes, compared with the CPU: maps of a generated slide, and the augmentation of tiles.

python -m scripts.gpu_check.computed map_bf16 cuda:0
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from torch import nn

from shared.data import TileAugmentation
from shared.inference import Compute, Outputs, SlideMapper, Tiles
from shared.inference.inputs import ImageInput
from shared.networks import InstanceClassifier
from shared.synthetic import DemoPlan, SlidePlan, write_demo

TILE_PX = 112
# Of 255 steps of probability; bfloat16 has three digits.
MOST_STEPS = {"map_fp32": 2, "map_bf16": 12, "map_compiled": 12}
# Of 255; on GPUs sums are added up in another order.
MOST_COLOUR = 0.05
ROUNDS = 10


def decided_network() -> nn.Module:
    """A network whose answers go from 0 to 1, as those of a trained one do, so that differences show."""
    torch.manual_seed(0)
    network = InstanceClassifier("resnet18", dense_stride=16).eval()
    with torch.inference_mode():
        answers = network(torch.randint(0, 256, (8, 3, TILE_PX, TILE_PX)).float())
    *_, weight, bias = network.parameters()
    scale = 2 / answers.std()
    with torch.no_grad():
        bias.sub_(answers.mean()).mul_(scale)
        weight.mul_(scale)
    return network


def map_of(slide: Path, device: str, amp: bool, compiled: bool) -> NDArray[np.int64]:
    """Probabilities 0 to 255 of the slide's map, made on a device."""
    compute = Compute(device=device, amp=amp, compile=compiled, num_workers=4)
    tiles, outputs = Tiles(tile_size_px=TILE_PX, margin_px=0), Outputs(map_downsample=1)
    with tempfile.TemporaryDirectory() as folder:
        mapper = SlideMapper(decided_network(), mpp=1.0, tiles=tiles, outputs=outputs, compute=compute)
        mapper.map_image(ImageInput(slide, "slide"), folder)
        return tifffile.imread(Path(folder, "slide.ome.tif")).astype(np.int64)


def compare_maps(kind: str, device: str) -> str:
    """The map of a device compared with that of the CPU in float32.

    Raises:
        ValueError: if they differ by more than the precision explains.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_demo(folder, DemoPlan(images={}, slides=(SlidePlan("test", 0.3, (560, 720)),)))
        slide = next(Path(folder, "slides").iterdir())
        expected = map_of(slide, "cpu", amp=False, compiled=False)
        found = map_of(slide, device, amp=kind != "map_fp32", compiled=kind == "map_compiled")
    most = int(np.abs(found - expected).max())
    said = f"at most {most}/255 from the map of the CPU, which ranges from {expected.min()} to {expected.max()} ({device})"
    if most > MOST_STEPS[kind]:
        raise ValueError(f"the map differs by {most}/255; expected {MOST_STEPS[kind]} at most: {said}")
    return said


def compare_augmentation(device: str) -> str:
    """Augmented tiles of a device compared with those of the CPU, drawn alike.

    Raises:
        ValueError: if they differ.
    """
    tiles = torch.randint(0, 256, (32, 3, 224, 224), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    augment = TileAugmentation(colour_jitter=0.2, hue_jitter=0.05, stain_jitter=0.2)

    def drawn(on: str) -> torch.Tensor:
        torch.manual_seed(0)
        return augment(tiles.to(on))

    most = float((drawn(device).cpu() - drawn("cpu")).abs().max())
    if most > MOST_COLOUR:
        raise ValueError(f"augmented tiles differ by {most:.3g} of 255; expected {MOST_COLOUR} at most")
    own, others = (_seconds(augment, tiles.to(on)) for on in (device, "cpu"))
    return f"at most {most:.2g}/255 from the CPU's; {others / own:.3g} times as fast as the CPU"


def _seconds(augment: TileAugmentation, tiles: torch.Tensor) -> float:
    for _ in range(2):
        augment(tiles)
    _wait_for(tiles.device)
    started = time.perf_counter()
    for _ in range(ROUNDS):
        augment(tiles)
    _wait_for(tiles.device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*MOST_STEPS, "augmentation"])
    parser.add_argument("device")
    arguments = parser.parse_args()
    is_map = arguments.kind != "augmentation"
    try:
        said = compare_maps(arguments.kind, arguments.device) if is_map else compare_augmentation(arguments.device)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(said)


if __name__ == "__main__":
    main()
