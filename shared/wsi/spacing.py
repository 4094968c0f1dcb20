"""The pixel size of a slide, from the tags of its scanner's vendor.

cuCIM's own `spacing()` is not used: it says 1.0 um where a slide has none, and it misses Aperio's.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .notices import warn_once
from .tiff.layout import TiffLayout

# Coarser than this is a print or screen resolution (72, 96, 300, 1200 dpi: 21 um and more), not that of a scanner: 10 um is
# 2540 dpi; the coarsest levels that are stored as separate files lie below it. Light cannot resolve what is finer.
FINEST_SCAN_UM, COARSEST_SCAN_UM = 0.05, 10.0
# What a person may state instead: between the two lie nanometres, millimetres and metres taken for micrometres.
FINEST_STATED_UM, COARSEST_STATED_UM = 0.01, 100.0
STATED_RANGE = f"{FINEST_STATED_UM:g} to {COARSEST_STATED_UM:g}"
_LARGEST_CONTRADICTION = 0.02
_RESOLUTION_UNIT_UM = {2: 25400.0, 3: 10000.0}
_OME_UNIT_UM = {
    "pm": 1e-6,
    "\u00c5": 1e-4,
    "nm": 1e-3,
    "\u00b5m": 1.0,
    "\u03bcm": 1.0,
    "um": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "dm": 1e5,
    "m": 1e6,
    "in": 25400.0,
}
# As people and programs spell them; ImageJ escapes the micro sign.
_SPELLED_UNIT_UM = _OME_UNIT_UM | {
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometers": 1.0,
    "micrometre": 1.0,
    "micrometres": 1.0,
    "\\u00b5m": 1.0,
    "nanometer": 1e-3,
    "millimeter": 1e3,
    "inch": 25400.0,
}
# By these, or by none, a file says that it is not calibrated.
_NO_UNITS = ("", "pixel", "pixels", "reference frame")
# Larger differences of the two sides are a mistake in the tags: scanners have square pixels.
_LARGEST_ANISOTROPY = 0.05


class _Candidate(NamedTuple):
    """The contents of one tag: its name, its text, micrometres along x and y, and whether it is meant for a scan's resolution."""

    tag: str
    text: str
    sides_um: tuple[float, float]
    is_explicit: bool = True


@dataclass(frozen=True)
class Spacing:
    """What the tags of a file say about its pixel size.

    Attributes:
        sides_um: micrometres per level-0 pixel along x and y, None if no tag states it.
        passed_over: sentences on tags that say something that no scanner's pixel size can be.
        is_contradictory: whether one of these was meant to be the pixel size of a scan, and none was found next to it.
    """

    sides_um: tuple[float, float] | None
    passed_over: tuple[str, ...] = ()
    is_contradictory: bool = False

    @property
    def is_square(self) -> bool:
        return self.sides_um is not None and abs(self.sides_um[0] - self.sides_um[1]) <= _LARGEST_ANISOTROPY * min(self.sides_um)

    def checked_um(self, path: Path) -> float | None:
        """Micrometres per level-0 pixel, the mean of both sides; None if no tag states it.

        Args:
            path: for the error message.

        Raises:
            ValueError: if the two sides differ by more than 5 %, or what should be the pixel size cannot be one.
        """
        remedy = "pass mpp=... or fill the manifest's `mpp` column to state the right value"
        if self.is_contradictory:
            raise ValueError(f"{path}: {'; '.join(self.passed_over)}; {remedy}")
        if self.sides_um is None:
            return None
        x, y = self.sides_um
        if not self.is_square:
            raise ValueError(f"{path}: its pixels are {x:g} x {y:g} um, not square; {remedy}")
        for sentence in self.passed_over:
            warn_once(f"{path}: {sentence}; another tag says {(x + y) / 2:g} um, which is used")
        return (x + y) / 2

    def compare(self, path: Path, stated_um: float) -> None:
        """Warn, once, of a file that contradicts the pixel size that somebody stated for it, which is taken."""
        if self.is_square and self.sides_um is not None:
            own = sum(self.sides_um) / 2
            if abs(own - stated_um) > _LARGEST_CONTRADICTION * min(own, stated_um):
                warn_once(
                    f"{path}: its own tags say {own:g} um per pixel; {stated_um:g} um was given (manifest or key) and is used"
                )
        elif self.is_contradictory:
            warn_once(f"{path}: {'; '.join(self.passed_over)}; {stated_um:g} um was given (manifest or key) and is used")


def is_possible_spacing(mpp: float) -> bool:
    """Whether a pixel size that somebody stated may be one in micrometres, and not in millimetres or nanometres.

    >>> [is_possible_spacing(mpp) for mpp in (0.25, 0.00025, 250.0, float("nan"))]
    [True, False, False, False]
    """
    return FINEST_STATED_UM <= mpp <= COARSEST_STATED_UM


