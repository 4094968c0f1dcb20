"""Tiles whose bytes were damaged on a disk or on their way: an error, not black pixels and not the end of the process."""

import numpy as np
import pytest
import tifffile

from shared.wsi import Slide
from shared.wsi.tiff import tiles as tiff_tiles

from .conftest import smooth_rgb, write_slide

TILE_PX = 128
APERIO_JPEG_2000 = 33005
# In the second row, third column of a slide of 5 columns.
DAMAGED = 7
INSIDE = (2 * TILE_PX + 20, TILE_PX + 20)


@pytest.fixture(scope="module")
def pixels():
    """(H, W) = (400, 600), nowhere black."""
    return np.maximum(smooth_rgb(600, 400), 30)


def write_damaged(path, pixels, compression, kind, **options):
    """A slide of which one tile is all zeros, random bytes, or right in its first half only."""
    write_slide(path, [pixels], compression=compression, tile=(TILE_PX, TILE_PX), **options)
    with tifffile.TiffFile(path) as tiff:
        start, length = tiff.pages[0].dataoffsets[DAMAGED], tiff.pages[0].databytecounts[DAMAGED]
    kept = length // 2 if kind == "half" else 0
    noise = bytes(length) if kind == "zeros" else np.random.default_rng(0).bytes(length)
    content = bytearray(path.read_bytes())
    content[start + kept : start + length] = noise[kept:]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("backend", ["cucim", "openslide"])
@pytest.mark.parametrize("compression", ["jpeg", "lzw", "deflate"])
@pytest.mark.parametrize("kind", ["zeros", "noise", "half"])
@pytest.mark.parametrize("size_px", [60, (300, 200)])
def test_a_damaged_tile_is_an_error(compression, kind, backend, size_px, pixels, tmp_path):
    slide = Slide(write_damaged(tmp_path / "slide.tif", pixels, compression, kind), backend)
    xy = (INSIDE[0], INSIDE[1] + TILE_PX // 2 - 10)  # also where the second half of the tile begins
    for xys in ([xy], [(0, 0), xy], [xy] * 20):
        with pytest.raises(ValueError, match=r"slide\.tif: level 0 cannot be read .*; is the file complete\?"):
            slide.read_regions(xys, size_px, num_workers=2)


@pytest.mark.parametrize("compression", ["jpeg", "lzw", "deflate"])
def test_the_other_tiles_can_still_be_read(compression, pixels, tmp_path):
    slide = Slide(write_damaged(tmp_path / "slide.tif", pixels, compression, "noise"))
    with pytest.raises(ValueError, match="tile 7 is damaged"):
        slide.read_region(INSIDE, 60)
    regions = slide.read_regions([(0, 0), (400, 10)], 60, num_workers=2)
    np.testing.assert_allclose(regions[0].astype(float), pixels[:60, :60], atol=30 if compression == "jpeg" else 0)


@pytest.mark.parametrize("hole", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(
    ("compression", "fill", "backend"),
    [
        ("jpeg", "zeros", "cucim"),
        ("jpeg", "noise", "cucim"),
        ("jpeg", "zeros", "openslide"),
        ("deflate", "zeros", "openslide"),
        ("deflate", "noise", "openslide"),
        ("lzw", "zeros", "openslide"),
        # Its decoders take any bytes for pixels: of noise nothing tells.
        (APERIO_JPEG_2000, "zeros", "cucim"),
    ],
)
def test_a_hole_within_a_tile_is_an_error(hole, compression, fill, backend, tmp_path):
    """A block of 512 bytes that a disk or a transfer lost; begin and end of the tile are sound."""
    image = smooth_rgb(600, 400, sigma=0.5)
    path = write_slide(tmp_path / "slide.tif", [image], compression=compression, tile=(TILE_PX, TILE_PX))
    with tifffile.TiffFile(path) as tiff:
        start, length = tiff.pages[0].dataoffsets[DAMAGED], tiff.pages[0].databytecounts[DAMAGED]
    content, at = bytearray(path.read_bytes()), start + int(hole * length)
    assert at + 512 < start + length
    content[at : at + 512] = bytes(512) if fill == "zeros" else np.random.default_rng(1).bytes(512)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"slide\.tif: level 0 cannot be read \(tile 7 is damaged"):
        Slide(path, backend).read_region(INSIDE, 60)


@pytest.mark.cucim  # OpenSlide does not read this compression
@pytest.mark.parametrize("options", [{}, {"codecformat": "j2k"}, {"resolutions": 6}, {"level": 30}])
def test_empty_packets_are_no_hole(options, tmp_path):
    """A flat tile of JPEG 2000 is little more than a zero byte for each packet that holds nothing."""
    flat = np.full((400, 600, 3), 255, np.uint8)
    path = write_slide(tmp_path / "slide.tif", [flat], None, APERIO_JPEG_2000, (TILE_PX, TILE_PX), compressionargs=options)
    assert (Slide(path).read_region(INSIDE, 60) == 255).all()


@pytest.mark.parametrize("compression", ["jpeg", "lzw", "none"])
def test_flat_tiles_are_sound(compression, tmp_path, pixels):
    flat = pixels.copy()
    flat[100:300], flat[:, 300:] = 0, 255
    slide = Slide(write_slide(tmp_path / "slide.tif", [flat], compression=compression, tile=(TILE_PX, TILE_PX)))
    regions = slide.read_regions([(0, 0), (10, 128), (400, 200)], 150, num_workers=2)
    assert regions[0].any()
    assert not regions[1].any()
    assert (regions[2] == 255).all()


def test_each_tile_is_checked_once(tmp_path, pixels, monkeypatch):
    looked_at = []
    real = tiff_tiles.TileCheck._is_whole
    monkeypatch.setattr(
        tiff_tiles.TileCheck, "_is_whole", lambda self, page, index: looked_at.append(index) or real(self, page, index)
    )
    monkeypatch.setattr(tiff_tiles, "decode_tile", lambda *_: pytest.fail("a sound JPEG tile is decoded"))
    slide = Slide(write_slide(tmp_path / "slide.tif", [pixels], compression="jpeg", tile=(TILE_PX, TILE_PX)))
    for _ in range(3):
        slide.read_regions([(0, 0), (100, 20), (300, 300)], 100, num_workers=2)
    assert looked_at == [0, 1, 12, 13, 17, 18]
