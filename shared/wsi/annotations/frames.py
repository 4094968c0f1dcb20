"""The frames in which annotations are drawn, and how they lie in a slide's level 0.

QuPath shows of a slide what the scanner has scanned, where the file says which part that is (OpenSlide's ``bounds``: MIRAX and
Leica SCN, for example), and counts its coordinates from that part's corner. ImageScope and ASAP count them from level 0's
corner.
"""

from __future__ import annotations

# From the corner of what was scanned; from the corner of level 0.
QUPATH, LEVEL0 = "qupath", "level0"
ANNOTATION_FRAMES = (QUPATH, LEVEL0)
# By which a GeoJSON file names its frame, next to "features". QuPath ignores it.
FRAME_MEMBER = "annotation_frame"


def check_frame(frame: object) -> str:
    """A frame's name.

    Raises:
        ValueError: if there is no such frame.
    """
    if frame not in ANNOTATION_FRAMES:
        raise ValueError(f"{FRAME_MEMBER} must be one of {', '.join(ANNOTATION_FRAMES)}, got {frame!r}")
    return str(frame)


def frame_origin_px(frame: str, qupath_origin_px: tuple[int, int]) -> tuple[int, int]:
    """(x, y) of a frame's origin in level-0 pixels: what is added to coordinates that are read, and taken from those written.

    Args:
        frame: one of `ANNOTATION_FRAMES`.
        qupath_origin_px: of the slide, `Slide.qupath_origin_px`.

    >>> frame_origin_px("qupath", (600, 400)), frame_origin_px("level0", (600, 400))
    ((600, 400), (0, 0))
    """
    return qupath_origin_px if check_frame(frame) == QUPATH else (0, 0)
