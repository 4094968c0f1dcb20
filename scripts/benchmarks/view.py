"""Speed of the page of maps: first view of a large slide, single squares, and outlines at another threshold."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from scripts.options.numbers import COUNT, number_above
from scripts.viewer.cohort import open_cohort
from scripts.viewer.layers import Layers
from scripts.viewer.outlines import draft_outlines, outlines_at
from scripts.viewer.zoom import TILE_PX, Zoom
from shared.inference import SlideMapper, Tiles

from .repeated_slide import MPP, write_repeated_slide

SCREEN_PX = (1400, 900)
THRESHOLDS = (0.2, 0.35, 0.5, 0.65, 0.8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size_px", type=COUNT, nargs=2, default=[100_000, 80_000], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument(
        "--tiles", type=COUNT, default=5120, help="256 px tiles with tissue, in patches of 64 tiles; the rest is glass"
    )
    parser.add_argument(
        "--field_um",
        type=number_above(0),
        default=64,
        help="side of the squares of equal probability: 64 gives hundreds of areas, 16 gives specks whose outlines take minutes "
        "to write",
    )
    parser.add_argument("--squares", type=COUNT, default=60, help="squares of each kind, at random places (default 60)")


class _Redness(nn.Module):
    """A classifier by redness, which makes a map with many areas at no cost.

    Args:
        field_px: side of a square of equal probability, in pixels of the slide.
    """

    def __init__(self, field_px: int) -> None:
        super().__init__()
        self.field_px = field_px

    def forward(self, images: Tensor) -> Tensor:
        means = functional.avg_pool2d(images, self.field_px)
        return (means[:, :1] - means[:, 1:2] - 60) / 12


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Map a generated slide, and time what the page does to show it."""
    with tempfile.TemporaryDirectory() as folder:
        slide, maps = Path(folder, "slide.tif"), Path(folder, "maps")
        write_repeated_slide(slide, tuple(arguments.size_px), arguments.tiles)
        SlideMapper(_Redness(round(arguments.field_um / MPP)), mpp=MPP, tiles=Tiles(1024, 0)).run(slide, maps)
        results = _measured(maps, arguments.squares)
    for name, (wall, cpu) in results.items():
        print(f"{name:44} {1000 * wall:8.1f} ms, {1000 * cpu:8.1f} ms of CPU time")
    return results


def _measured(maps: Path, count: int) -> dict[str, tuple[float, float]]:
    layers = Layers(open_cohort([maps]))
    found = {"first view: slide opened, a screen of squares": _timed(_first_view, layers)}
    zoom, draw = layers.zoom("slide"), random.Random(0)
    places = [_place(draw, draw.randint(0, zoom.deepest), zoom) for _ in range(count)]
    found["a square of the slide, median"] = _medians(_timed(layers.slide_square, "slide", place) for place in places)
    found["a square of the map, median"] = _medians(_timed(layers.map_square, 0, "slide", place, "viridis") for place in places)
    layers.reduced_map(0, "slide")
    drafts = [_timed(draft_outlines, layers, 0, "slide", at) for at in THRESHOLDS]
    found["outlines while the threshold moves, median"] = _medians(drafts)
    found["the same, slowest"] = max(drafts)
    found["all outlines when it rests, median"] = _medians(_timed(outlines_at, layers, 0, "slide", at) for at in THRESHOLDS)
    return found


def _first_view(layers: Layers) -> None:
    zoom = layers.zoom("slide")
    # The zoom at which the slide fills the screen.
    depth = next(one for one in range(zoom.deepest + 1) if max(zoom.size_px) / zoom.step(one) >= SCREEN_PX[0] / 2)
    side = TILE_PX * zoom.step(depth)
    for column in range(int(-(-zoom.size_px[0] // side))):
        for row in range(int(-(-zoom.size_px[1] // side))):
            layers.slide_square("slide", (depth, column, row))
            layers.map_square(0, "slide", (depth, column, row), "viridis")


def _place(draw: random.Random, depth: int, zoom: Zoom) -> tuple[int, int, int]:
    column, row = (draw.randrange(max(1, int(side // (TILE_PX * zoom.step(depth))))) for side in zoom.size_px)
    return depth, column, row


def _timed(action: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """Seconds of wall time and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    action(*arguments)
    return time.perf_counter() - wall, time.process_time() - cpu


def _medians(times: Iterable[tuple[float, float]]) -> tuple[float, float]:
    walls, cpus = zip(*times, strict=True)
    return median(walls), median(cpus)
