"""Do 16-bit samples use their range? Readers take the upper 8 bits of them: those of 12 bits in 16 are nearly black."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from .images import TiffImage

_NUM_PARTS = 8
_HALF = 2**15


def unused_range_problem(path: Path, picture: TiffImage) -> str | None:
    """Why the 16-bit samples of a picture in a TIFF cannot be read; None if they can, and for 8-bit ones.

    A brightfield picture has glass or pale tissue nearly everywhere, so that some sample of eight parts of it lies in the upper
    half of the range. What cannot be decoded here is left to the libraries, to say what is wrong.
    """
    if picture.bits != 16:
        return None
    try:
        brightest = _brightest(path, picture)
    except Exception:  # each codec has its own errors
        return None
    return None if brightest is None or brightest >= _HALF else dark_problem(brightest)


def dark_problem(brightest: int) -> str:
    """The problem of a 16-bit picture with this brightest sample."""
    return (
        f"it has 16-bit samples, but none of those checked exceeds {brightest} of 65535 ({brightest.bit_length()} bits in "
        "16?): scale it to 8-bit RGB in which glass is about 240"
    )


def _brightest(path: Path, picture: TiffImage) -> int | None:
    """The largest sample in a few tiles or strips spread over the picture; None where the file leaves them out."""
    with tifffile.TiffFile(path) as tiff:
        page = next(page for page in tiff.pages if (page.imagewidth, page.imagelength) == picture.size_px).aspage()
        filled = np.flatnonzero(page.databytecounts)
        brightest = None
        for index in filled[:: max(1, len(filled) // _NUM_PARTS)].tolist():
            tiff.filehandle.seek(page.dataoffsets[index])
            encoded = tiff.filehandle.read(page.databytecounts[index])
            part = page.decode(encoded, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)[0]
            if part is not None:
                # Not its transparency, which is full.
                colours = part[..., : 1 if part.shape[-1] <= 2 else 3]
                brightest = max(brightest or 0, int(colours.max()))
    return brightest
