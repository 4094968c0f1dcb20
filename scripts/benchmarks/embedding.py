"""Tiles per second when embedding a slide end to end, compared with the encoder's pure forward rate in the same run."""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from scripts.options.numbers import COUNT, COUNT_FROM_0
from shared.encoders import load_encoder
from shared.inference import Compute, ImageInput, SlideEmbedder
from shared.inference.row import Row

from .inference import Paused, PureForward, forward_kinds
from .repeated_slide import MPP, write_repeated_slide


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--slide", type=Path, help="slide to embed (default: a generated one)")
    parser.add_argument("--size_px", type=COUNT, nargs=2, default=[12288, 10240], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument(
        "--tiles", type=COUNT, default=1280, help="256 px tiles with tissue in the generated slide; the rest is glass"
    )
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--stride_px", type=COUNT)
    parser.add_argument("--smoothing", type=COUNT, default=1)
    parser.add_argument("--tile_size_px", type=COUNT)
    parser.add_argument("--margin_px", type=COUNT_FROM_0)
    parser.add_argument("--batch_size", type=COUNT, default=16)
    parser.add_argument("--num_workers", type=COUNT, default=2)
    parser.add_argument("--threads", type=COUNT, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--pauses",
        type=COUNT,
        default=16,
        help="pauses during the run, in each of which every kind of pure forward pass is timed",
    )
    parser.add_argument("--pause_batches", type=COUNT, default=2, help="batches of each kind per pause")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Embed a slide once, and time the encoder alone in pauses, so that other processes disturb both equally."""
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    encoder = load_encoder(arguments.encoder, arguments.stride_px, arguments.smoothing)
    kinds = forward_kinds(encoder, device, is_compiled=arguments.compile)
    embedder = SlideEmbedder(
        load_encoder(arguments.encoder, arguments.stride_px, arguments.smoothing),
        mpp=MPP,
        tile_size_px=arguments.tile_size_px,
        margin_px=arguments.margin_px,
        compute=Compute(arguments.batch_size, device, compile=arguments.compile, num_workers=arguments.num_workers),
    )
    side = embedder.tile_size_px
    images = torch.randint(0, 256, (arguments.batch_size, 3, side, side), device=device).float()
    alone = PureForward(kinds, images.contiguous(memory_format=torch.channels_last), device)
    with torch.inference_mode():
        tiles = torch.zeros(arguments.batch_size, side, side, 3, dtype=torch.uint8, device=device)
        embedder.tile_network(tiles, (side // embedder.cell_px,) * 2)
        alone.measure(1)
    alone.reset()
    with tempfile.TemporaryDirectory() as folder:
        slide = arguments.slide or Path(folder, "slide.tif")
        if arguments.slide is None:
            write_repeated_slide(slide, tuple(arguments.size_px), arguments.tiles)
        # Loads what a process loads only once for reading slides and finding tissue.
        with embedder._open_slide(ImageInput(slide, "slide")) as opened:
            num_batches = int(opened.wanted.sum()) // arguments.batch_size
        step = max(2, num_batches // arguments.pauses)
        paused = Paused(embedder.tile_network, alone, step, arguments.pause_batches)
        embedder.tile_network = paused  # type: ignore[assignment]
        started = time.perf_counter()
        row = embedder.map_image(ImageInput(slide, "slide"), Path(folder))
        seconds = time.perf_counter() - started - paused.seconds
    embedder.stopwatch.seconds["network"] -= paused.seconds
    return _report(row, seconds, alone.rates(), embedder.stopwatch.seconds, side)


def _report(row: Row, seconds: float, rates: dict[str, float], stages: dict[str, float], side: int) -> dict[str, Any]:
    best = max(rates, key=lambda kind: rates[kind])
    rate = row["num_tiles"] / seconds
    # ru_maxrss is in KiB on Linux.
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"slide of {row['width_px']} x {row['height_px']} px, {row['num_tiles']} tiles of {side} px at {MPP} um per pixel: "
        f"{row['num_features']} features in {row['file_mb']:.1f} MB"
    )
    print("stages: " + ", ".join(f"{name} {value:.1f} s" for name, value in stages.items()))
    print("pure forward pass, tiles/s: " + ", ".join(f"{kind} {value:.2f}" for kind, value in rates.items()))
    print(f"end to end {rate:.2f} tiles/s in {seconds:.1f} s: {rate / rates[best]:.1%} of {best}; peak memory {peak_gib:.2f} GiB")
    return {
        "tiles": row["num_tiles"],
        "features": row["num_features"],
        "file_mb": row["file_mb"],
        "tiles_per_s": rate,
        "pure_tiles_per_s": rates,
        "of_best_pure": rate / rates[best],
        "stages_s": stages,
        "peak_gib": peak_gib,
    }