def read_spacing(layout: TiffLayout | None, openslide_properties: Mapping[str, str]) -> Spacing:
    """What a file says about its pixel size.

    The first plausible source counts: OME-XML ``PhysicalSizeX/Y``, ImageJ's ``unit``, OpenSlide's ``openslide.mpp-x/y``,
    Aperio's ``MPP``, the TIFF resolution. Plausible is 0.05 to 10 um: a TIFF of "72 dpi" has no scan resolution, whatever its
    unit.

    Args:
        layout: tags of a TIFF, None for other files.
        openslide_properties: empty where OpenSlide does not read the file.
    """
    passed_over: list[str] = []
    is_contradictory = False
    for candidate in _candidates(layout, openslide_properties):
        if all(FINEST_SCAN_UM <= side <= COARSEST_SCAN_UM for side in candidate.sides_um):
            return Spacing(candidate.sides_um, tuple(passed_over))
        if not any(candidate.sides_um):  # 0 stands for "not known"
            continue
        passed_over.append(
            f"its {candidate.tag} says {candidate.text}, and pixels are {FINEST_SCAN_UM:g} to {COARSEST_SCAN_UM:g} um"
        )
        is_too_fine = any(side < FINEST_SCAN_UM for side in candidate.sides_um)
        is_contradictory = (
            is_contradictory or is_too_fine or candidate.is_explicit or not all(map(math.isfinite, candidate.sides_um))
        )
    return Spacing(None, tuple(passed_over), is_contradictory)


def read_magnification(layout: TiffLayout | None, openslide_properties: Mapping[str, str]) -> float | None:
    """How many times a slide's objective magnifies: OpenSlide's ``objective-power`` or Aperio's ``AppMag``. None if unknown."""
    aperio = re.search(r"\|\s*AppMag\s*=\s*([^|\s]*)", layout.description) if layout is not None else None
    for text in (openslide_properties.get("openslide.objective-power"), aperio.group(1) if aperio else None):
        found = math.nan if text is None else _number(text)
        if 1 <= found <= 200:
            return found
    return None


def _candidates(layout: TiffLayout | None, properties: Mapping[str, str]) -> Iterator[_Candidate]:
    if layout is not None and layout.ome_xml is not None:
        yield from _ome_spacing(layout.ome_xml)
    if layout is not None:
        yield from _imagej_spacing(layout)
    # Of other TIFF files OpenSlide's are those of the tags XResolution and YResolution.
    if (
        "openslide.mpp-x" in properties
        and "openslide.mpp-y" in properties
        and properties.get("openslide.vendor") != "generic-tiff"
    ):
        x, y = (properties[f"openslide.mpp-{axis}"] for axis in "xy")
        yield _Candidate("openslide.mpp-x", _shown(repr(x), repr(y)), (_number(x), _number(y)), is_explicit=False)
    if layout is not None:
        aperio = re.search(r"\|\s*MPP\s*=\s*([^|\s]*)", layout.description)
        if aperio:
            yield _Candidate("MPP in ImageDescription", repr(aperio.group(1)), (_number(aperio.group(1)),) * 2)
    if layout is not None and layout.resolution is not None:
        x_per_unit, y_per_unit, unit = layout.resolution
        if unit in _RESOLUTION_UNIT_UM and x_per_unit > 0 and y_per_unit > 0:
            sides = _RESOLUTION_UNIT_UM[unit] / x_per_unit, _RESOLUTION_UNIT_UM[unit] / y_per_unit
            yield _Candidate(
                "tag XResolution", f"{x_per_unit:g} per {'inch' if unit == 2 else 'cm'} ({sides[0]:.4g} um)", sides, False
            )


def _ome_spacing(ome_xml: str) -> Iterator[_Candidate]:
    """Spacing of the first image, which is the slide itself; labels and macro images follow it."""
    try:
        root = ElementTree.fromstring(ome_xml)
    except ElementTree.ParseError:
        return
    pixels = next((node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return
    texts, sides = [], []
    for axis in "XY":
        size = pixels.get(f"PhysicalSize{axis}", pixels.attrib["PhysicalSizeX"])
        name = pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m")
        if name.strip().lower() in _NO_UNITS:
            return
        texts.append(f"{size!r} {name}")
        sides.append(_number(size) * _unit_um(name))
    yield _Candidate("PhysicalSizeX in OME-XML", _shown(*texts), (sides[0], sides[1]))


def _imagej_spacing(layout: TiffLayout) -> Iterator[_Candidate]:
    """ImageJ names the unit in its description; the TIFF resolution is in pixels per that unit, whatever its own unit."""
    unit = re.search(r"^unit=(.*)$", layout.description, flags=re.MULTILINE)
    if unit is None or not layout.description.startswith("ImageJ=") or layout.resolution is None:
        return
    name = unit.group(1).strip()
    micrometres = _SPELLED_UNIT_UM.get(name.lower(), 0.0)
    x_per_unit, y_per_unit, _ = layout.resolution
    if micrometres and x_per_unit > 0 and y_per_unit > 0:
        text = f"{x_per_unit:g} pixels per {name}"
        # Inches and centimetres are what it calls the resolution of a print or a screen.
        yield _Candidate("ImageJ unit", text, (micrometres / x_per_unit, micrometres / y_per_unit), micrometres < 1e3)


def _unit_um(name: str) -> float:
    """Micrometres per unit; not a number for an unknown one."""
    name = name.strip()
    return _OME_UNIT_UM.get(name, _SPELLED_UNIT_UM.get(name.lower(), math.nan))


def _number(text: str) -> float:
    """A number, with a decimal comma too; not a number where there is none."""
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return math.nan


def _shown(x: str, y: str) -> str:
    return x if x == y else f"{x} x {y}"
