"""The masks of published data sets, whose pixels are codes, rewritten as class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...writers.atomic import atomic_path

_NUM_CODES = 256


def read_codes(path: str | Path) -> NDArray[np.uint8]:
    """The codes of a published mask, uint8 ``(H, W)``: grey values, indices of a palette, or a colour's three equal channels.

    Raises:
        ValueError: naming the file, if it cannot be read, has other than 8 bits, or shows colours in place of codes.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "P", "LA", "RGB", "RGBA"):
                raise ValueError(f"its pixels are of Pillow mode {image.mode}, not 8-bit")
            pixels = np.asarray(image)
    except Exception as error:  # damage: besides OSError anything from SyntaxError (Pillow) to zlib's errors
        raise ValueError(f"the mask {path} cannot be read ({error}): unpack it again") from error
    if pixels.ndim == 2:
        return pixels.astype(np.uint8)
    colours = pixels[..., : 1 if pixels.shape[-1] == 2 else 3]
    if (colours != colours[..., :1]).any():
        raise ValueError(f"the mask {path} is in colour: expected one code per pixel, in one channel or in three equal ones")
    return colours[..., 0]


def class_indices(codes: NDArray[np.uint8], classes: Mapping[int, int], path: str | Path) -> NDArray[np.uint8]:
    """Class index of each code.

    Args:
        codes: any shape.
        classes: index by code; a code that is not in it is an error.
        path: of the mask, for the error.

    Raises:
        ValueError: naming file, code and what is known.
    """
    table = np.full(_NUM_CODES, -1, dtype=np.int16)
    table[list(classes)] = list(classes.values())
    indices = table[codes]
    if indices.min(initial=0) < 0:
        known = ", ".join(map(str, sorted(classes)))
        raise ValueError(f"the mask {path} has a pixel of value {codes[indices < 0][0]}, which is not one of the codes {known}")
    return indices.astype(np.uint8)


def object_classes(label: int) -> dict[int, int]:
    """Classes of masks in which 0 is background and every other code is an object of class `label`."""
    return {code: label if code else 0 for code in range(_NUM_CODES)}


def write_class_mask(source: str | Path, target: str | Path, classes: Mapping[int, int]) -> NDArray[np.uint8]:
    """Write a published mask again as a PNG of class indices, see `write_indices`.

    Args:
        source: the published mask.
        target: ``.png`` to write.
        classes: see `class_indices`.

    Returns:
        The class indices, ``(H, W)``.

    Raises:
        ValueError: see `read_codes` and `class_indices`.
    """
    indices = class_indices(read_codes(source), classes, source)
    write_indices(indices, target)
    return indices


def write_indices(indices: NDArray[np.uint8], target: str | Path) -> None:
    """Write class indices ``(H, W)`` as a PNG, unless an earlier run has written this very mask."""
    target = Path(target)
    if not _holds(target, indices):
        with atomic_path(target) as temporary:
            Image.fromarray(indices).save(temporary, format="PNG")


def _holds(path: Path, indices: NDArray[np.uint8]) -> bool:
    # Not by dates, which tell nothing where the data were copied.
    try:
        return path.is_file() and np.array_equal(read_codes(path), indices)
    except ValueError:
        return False


def main_class(indices: NDArray[np.uint8], but: Sequence[int] = (0,)) -> int:
    """The class of most pixels, without those of the classes `but` unless there are no others; the lowest where several tie.

    >>> main_class(np.array([0, 0, 0, 2, 2, 1], dtype=np.uint8)), main_class(np.zeros(4, dtype=np.uint8))
    (2, 0)
    """
    counts = np.bincount(indices.ravel())
    others = counts.copy()
    others[[index for index in but if index < len(others)]] = 0
    return int(np.argmax(others if others.any() else counts))
