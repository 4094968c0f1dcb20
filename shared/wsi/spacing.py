"""The pixel size of a slide, from the tags of its scanner's vendor.

cuCIM's own `spacing()` is not used: it says 1.0 um where a slide has none, and it misses Aperio's.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path

from .tiff_layout import TiffLayout

# Coarser than this is a print or screen resolution (72, 96, 300, 1200 dpi: 21 um and more), not that of a scanner.
# 10 um is 2540 dpi; the coarsest levels that are stored as files of their own lie below it.
_COARSEST_SCAN_UM = 10.0
_RESOLUTION_UNIT_UM = {2: 25400.0, 3: 10000.0}
_OME_UNIT_UM = {"nm": 1e-3, "\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
# Larger differences of the two sides are a mistake in the tags: scanners have square pixels.
_LARGEST_ANISOTROPY = 0.05


def slide_spacing_um(path: Path, layout: TiffLayout | None, openslide_properties: Mapping[str, str]) -> float | None:
    """Micrometres per level-0 pixel, the mean of both sides; None where no tag tells.

    The first plausible source counts: OME-XML ``PhysicalSizeX/Y``, OpenSlide's ``openslide.mpp-x/y``, Aperio's
    ``MPP``, the TIFF resolution. Plausible is 0 to 10 um: a TIFF of "72 dpi" has no scan resolution, whatever its unit.

    Args:
        path: for the error message.
        layout: tags of a TIFF, None for other files.
        openslide_properties: empty where OpenSlide does not read the file.

    Raises:
        ValueError: if the two sides differ by more than 5 %.
    """
    for x, y in _candidates(layout, openslide_properties):
        if not all(math.isfinite(side) and 0 < side <= _COARSEST_SCAN_UM for side in (x, y)):
            continue
        if abs(x - y) > _LARGEST_ANISOTROPY * min(x, y):
            raise ValueError(f"{path}: its pixels are {x} x {y} um, not square; pass mpp=... to say what is right")
        return (x + y) / 2
    return None


def _candidates(layout: TiffLayout | None, properties: Mapping[str, str]) -> Iterator[tuple[float, float]]:
    if layout is not None and layout.ome_xml is not None:
        yield from _ome_spacing(layout.ome_xml)
    if "openslide.mpp-x" in properties and "openslide.mpp-y" in properties:
        yield float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"])
    if layout is not None:
        aperio = re.search(r"\|\s*MPP\s*=\s*([\d.]+)", layout.description)
        if aperio:
            yield float(aperio.group(1)), float(aperio.group(1))
    if layout is not None and layout.resolution is not None:
        x, y, unit = layout.resolution
        if unit in _RESOLUTION_UNIT_UM and x > 0 and y > 0:
            yield _RESOLUTION_UNIT_UM[unit] / x, _RESOLUTION_UNIT_UM[unit] / y


def _ome_spacing(ome_xml: str) -> Iterator[tuple[float, float]]:
    """Spacing of the first image, which is the slide itself; labels and macro images follow it."""
    try:
        root = ElementTree.fromstring(ome_xml)
    except ElementTree.ParseError:
        return
    pixels = next((node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return
    sides = []
    for axis in "XY":
        size = pixels.get(f"PhysicalSize{axis}", pixels.attrib["PhysicalSizeX"])
        unit = _OME_UNIT_UM.get(pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m"))
        if unit is None:
            return
        sides.append(float(size) * unit)
    yield sides[0], sides[1]
