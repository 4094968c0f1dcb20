"""JPEG 2000 tiles as Aperio stores them: the pixels of OpenSlide, each tile decoded once a read, damaged ones told."""

from collections import Counter

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from shared.wsi import Slide
from shared.wsi.readers import jpeg_2000
from tests.wsi.conftest import smooth_rgb

YCBCR, RGB = 33003, 33005
TILE_PX = 128
SIZE = (600, 400)
DESCRIPTION = "Aperio Image Library v11.0\r\n600x400 (128x128) J2K/KDU Q=70|AppMag = 20|MPP = 0.5"
BACKENDS = ["cucim", "openslide"]


@pytest.fixture(scope="module")
def pixels():
    return np.maximum(smooth_rgb(*SIZE), 30)


def write_aperio(path, pixels, compression=RGB):
    """Level 0 and one of half the size, as bare lossless codestreams."""
    smaller = np.asarray(Image.fromarray(pixels).resize((SIZE[0] // 2, SIZE[1] // 2), Image.Resampling.BOX))
    with tifffile.TiffWriter(path) as tiff:
        for image in (pixels, smaller):
            stored = np.asarray(Image.fromarray(image).convert("YCbCr")) if compression == YCBCR else image
            tiff.write(
                stored,
                photometric="rgb",
                tile=(TILE_PX, TILE_PX),
                compression=compression,
                compressionargs={"codecformat": "j2k", "mct": False},
                description=DESCRIPTION,
                metadata=None,
            )
    return path


def span(path, index):
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[0].dataoffsets[index], tiff.pages[0].databytecounts[index]


@pytest.fixture
def decoded(monkeypatch):
    """How often each tile was decoded, by its bytes."""
    counts, decode = Counter(), imagecodecs.jpeg2k_decode

    def count(stream, *arguments, **options):
        counts[bytes(stream)] += 1
        return decode(stream, *arguments, **options)

    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", count)
    return counts


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("compression", [RGB, YCBCR])
def test_regions_have_openslides_pixels(compression, num_workers, backend, pixels, tmp_path):
    path = write_aperio(tmp_path / "slide.svs", pixels, compression)
    slide, alone = Slide(path, backend), openslide.OpenSlide(str(path))
    assert slide.backend == backend
    for level, downsample in enumerate((1, 2)):
        xys = np.array([(0, 0), (100, 30), (150, 100), (120, 110)]) * downsample
        regions = slide.read_regions(xys, (150, 90), 0.5 * downsample, num_workers)
        for region, (x, y) in zip(regions, xys.tolist(), strict=True):
            expected = np.asarray(alone.read_region((x, y), level, (150, 90)).convert("RGB"))
            difference = np.abs(region.astype(int) - expected)
            assert difference.max() <= (1 if compression == YCBCR else 0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("num_kept", "times"), [(0, 2), (3, 2), (4, 1)])
def test_a_tile_is_decoded_once_a_read_and_kept_for_the_next(num_kept, times, backend, pixels, tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(jpeg_2000, "_KEPT_BYTES", num_kept * 3 * TILE_PX**2)
    slide = Slide(write_aperio(tmp_path / "slide.svs", pixels), backend)
    decoded.clear()
    for _ in range(2):
        # Four tiles, which most of the regions touch.
        slide.read_regions([(0, 0), (60, 60), (100, 100), (150, 150)], 100)
    assert len(decoded) == 4
    assert max(decoded.values()) == times


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("damage", ["zeros", "hole", "noise", "end"])
def test_a_damaged_tile_is_an_error_and_the_others_are_read(damage, backend, pixels, tmp_path):
    path = write_aperio(tmp_path / "slide.svs", pixels)
    start, length = span(path, 7)
    content = bytearray(path.read_bytes())
    if damage == "zeros":
        content[start : start + length] = bytes(length)
    elif damage == "hole":
        content[start + length // 2 : start + length // 2 + 512] = bytes(512)
    elif damage == "noise":
        content[start : start + length] = np.random.default_rng(0).bytes(length)
    else:  # another tile's header: of another size
        stream = imagecodecs.jpeg2k_encode(np.full((64, 64, 3), 9, np.uint8), codecformat="j2k", reversible=True)
        content[start : start + len(stream)] = stream
    path.write_bytes(content)
    slide = Slide(path, backend)
    for xys in ([(276, 148)], [(0, 0), (276, 148)]):
        with pytest.raises(ValueError, match=r"slide\.svs: level 0 cannot be read \(tile 7 is damaged"):
            slide.read_regions(xys, 60, num_workers=2)
    np.testing.assert_array_equal(slide.read_region((100, 10), 120), pixels[10:130, 100:220])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tile_that_was_left_out_is_left_to_the_library(backend, pixels, tmp_path):
    """Aperio leaves tiles out: of level 0 they are glass, as OpenSlide shows them."""
    path = write_aperio(tmp_path / "slide.svs", pixels)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        lengths = list(tiff.pages[0].databytecounts)
        lengths[7] = 0
        tiff.pages[0].tags["TileByteCounts"].overwrite(lengths)
    region = Slide(path, backend).read_region((200, 130), 90)
    np.testing.assert_array_equal(region[:, :56], pixels[130:220, 200:256])
    assert (region[:, 56:] == 255).all()


@pytest.mark.parametrize("steps", [(2, 1), (2, 2)])
def test_sparse_channels_are_known_by_the_header(steps, pixels):
    """Of the size's segment, the last three bytes a channel are its bits and its two steps."""
    stream = bytearray(imagecodecs.jpeg2k_encode(pixels[:TILE_PX, :TILE_PX], codecformat="j2k", mct=False))
    assert jpeg_2000.channel_steps(bytes(stream)) == {1}
    size = stream.index(b"\xff\x51")
    for channel in (1, 2):
        stream[size + 41 + 3 * channel : size + 43 + 3 * channel] = bytes(steps)
    assert jpeg_2000.channel_steps(bytes(stream)) == {1, 2}
    assert jpeg_2000.channel_steps(b"\0\0\0\x0cjP  " + bytes(stream)) == set()
