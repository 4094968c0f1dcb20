"""Every picture in a TIFF by its tags: which of them is the slide, and whether its values are those of a colour photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import tifffile

# PhotometricInterpretation, and the samples that a pixel may have with it; the last of 2 and 4 is transparency, but for CMYK.
_SAMPLES_OF = {0: (1, 2), 1: (1, 2), 2: (3, 4), 3: (1, 2), 5: (4, 5), 6: (3, 4)}
_GREY, _MASK = (0, 1), 4
_READ_BITS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class TiffImage:
    """One directory of a TIFF: a level, a label, a channel, a plane.

    `sample_format` says what a sample is, such as ``8-bit unsigned integer``; `num_samples` are those of a pixel.
    """

    size_px: tuple[int, int]
    bits: int
    sample_format: str
    photometric: int
    num_samples: int
    compression: int

    @property
    def area_px(self) -> int:
        return prod(self.size_px)

    @property
    def compression_name(self) -> str:
        return compression_name(self.compression)


def tiff_images(tiff: tifffile.TiffFile) -> tuple[TiffImage, ...]:
    """All directories of an open TIFF in the order of the file, each followed by those that hang on it (SubIFDs)."""
    return tuple(_image(page) for above in tiff.pages for page in (above.keyframe, *(above.pages or ())))


def read_tiff_images(path: Path) -> tuple[TiffImage, ...]:
    """All directories of a file: none where it is no TIFF, or its tags are damaged."""
    try:
        with tifffile.TiffFile(path) as tiff:
            return tiff_images(tiff)
    except Exception:  # damaged tags raise nearly anything
        return ()


def next_directory(tiff: tifffile.TiffFile) -> int:
    """The end of the offset to which the last directory points on, in bytes: 0 where it says that it is the last.

    Readers stop without a word where the file ends before the next directory, and take what they have found for all.
    """
    if tiff.is_ndpi:  # its offsets are put together from several places
        return 0
    kind, file = tiff.tiff, tiff.filehandle
    file.seek(tiff.pages[-1].offset)
    num_tags = int.from_bytes(file.read(kind.tagnosize), _byte_order(tiff))
    file.seek(num_tags * kind.tagsize, 1)
    offset = int.from_bytes(file.read(kind.offsetsize), _byte_order(tiff))
    return offset + 1 if offset else 0


def picture_problem(images: Sequence[TiffImage]) -> str | None:
    """Why the largest of a file's pictures is no colour or grey-scale photo; None if it is one, or there is none.

    What libraries make of other samples looks like a picture all the same: of channels it is the first one, in grey.
    """
    if not images:
        return None
    picture = largest(images)
    if picture.bits not in _READ_BITS or picture.sample_format != "unsigned integer":
        return (
            f"it has {picture.bits}-bit samples ({picture.sample_format}), but only unsigned integers of 8 or 16 bits are read: "
            "convert it to 8-bit RGB in which glass is about 240"
        )
    if picture.num_samples not in _SAMPLES_OF.get(picture.photometric, ()):
        return (
            f"it has {picture.num_samples} samples per pixel, stored as {_photometric_name(picture.photometric)}, but only "
            "RGB, palette or grey-scale pictures are read: convert it to RGB"
        )
    if picture.photometric in _GREY and picture.num_samples == 1 and num_equal_pictures(images) > 1:
        return (
            f"it holds {num_equal_pictures(images)} grey-scale pictures of {_size(picture)} px, such as channels or planes, "
            "but only one RGB picture is read: convert it to RGB with the three samples of a pixel together"
        )
    return None


def shown_problem(images: Sequence[TiffImage], size_px: tuple[int, int], slack: float = 1.0) -> str | None:
    """The problem of taking the picture of (width, height) `size_px` for the slide; None if none is larger.

    Args:
        images: of the file.
        size_px: of what a library shows.
        slack: how many times as many pixels another may have.
    """
    if not images or largest(images).area_px <= slack * prod(size_px):
        return None
    return (
        f"reads its picture of {size_px[0]} x {size_px[1]} px, such as a label or a thumbnail, and the file contains one of "
        f"{_size(largest(images))} px: save that one first, or as a separate file"
    )


def num_equal_pictures(images: Sequence[TiffImage]) -> int:
    """How many pictures have the size of the largest; a mask of it does not count."""
    size_px = largest(images).size_px if images else None
    return sum(image.size_px == size_px and image.photometric != _MASK for image in images)


def largest(images: Sequence[TiffImage]) -> TiffImage:
    """The first of the pictures with the most pixels."""
    return max(images, key=lambda image: image.area_px)


def compression_name(compression: int) -> str:
    """Name and number of a value of the tag Compression.

    >>> compression_name(50001), compression_name(49999)
    ('WEBP (50001)', '49999')
    """
    try:
        return f"{tifffile.COMPRESSION(compression).name} ({compression})"
    except ValueError:
        return str(compression)


def _image(page: tifffile.TiffPage) -> TiffImage:
    bits = page.bitspersample
    kind = tifffile.SAMPLEFORMAT(page.sampleformat).name if page.sampleformat in set(tifffile.SAMPLEFORMAT) else "unknown"
    return TiffImage(
        size_px=(page.imagewidth, page.imagelength),
        bits=max(bits) if isinstance(bits, tuple) else int(bits),
        sample_format={"UINT": "unsigned integer", "INT": "signed integer", "IEEEFP": "float"}.get(kind, kind.lower()),
        photometric=int(page.photometric),
        num_samples=int(page.samplesperpixel),
        compression=int(page.compression),
    )


def _byte_order(tiff: tifffile.TiffFile) -> Literal["little", "big"]:
    return "little" if tiff.tiff.byteorder == "<" else "big"


def _photometric_name(photometric: int) -> str:
    try:
        return tifffile.PHOTOMETRIC(photometric).name
    except ValueError:
        return f"photometric {photometric}"


def _size(image: TiffImage) -> str:
    return f"{image.size_px[0]} x {image.size_px[1]}"
