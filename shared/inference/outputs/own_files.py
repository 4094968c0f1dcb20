"""Files that say of themselves that this project has written them."""

from __future__ import annotations

import struct
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from ...features.conventions import OWN
from ...features.slide_features import SlideFeatures
from ...writers.ome_tiff import signed_rgba
from ...wsi.annotations.frames import FRAME_MEMBER
from .slide_results import TUMOUR_PROBABILITY, class_channel_colours

_OUTLINES_BEGIN = f'{{"type":"FeatureCollection","{FRAME_MEMBER}":'.encode()


def is_own_map(path: Path) -> bool:
    """Whether an OME-TIFF is a map by the names or colours of its channels; False where it cannot be read."""
    try:
        with tifffile.TiffFile(path) as tiff:
            root = ElementTree.fromstring(tiff.ome_metadata or "<none/>")
    except (OSError, tifffile.TiffFileError, ElementTree.ParseError, struct.error, IndexError, ValueError):
        return False
    channels = root.findall(".//{*}Channel")
    if [channel.get("Name") for channel in channels] == [TUMOUR_PROBABILITY]:
        return True
    return len(channels) > 2 and [channel.get("Color") for channel in channels] == [
        str(signed_rgba(colour)) for colour in class_channel_colours(len(channels))
    ]


def is_own_outlines(path: Path) -> bool:
    """Whether a GeoJSON file begins as outlines of a map do: with the frame of its coordinates, which QuPath does not keep."""
    try:
        with path.open("rb") as file:
            return file.read(len(_OUTLINES_BEGIN)) == _OUTLINES_BEGIN
    except OSError:
        return False


def is_own_features(path: Path, encoder_key: str) -> bool:
    """Whether a file holds features of this encoder as this project writes them; False where it cannot be read."""
    try:
        with SlideFeatures.open(path) as features:
            return features.convention == OWN and features.encoder_key == encoder_key
    except ValueError:
        return False
