"""Computes an encoder's features of slides once and stores them. Resumable; runs in one process, in several, or on a Ray cluster.

python scripts/embed.py --manifest slides.csv --encoder efficientnet_lite0 --out features
python scripts/embed.py --manifest slides.csv --encoder efficientnet_lite0 --stride_px 16 --mpp 1 --split train --out features
python scripts/embed.py --manifest slides.csv --encoder efficientnet_lite0 --out features --engine ray --gpus_per_slide 1
python scripts/embed.py --manifest slides.csv --encoder my/encoder.pt2 --mean 0.7 0.5 0.7 --std 0.2 0.2 0.2 --out features

Every slide gets <name>.h5, which docs/features.md describes; trainings (--slide_features) and maps (--stored_features) read it,
as do TRIDENT and CLAM. For any encoder its options, pixel size, tiles and tissue have the same defaults here as in the bundles
that learn from slides.

The same command resumes after an interruption, even kill -9; finished slides are skipped. Several such commands with the same
output folder share the slides, also on several machines with a common file system. A slide that fails is tried once more at
the end; its row in slides.csv gives the reason. A folder contains the features of one encoder with one set of options: others
are refused.

Exit status: 0 when every slide is finished, 1 when any failed or the disk is full, 2 when nothing could be started, 3 when the
GPU stopped working, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.options.embedding import EmbeddingOptions
from scripts.options.engine import add_engine_options, checked_images, run_on_engine
from scripts.options.interruption import exit_with
from scripts.options.numbers import COUNT, COUNT_FROM_0, PIXEL_SIZE, number, number_above
from shared.front_door import begin_script

logger = logging.getLogger("embed")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--manifest", type=Path, required=True, help="manifest (.csv), slide, image, or folder of slides and images"
    )
    parser.add_argument("--split", help="split of the manifest: train, val or test (default: all rows)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the features")
    parser.add_argument("--stamp", action="store_true", help="also write <out>/stamp, files that STAMP reads as its own")
    encoder = parser.add_argument_group("encoder")
    encoder.add_argument("--encoder", required=True, help="source of the encoder, such as efficientnet_lite0")
    encoder.add_argument("--checkpoint_path", type=Path, help="file with weights for the encoder's network")
    encoder.add_argument(
        "--stride_px", type=COUNT, help="distance between features in pixels (default: the encoder's own stride)"
    )
    encoder.add_argument("--strides_px", type=COUNT, nargs="+", help="strides of the maps if there are several, finest first")
    encoder.add_argument(
        "--smoothing",
        type=COUNT,
        help="average each feature over this many cells per side (default 3; 1 for class and embedding)",
    )
    encoder.add_argument(
        "--tokens", default="dense", help="dense, class, dense+class or embedding, see docs/encoders.md (default dense)"
    )
    facts = parser.add_argument_group(
        "facts that the encoder's source does not state",
        "TorchScript and torch.export files state none of them, nor do weights in --checkpoint_path; no model of timm states its "
        "um per pixel. What a source states cannot be given.",
    )
    facts.add_argument("--mean", type=number(), nargs=3, help="mean of red, green and blue, as shares of 255 (0 to 1)")
    facts.add_argument("--std", type=number_above(0), nargs=3, help="standard deviation of red, green and blue, the same")
    facts.add_argument("--encoder_mpp", type=PIXEL_SIZE, help="um per pixel at which the encoder was trained (default: any)")
    facts.add_argument("--input_size_px", type=COUNT, help="side of the images on which the encoder was trained (default: any)")
    facts.add_argument("--licence", help="licence of the weights, which is recorded in the feature files")
    slides = parser.add_argument_group("slides")
    slides.add_argument(
        "--mpp", type=PIXEL_SIZE, help="um per pixel at which slides are read (default: the encoder's own, else 1)"
    )
    slides.add_argument("--slide_mpp", type=PIXEL_SIZE, help="um per level-0 pixel of slides that do not state it")
    slides.add_argument("--tile_mpp", type=PIXEL_SIZE, help="um per pixel of PNG, JPEG and BMP images that do not state it")
    slides.add_argument("--tile_size_px", type=COUNT, help="side of the encoder's images (default: its own, else about 512)")
    slides.add_argument(
        "--margin_px", type=COUNT_FROM_0, help="overlap of tiles on each side (default 64; 0 for an encoder with a fixed size)"
    )
    slides.add_argument("--whole_slides", dest="tissue_only", action="store_false", help="embed glass too, not only tissue")
    slides.add_argument("--tissue_method", help="how tissue is found (default otsu)")
    slides.add_argument(
        "--tissue_dir", type=Path, help="folder in which training keeps the slides' tissue masks; new ones are saved there too"
    )
    slides.add_argument(
        "--tissue_mpp", type=PIXEL_SIZE, default=8.0, help="um per pixel of the masks in which tissue is found (default 8)"
    )
    compute = parser.add_argument_group("compute")
    compute.add_argument("--batch_size", type=COUNT, help="tiles per batch (default 16, more on GPUs)")
    compute.add_argument(
        "--num_workers", type=COUNT, help="threads that read ahead and compress (default: one per core, 16 at most)"
    )
    compute.add_argument("--device", help="device on which to compute (default: cuda if available, else cpu)")
    compute.add_argument(
        "--compile", action="store_true", help="compile the encoder with torch.compile: takes a minute once, then runs faster"
    )
    add_engine_options(parser, "code, weights, slides and --out")
    return parser.parse_args()


def options_of(arguments: argparse.Namespace) -> EmbeddingOptions:
    given = {field.name: getattr(arguments, field.name) for field in fields(EmbeddingOptions)}
    return EmbeddingOptions(**given | {"strides_px": arguments.strides_px and tuple(arguments.strides_px)})


def run(arguments: argparse.Namespace) -> int:
    """Find the images and embed them; the exit status."""
    from shared.features.slide_features import FEATURES_SUFFIX

    images = checked_images(arguments.manifest, arguments.split, arguments.out, (FEATURES_SUFFIX,))
    if images is None:
        return 2
    if arguments.tissue_dir is not None and not arguments.tissue_dir.is_dir():
        logger.info("--tissue_dir %s does not exist and is made: the tissue of every slide is detected", arguments.tissue_dir)
    logger.info("%s: %d images; loading PyTorch", arguments.manifest, len(images))
    status = run_on_engine(options_of(arguments).build, images, arguments, "embedded")
    return link(arguments.out) if arguments.stamp and status == 0 else status


def link(folder: Path) -> int:
    """Make the features known to STAMP; the exit status."""
    from shared.features import link_for_stamp
    from shared.writers import StorageError

    try:
        written = link_for_stamp(folder)
    except (ValueError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{folder / 'stamp'}: {len(written)} files for STAMP")
    return 0


def main() -> None:
    begin_script()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    arguments = parsed()
    exit_with(lambda: run(arguments))


if __name__ == "__main__":
    main()
