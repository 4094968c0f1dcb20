"""Images through a mapper on this machine or on a Ray cluster: options, and the run with its exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.inference import ImageInput
    from shared.inference.cohort.worker import Mapper

# In a folder of maps from stored features: where these lie.
from .numbers import number, number_above

EMBEDDED = "embedded.json"


def add_engine_options(parser: argparse.ArgumentParser, needed_everywhere: str) -> None:
    """Add the options that select where the work is done.

    Args:
        parser: gets them.
        needed_everywhere: what has to lie at the same paths on every machine of a cluster.
    """
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="where slides are processed (default local: in this process)"
    )
    ray = parser.add_argument_group(f"with --engine ray; {needed_everywhere} at the same paths on every machine")
    ray.add_argument(
        "--address",
        help="address of the cluster ('auto': the one that this machine belongs to; default: start one on this machine alone)",
    )
    ray.add_argument("--cpus_per_slide", type=number_above(0), default=2, help="cores per slide (default 2)")
    ray.add_argument("--gpus_per_slide", type=number(0), default=0, help="GPUs per slide; fractions are allowed (default 0)")


def checked_images(manifest: Path, split: str | None, out: Path, suffixes: Sequence[str]) -> list[ImageInput] | None:
    """The images of a manifest, and an output folder that can be written to; None where something is wrong, which is printed.

    Args:
        manifest: or a slide, an image or a folder.
        split: of the manifest.
        out: the output folder.
        suffixes: endings of the files of an image that are written there; they must not replace what is read.
    """
    from shared.inference import find_images
    from shared.synthetic import demo_manifest
    from shared.writers import check_writable

    try:
        images = find_images(demo_manifest(manifest), split, out, suffixes)
        check_writable(out)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return None
    return images


def run_on_engine(build: Callable[[], Mapper], images: Sequence[ImageInput], arguments: argparse.Namespace, done: str) -> int:
    """Do what is left to do of some images.

    Args:
        build: makes the mapper: here, or in the processes of the cluster.
        images: with names of their own.
        arguments: of `add_engine_options`, and `out`.
        done: what is then said of an image: mapped, embedded.

    Returns:
        0 when every image is finished, 1 when any failed or the disk is full, 2 when nothing could be started, 3 when the
        device computes no more.
    """
    from shared.inference.bundle_mapper import first_cause
    from shared.inference.cohort.cohort import InferenceFailures, run_cohort
    from shared.inference.cohort.finished import FINISHED, SKIPPED
    from shared.inference.cohort.ray_cohort import RayCohort
    from shared.inference.device_errors import DeviceFailure
    from shared.writers import StorageError

    try:
        mapper = None if arguments.engine == "ray" else build()
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        print(f"error: {first_cause(error)}", file=sys.stderr)
        return 2
    try:
        if mapper is None:
            ray = RayCohort(build, arguments.address, arguments.cpus_per_slide, arguments.gpus_per_slide)
            rows = ray.run(images, arguments.out)
        else:
            rows = run_cohort(mapper, images, arguments.out)
    except (InferenceFailures, StorageError) as failures:
        print(f"error: {failures}", file=sys.stderr)
        return 1
    except DeviceFailure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 3
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = {status: sum(row["status"] == status for row in rows) for status in (*FINISHED, SKIPPED)}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    num_done = len(rows) - counts[SKIPPED]
    print(f"{arguments.out}: {len(images)} images, {num_done} {done} now{f' ({said})' if said else ''}")
    return 0
