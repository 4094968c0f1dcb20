"""The coordinate frame of a viewer; everything else in the server is in level-0 pixels."""

from __future__ import annotations

import functools
from pathlib import Path

from shared.inference.region_map import Box
from shared.wsi.annotations.frames import LEVEL0, frame_origin_px
from shared.wsi.slide import Slide

from .refusal import Refusal

# Formats of the Digital Slide Archive and MONAI Label's own JSON; the others are QuPath's.
_OF_LEVEL0 = frozenset({"dsa", "json"})


def frame_of_viewer(output: str, asked: str | None, default: str) -> str:
    """The frame of a request and its answer, one of `ANNOTATION_FRAMES`.

    Args:
        output: format of the answer.
        asked: frame that the request names; None if it names none.
        default: the server's frame for QuPath's formats.

    >>> frame_of_viewer("asap", None, "qupath"), frame_of_viewer("dsa", None, "qupath"), frame_of_viewer("dsa", "qupath", "")
    ('qupath', 'level0', 'qupath')
    """
    return asked or (LEVEL0 if output in _OF_LEVEL0 else default)


def frame_origin_of_slide(path: Path, frame: str) -> tuple[int, int]:
    """(x, y) in level-0 pixels of a frame's origin on a slide.

    Raises:
        Refusal: if the slide cannot be read.
    """
    if frame == LEVEL0:
        return 0, 0
    try:
        status = path.stat()
        return frame_origin_px(frame, _qupath_origin_px(path, status.st_size, status.st_mtime_ns))
    except (ValueError, OSError) as error:
        raise Refusal(f"{path.name} cannot be read: {error}") from error


@functools.lru_cache(maxsize=10_000)
def _qupath_origin_px(path: Path, size: int, modified_ns: int) -> tuple[int, int]:
    """The origin of a slide; `size` and `modified_ns` only make sure that a changed file is opened again."""
    with Slide(path) as slide:
        return slide.qupath_origin_px


def moved_box(box: Box | None, shift_px: tuple[int, int]) -> Box | None:
    """A region shifted by `shift_px` (x, y); None, for a whole slide, stays None."""
    return None if box is None else (box[0] + shift_px[0], box[1] + shift_px[1], box[2], box[3])
