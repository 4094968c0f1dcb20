"""Whole-slide DICOM files by hand: one level a file, its pixels uncompressed."""

import struct

SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_LONG = ("OB", "OW", "SQ", "UN", "UT")


def _element(group, element, kind, value):
    if kind == "US":
        value = struct.pack("<H", value)
    elif kind == "UL":
        value = struct.pack("<I", value)
    elif isinstance(value, str):
        value = value.encode()
    value += (b"\0" if kind in ("UI", "OB") else b" ") * (len(value) % 2)
    length = struct.pack("<HI", 0, len(value)) if kind in _LONG else struct.pack("<H", len(value))
    return struct.pack("<HH", group, element) + kind.encode() + length + value


def _item(*elements):
    content = b"".join(elements)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def write_dicom_level(path, rgb, mpp, series, instance, tile=64):
    """One level of a slide.

    Args:
        path: to write.
        rgb: uint8 (H, W, 3), whose sides are multiples of `tile`.
        mpp: micrometres per pixel.
        series: its UID; the files of a slide share it.
        instance: UID of the file.
        tile: side of a tile in pixels.
    """
    height, width = rgb.shape[:2]
    tiles = [rgb[y : y + tile, x : x + tile].tobytes() for y in range(0, height, tile) for x in range(0, width, tile)]
    meta = b"".join(
        [
            _element(0x0002, 0x0001, "OB", b"\0\1"),
            _element(0x0002, 0x0002, "UI", SLIDE_CLASS),
            _element(0x0002, 0x0003, "UI", instance),
            _element(0x0002, 0x0010, "UI", EXPLICIT_LITTLE_ENDIAN),
            _element(0x0002, 0x0012, "UI", "1.2.3.4"),
        ]
    )
    spacing = f"{mpp / 1000:.8f}"
    measures = _item(_element(0x0028, 0x0030, "DS", f"{spacing}\\{spacing}"))
    shared = _item(_element(0x0028, 0x9110, "SQ", measures))
    dataset = [
        _element(0x0008, 0x0008, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"),
        _element(0x0008, 0x0016, "UI", SLIDE_CLASS),
        _element(0x0008, 0x0018, "UI", instance),
        _element(0x0008, 0x0060, "CS", "SM"),
        _element(0x0020, 0x000D, "UI", "1.2.3.5"),
        _element(0x0020, 0x000E, "UI", series),
        _element(0x0020, 0x9311, "CS", "TILED_FULL"),
        _element(0x0028, 0x0002, "US", 3),
        _element(0x0028, 0x0004, "CS", "RGB"),
        _element(0x0028, 0x0006, "US", 0),
        _element(0x0028, 0x0008, "IS", str(len(tiles))),
        _element(0x0028, 0x0010, "US", tile),
        _element(0x0028, 0x0011, "US", tile),
        _element(0x0028, 0x0100, "US", 8),
        _element(0x0028, 0x0101, "US", 8),
        _element(0x0028, 0x0102, "US", 7),
        _element(0x0028, 0x0103, "US", 0),
        _element(0x0048, 0x0006, "UL", width),
        _element(0x0048, 0x0007, "UL", height),
        _element(0x5200, 0x9229, "SQ", shared),
        _element(0x7FE0, 0x0010, "OB", b"".join(tiles)),
    ]
    path.write_bytes(bytes(128) + b"DICM" + _element(0x0002, 0x0000, "UL", len(meta)) + meta + b"".join(dataset))
    return path
