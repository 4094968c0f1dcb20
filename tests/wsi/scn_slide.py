"""A Leica SCN slide: its file says which part of level 0 was scanned, and QuPath counts from that part's corner."""

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

_NM_PER_PIXEL = 500
_IMAGE = """<image name="{name}"><device model="Leica SCN400;Leica SCN" version="1.5"/><pixels sizeX="{width}" sizeY="{height}">
<dimension sizeX="{width}" sizeY="{height}" r="0" ifd="{ifd}"/></pixels><view sizeX="{view_x}" sizeY="{view_y}"
offsetX="{offset_x}" offsetY="{offset_y}" spacingZ="0"/><scanSettings>
<objectiveSettings><objective>{power}</objective></objectiveSettings>
<illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"""


def write_scn(path: Path, pixels: NDArray[np.uint8], origin_px: tuple[int, int], size_px: tuple[int, int]) -> Path:
    """Write a slide of 0.5 um per pixel.

    Args:
        path: ``.scn``.
        pixels: what was scanned, ``(H, W, 3)``.
        origin_px: (x, y) of its corner in level 0.
        size_px: (width, height) of level 0.
    """
    height, width = pixels.shape[:2]
    whole = {"view_x": size_px[0] * _NM_PER_PIXEL, "view_y": size_px[1] * _NM_PER_PIXEL}
    part = {"view_x": width * _NM_PER_PIXEL, "view_y": height * _NM_PER_PIXEL}
    offset = {"offset_x": origin_px[0] * _NM_PER_PIXEL, "offset_y": origin_px[1] * _NM_PER_PIXEL}
    macro = (max(1, size_px[1] // 20), max(1, size_px[0] // 20))
    images = _IMAGE.format(name="macro", width=macro[1], height=macro[0], ifd=0, power=0.6, offset_x=0, offset_y=0, **whole)
    images += _IMAGE.format(name="scan", width=width, height=height, ifd=1, power=20, **part, **offset)
    collection = f'<collection name="a" uuid="a" sizeX="{whole["view_x"]}" sizeY="{whole["view_y"]}">{images}</collection>'
    text = f'<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="b">{collection}</scn>'
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        options = {"photometric": "rgb", "tile": (64, 64), "compression": "jpeg", "metadata": None}
        options |= {"resolution": (1e7 / _NM_PER_PIXEL,) * 2, "resolutionunit": "CENTIMETER"}
        tiff.write(np.full((*macro, 3), 230, np.uint8), description=text, **options)
        tiff.write(pixels, **options)
    return path
