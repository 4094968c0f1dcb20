"""Maps a cohort of slides with a bundle's network. Resumable; runs in one process, in several, or on a Ray cluster.

python scripts/infer.py --manifest slides.csv --bundle bundles/camel --out maps --model_dir runs/mine
python scripts/infer.py --manifest slides.csv --bundle bundles/camel --out maps --checkpoint model.pt --threshold 0.4
python scripts/infer.py --manifest slides.csv --bundle bundles/camel --out maps --model_dir runs/mine --gpus all
python scripts/infer.py --manifest slides.csv --bundle bundles/camel --out maps --overlay features --model_dir runs/mine \
    --embed_into features
python scripts/infer.py --manifest slides.csv --bundle bundles/camel --out maps --engine ray --address auto --gpus_per_slide 1

The same command resumes after an interruption, even kill -9; finished slides, including those without tissue, are skipped.
Several such commands with the same output folder share the slides, also on several machines with a common file system (see
`shared.inference.cohort.row_store.RowStore` on its locks); --gpus starts one process per GPU of this machine. A slide that
fails is tried once more at the end; its row in slides.csv gives the reason.

Any other --key value sets a key of the bundle's inference.json, as with `python -m monai.bundle run`.

Exit status: 0 when every slide is finished, 1 when any failed or the disk is full, 2 when nothing could be started, 3 when the
GPU stopped working (the slide that it was working on stays unfinished and is mapped by another process or by the same command
again), 130 when interrupted.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.options.engine import EMBEDDED, add_engine_options, checked_images, run_on_engine
from scripts.options.gpus import ALL, chosen_gpus, run_on_gpus
from scripts.options.interruption import exit_with
from shared.front_door import begin_script
from shared.writers import contended_path

if TYPE_CHECKING:
    from shared.inference import ImageInput

logger = logging.getLogger("infer")


def overrides_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Keys and values of ``--key value`` and ``--key=value``, the values read as MONAI's command line does.

    >>> overrides_of(["--batch_size", "32", "--network_def::backbone=resnet18", "--volume", "None"])
    {'batch_size': 32, 'network_def::backbone': 'resnet18', 'volume': None}
    """
    from fire.parser import DefaultParseValue

    found: dict[str, Any] = {}
    left = list(arguments)
    while left:
        key, has_value, value = left.pop(0).partition("=")
        if not key.startswith("--") or (not has_value and not left):
            raise ValueError(f"expected --key value, got {key!r} {'without a value' if key.startswith('--') else ''}".strip())
        found[key[2:]] = DefaultParseValue(value if has_value else left.pop(0))
    return found


def checkpoint_of(model_dir: Path) -> Path:
    """The trained network in a training's output folder.

    Raises:
        ValueError: if there is none.
    """
    path = model_dir / "model.pt"
    if not path.is_file():
        raise ValueError(f"{model_dir} holds no model.pt: give the output folder of a finished training")
    return path


def parsed() -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--manifest", type=Path, required=True, help="manifest (.csv), slide, image, or folder of slides and images"
    )
    parser.add_argument("--split", help="split of the manifest: train, val or test (default: all rows)")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--overlay", nargs="+", default=[], help="overlays of inference.json, as in training, such as unet")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--model_dir", type=Path, help="output folder of the training, with its model.pt")
    weights.add_argument("--checkpoint", nargs="+", type=Path, help="model.pt; several files if the bundle averages several")
    parser.add_argument(
        "--embed_into",
        type=Path,
        metavar="FOLDER",
        help="first store the features of the network's encoder, in a subfolder named after all their settings, and map from "
        "them: other heads on this encoder then map the same slides in seconds",
    )
    parser.add_argument("--gpus", help=f"start one process on each of these GPUs: {ALL}, or numbers such as 0,1")
    add_engine_options(parser, "code, bundle, slides and --out")
    arguments, rest = parser.parse_known_args()
    try:
        overrides = overrides_of(rest)
        if arguments.gpus is not None and (arguments.engine == "ray" or "device" in overrides):
            raise ValueError(
                "--gpus already selects the devices: it cannot be combined with --engine ray (use --gpus_per_slide) or --device"
            )
        if arguments.model_dir is not None:
            overrides["checkpoint"] = str(checkpoint_of(arguments.model_dir))
        elif arguments.checkpoint is not None:
            overrides["checkpoints"] = [str(path) for path in arguments.checkpoint]
    except ValueError as error:
        parser.error(str(error))
    return arguments, overrides


def run(arguments: argparse.Namespace, overrides: dict[str, Any]) -> int:
    """Find the images and map them; the exit status."""
    from shared.inference.outputs.slide_results import REPLACED_SUFFIXES

    images = checked_images(arguments.manifest, arguments.split, arguments.out, REPLACED_SUFFIXES)
    if images is None:
        return 2
    logger.info("%s: %d images; loading PyTorch and MONAI", arguments.manifest, len(images))
    return map_images(images, arguments, overrides) if arguments.gpus is None else share_among_gpus(arguments.gpus)


def share_among_gpus(given: str) -> int:
    """This command once more for each GPU, without ``--gpus``; the exit status."""
    try:
        gpus = chosen_gpus(given)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options = [*sys.argv[1:]]
    place = next(index for index, word in enumerate(options) if word.partition("=")[0] == "--gpus")
    del options[place : place + (1 if "=" in options[place] else 2)]
    # Not a CPU in silence, where the process does not see its GPU.
    options += ["--device", "cuda"]
    if not any(word.partition("=")[0] == "--num_workers" for word in options):
        from shared.front_door.cores import available_cores
        from shared.inference.mapper_options import MOST_THREADS

        # They share the cores.
        options += ["--num_workers", str(max(1, min(MOST_THREADS, available_cores() // len(gpus))))]
    return run_on_gpus([sys.executable, str(Path(__file__).resolve()), *options], gpus)


def map_images(images: Sequence[ImageInput], arguments: argparse.Namespace, overrides: dict[str, Any]) -> int:
    """Map images; the exit status."""
    # Here, because PyTorch and MONAI take seconds to start: errors in the options are reported before.
    from shared.inference.bundle_mapper import load_slide_mapper

    if arguments.embed_into is not None:
        status, overrides["stored_features"] = embed_first(images, arguments, overrides)
        if status not in (0, 1):  # a slide that fails is a row of the maps too
            return status
        with contended_path(arguments.out / EMBEDDED) as temporary:
            temporary.write_text(json.dumps({"folder": overrides["stored_features"]}) + "\n")
    build = functools.partial(load_slide_mapper, str(arguments.bundle), arguments.overlay, overrides)
    return run_on_engine(build, images, arguments, "mapped")


def embed_first(images: Sequence[ImageInput], arguments: argparse.Namespace, overrides: dict[str, Any]) -> tuple[int, str]:
    """Store the features of the network's encoder for the images; return the exit status and the folder."""
    from shared.inference.bundle_mapper import first_cause, load_slide_embedder

    build = functools.partial(load_slide_embedder, str(arguments.bundle), arguments.overlay, overrides)
    try:
        folder = arguments.embed_into / build().folder_name
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        print(f"error: {first_cause(error)}", file=sys.stderr)
        return 2, ""
    into = argparse.Namespace(**vars(arguments) | {"out": folder})
    return run_on_engine(build, images, into, "embedded"), str(folder)


def main() -> None:
    begin_script()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    arguments, overrides = parsed()
    exit_with(lambda: run(arguments, overrides))


if __name__ == "__main__":
    main()
