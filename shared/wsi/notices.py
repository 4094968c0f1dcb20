"""Warnings about files and what reads them, each given once in a process however often the file is opened."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

logger = logging.getLogger(__name__)

# Largest ratio of two pixel sizes that is not warned of: scanners and nominal magnifications differ by less.
LARGEST_MPP_RATIO = 1.25


@functools.lru_cache(maxsize=10_000)
def warn_once(message: str) -> None:
    """Log a warning, unless this one was logged before."""
    logger.warning("%s", message)


def warn_of_enlarged(own_mpp: float, mpp: float) -> None:
    """Log a warning, once, if images with pixels of `own_mpp` micrometres are read at an `mpp` that is finer by a quarter."""
    if own_mpp > mpp * LARGEST_MPP_RATIO:
        warn_once(
            f"images with pixels of {own_mpp:.3g} um are read at mpp={mpp:.3g}: they are enlarged {own_mpp / mpp:.2g} times "
            "and show no more detail than they have"
        )


def warn_of_other_mpp(
    encoder: str, own_mpp: float | None, used_mpp: float | None, key: str = "mpp", enlargement: float = 1.0
) -> None:
    """Log a warning, once, if an encoder is given images of another pixel size than it was trained at.

    Args:
        encoder: its name.
        own_mpp: micrometres per pixel that it was trained at; None for any.
        used_mpp: those of the images; None where they are not known.
        key: of the configuration that decides `used_mpp`.
        enlargement: of the images before its network, see `shared.encoders.Encoder`.
    """
    if own_mpp is None or used_mpp is None:
        return
    seen_mpp = used_mpp / enlargement
    if max(own_mpp / seen_mpp, seen_mpp / own_mpp) <= LARGEST_MPP_RATIO:
        return
    enlarged = "" if enlargement == 1 else f", enlarged {enlargement:g} times for features as close as asked for"
    warn_once(
        f"the encoder {encoder} was trained at {own_mpp:g} um per pixel and is given images of {used_mpp:.2g} um{enlarged}, "
        f"whose tissue looks {'smaller' if seen_mpp > own_mpp else 'larger'} than what it knows: set {key} to about "
        f"{own_mpp * enlargement:g} where the images have that detail"
    )


def warn_of_stated_mpp(folder: Path, program: str, stated_mpp: float | None, true_mpp: float | None) -> None:
    """Log a warning, once, if features were made of images of another pixel size than their files state.

    Args:
        folder: of the files.
        program: that has written them.
        stated_mpp: micrometres per pixel of the images, by the files; None where they do not say.
        true_mpp: the same by the slide's own pixel size; None where it is not known.
    """
    if stated_mpp is None or true_mpp is None:
        return
    if max(stated_mpp / true_mpp, true_mpp / stated_mpp) > LARGEST_MPP_RATIO:
        warn_once(
            f"{folder}: its files of {program} state {stated_mpp:.3g} um per pixel of the images that the encoder was given, and "
            f"by the pixel size of their slides some had {true_mpp:.2g} um, whose tissue looks "
            f"{'smaller' if true_mpp > stated_mpp else 'larger'} to it: leave such slides out, or store their features again at "
            f"{stated_mpp:.3g} um"
        )
