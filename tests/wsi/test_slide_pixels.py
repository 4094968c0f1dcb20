"""Regions against a reference that pads the decoded image with white."""

import math

import numpy as np
import pytest
import tifffile
from PIL import Image

from shared.wsi import Slide

from .conftest import smooth_rgb, write_slide

BACKENDS = ("cucim", "openslide")


def crop(image, xy, size_px):
    """`image` on endless white, cut at xy: the reference."""
    (x, y), (width, height), pad = xy, size_px, 1200
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), constant_values=255)
    return padded[y + pad : y + pad + height, x + pad : x + pad + width]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("xy", [(0, 0), (64, 64), (13, 201), (-20, -7), (480, 280), (516, 300), (517, 0), (-50, 0), (-900, 900)])
def test_level_0_is_exact_inside_and_white_outside(backend, xy, pyramid, level_0):
    region = Slide(pyramid, backend).read_region(xy, (50, 33))
    assert region.shape == (33, 50, 3)
    assert region.dtype == np.uint8
    np.testing.assert_array_equal(region, crop(level_0, xy, (50, 33)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_region_larger_than_the_slide(backend, pyramid, level_0):
    np.testing.assert_array_equal(
        Slide(pyramid, backend).read_region((-100, -50), (800, 500)), crop(level_0, (-100, -50), (800, 500))
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("mpp", [None, 0.375])
def test_batch_equals_single_reads_in_order(backend, num_workers, mpp, pyramid):
    rng = np.random.default_rng(1)
    xys = rng.integers((-60, -60), (560, 340), size=(41, 2))  # 41: not a multiple of any batch
    slide = Slide(pyramid, backend)
    batch = slide.read_regions(xys, 48, mpp, num_workers=num_workers)
    np.testing.assert_array_equal(batch, np.stack([slide.read_region(tuple(xy), 48, mpp) for xy in xys]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_positions_give_no_regions(backend, pyramid):
    assert Slide(pyramid, backend).read_regions([], (40, 30), mpp=1.0).shape == (0, 30, 40, 3)


@pytest.mark.cucim
@pytest.mark.parametrize("mpp", [0.499, 0.5, 0.505])
def test_a_level_within_two_percent_is_read_as_stored(mpp, pyramid, level_0):
    # Level-0 (100, 60) is (49.9, 29.9) at downsample 2.005: pixel (50, 30) is the nearest.
    region = Slide(pyramid, "cucim").read_region((100, 60), (40, 30), mpp)
    np.testing.assert_array_equal(region, (255 - level_0[:-1:2, :-1:2])[30:60, 50:90])


@pytest.mark.cucim
def test_level_border_is_white(pyramid, level_0):
    level_1 = 255 - level_0[:-1:2, :-1:2]
    region = Slide(pyramid, "cucim").read_region((-20, 250), (60, 50), mpp=0.5)
    np.testing.assert_array_equal(region, crop(level_1, (-10, 125), (60, 50)))


@pytest.mark.cucim
def test_odd_downsamples_do_not_drift(tmp_path):
    """Every whole pixel of a level of downsample 2.0039 comes from its own place, at the far end too."""
    image = smooth_rgb(1023, 1023)
    level_1 = 255 - np.asarray(Image.fromarray(image).resize((510, 510)))
    slide = Slide(write_slide(tmp_path / "odd.tif", [image, level_1], mpp=0.25), "cucim")
    downsample = slide.level_downsamples[1]
    for corner in (0, 1, 255, 256, 443, 477):
        xy = round(corner * downsample)
        region = slide.read_region((xy, 0), (32, 8), mpp=0.5)
        np.testing.assert_array_equal(region, level_1[:8, corner : corner + 32])


def hamming_weights(num_source, start, scale, num_result):
    """(num_result, num_source): normalised sinc(d) * (0.54 + 0.46 cos(pi d)), |d| < 1, d in result pixels."""
    source_centres = np.arange(num_source) + 0.5
    result_centres = start + (np.arange(num_result) + 0.5) * scale
    distance = (source_centres[None] - result_centres[:, None]) / scale
    weights = np.where(np.abs(distance) < 1, np.sinc(distance) * (0.54 + 0.46 * np.cos(np.pi * distance)), 0)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("slide_mpp", "mpp"), [(0.25, 0.5), (0.5, 0.6667), (0.2494, 0.8)])
@pytest.mark.parametrize("xy", [(100, 60), (133, 47), (-30, -10), (450, 250)])
def test_coarser_read_is_the_downsampled_finer_read(slide_mpp, mpp, xy, level_0, tmp_path):
    slide = Slide(write_slide(tmp_path / "flat.tif", [level_0], mpp=slide_mpp))
    width, height, scale, margin = 41, 30, mpp / slide_mpp, 8
    finer = slide.read_region(
        (xy[0] - margin, xy[1] - margin), (int(width * scale) + 2 * margin, int(height * scale) + 2 * margin)
    )
    columns = hamming_weights(finer.shape[1], margin, scale, width)
    rows = hamming_weights(finer.shape[0], margin, scale, height)
    expected = np.einsum("ih,hwc,jw->ijc", rows, finer.astype(float), columns)
    # Pillow rounds after each of its two passes.
    np.testing.assert_allclose(slide.read_region(xy, (width, height), mpp), expected, atol=1.1)


def test_halving_a_linear_ramp_gives_the_mean_of_each_two_by_two(tmp_path):
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2)
    region = Slide(write_slide(tmp_path / "ramp.tif", [ramp])).read_region((20, 10), (50, 20), mpp=0.5)
    # Result pixel i covers columns 20 + 2i and 21 + 2i: mean 20.5 + 2i.
    np.testing.assert_allclose(region[..., 0] - (20.5 + 2 * np.arange(50)), 0, atol=0.51)


@pytest.mark.parametrize("mpp", [0.375, 0.6667, 1.3])
def test_neighbouring_regions_join_without_a_seam(mpp, flat):
    slide = Slide(flat)
    # 3 * 0.25 um: a whole number of level-0 pixels per step keeps the tiles on the large region's own raster.
    step = {0.375: 1.5, 0.6667: 2.6668, 1.3: 5.2}[mpp]
    large = slide.read_region((0, 0), (60, 40), mpp)
    x = 30 * step
    right = slide.read_region((round(x), 0), (30, 40), mpp)
    tolerance = 1 + 30 * abs(round(x) - x)  # the corner of the right tile is rounded to a whole level-0 pixel
    assert np.abs(right.astype(int) - large[:, 30:]).max() <= tolerance


def test_resampling_reads_the_nearest_finer_level(pyramid, level_0):
    # 1.0 um: from level 1 (0.501 um), whose colours are inverted.
    coarse = Slide(pyramid).read_region((100, 60), (40, 30), mpp=1.0)
    assert np.abs(coarse.astype(int).mean() - (255 - level_0[60:180, 100:260]).mean()) < 2
    between = Slide(pyramid).read_region((100, 60), (40, 30), mpp=0.45)
    assert np.abs(between.astype(int).mean() - level_0[60:114, 100:172].mean()) < 2


def test_finer_than_level_0_is_enlarged(flat, level_0):
    region = Slide(flat).read_region((100, 60), (80, 40), mpp=0.125)
    assert region.shape == (40, 80, 3)
    # Bilinear: the mean over each 2 x 2 lies near the pixel that it came from.
    means = region.reshape(20, 2, 40, 2, 3).mean(axis=(1, 3))
    assert np.abs(means - level_0[60:80, 100:140]).mean() < 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_tiles_that_the_writer_left_out_are_white(backend, tmp_path):
    """ASAP leaves empty tiles out; cuCIM shows them black, OpenSlide transparent."""
    grey = np.full((64, 64, 3), 90, np.uint8)
    tifffile.imwrite(
        tmp_path / "sparse.tif",
        (None if index in (1, 5) else grey for index in range(9)),
        shape=(160, 170, 3),
        dtype=np.uint8,
        tile=(64, 64),
        compression="lzw",
        photometric="rgb",
    )
    expected = np.full((160, 170, 3), 90)
    expected[:64, 64:128] = 255
    expected[64:128, 128:] = 255
    slide = Slide(tmp_path / "sparse.tif", backend)
    np.testing.assert_array_equal(slide.read_region((0, 0), (170, 160)), expected)
    np.testing.assert_array_equal(slide.read_region((50, 20), (60, 70)), expected[20:90, 50:110])


APERIO = "Aperio Image Library v12.0\n512x384 [0,0 512x384] (64x64) JPEG/RGB Q=95|AppMag = 40|MPP = 0.25"


def tiles_of(image, left_out):
    """Tiles of 64 px, those with numbers in `left_out` as None."""
    corners = [(y, x) for y in range(0, image.shape[0], 64) for x in range(0, image.shape[1], 64)]
    return (None if number in left_out else image[y : y + 64, x : x + 64] for number, (y, x) in enumerate(corners))


@pytest.mark.parametrize(("backend", "description"), [("cucim", APERIO), ("openslide", APERIO), ("cucim", None)])
def test_a_tile_left_out_of_a_level_is_read_from_the_finer_one(backend, description, tmp_path):
    """As some scanners do it; OpenSlide reads the finer level for Aperio's slides."""
    levels = [np.full((384, 512, 3), 200, np.uint8)]
    levels[0][64:128, 128:192] = (180, 40, 90)
    levels[0][200:330, 300:450] = (90, 40, 150)
    levels += [levels[0][::2, ::2], levels[0][::4, ::4]]
    # Of level 1 two tiles; of level 2 one that takes them with it. Glass is left out on every level.
    left_out = [(24, 25, 32, 33), (5, 6, 12), (1, 2)]
    for number, corner in enumerate(((192, 0), (96, 0), (48, 0))):
        levels[number][corner[0] : corner[0] + 128 // 2**number, : 128 // 2**number] = 255
    path = tmp_path / "slide.svs"
    with tifffile.TiffWriter(path) as tiff:
        for number, (level, gone) in enumerate(zip(levels, left_out, strict=True)):
            options = {"description": description, "metadata": None, "subfiletype": min(number, 1)}
            tiff.write(
                tiles_of(level, gone),
                shape=level.shape,
                dtype=np.uint8,
                tile=(64, 64),
                compression="lzw",
                photometric="rgb",
                **options,
            )
    slide = Slide(path, backend, mpp=0.25)
    assert len(slide.level_sizes_px) == 3
    for level, mpp in zip(levels, (0.25, 0.5, 1.0), strict=True):
        whole = slide.read_region((0, 0), (level.shape[1], level.shape[0]), mpp)
        # At the edges of colours OpenSlide interpolates.
        assert (np.abs(whole - level.astype(int)).max(axis=-1) > 2).mean() < 0.03
        region = slide.read_regions([(248, 128), (0, 0)], (int(60 * 0.5 / mpp), 30), mpp)
        np.testing.assert_array_equal(region[0], whole[round(32 / mpp) :, round(62 / mpp) :][:30, : region.shape[2]])


@pytest.mark.parametrize("max_size_px", [50, 64, 300, 517, 4000])
def test_thumbnail_is_the_whole_slide(max_size_px, flat, level_0):
    thumbnail = Slide(flat).thumbnail(max_size_px)
    scale = min(1, max_size_px / 517)
    assert thumbnail.shape == (max(1, round(301 * scale)), round(517 * scale), 3)
    assert np.abs(thumbnail.mean() - level_0.mean()) < 3


def test_smallest_thumbnail(flat):
    assert Slide(flat).thumbnail(1).shape == (1, 1, 3)


def test_thumbnail_in_blocks_equals_one_piece(flat, monkeypatch):
    whole = Slide(flat).thumbnail(100)
    monkeypatch.setattr("shared.wsi.slide._LARGEST_SOURCE_PX", 60**2)
    # Pillow's fixed-point weights may round a pixel the other way.
    np.testing.assert_allclose(Slide(flat).thumbnail(100).astype(int), whole, atol=1)


@pytest.mark.parametrize(("xy", "pixel"), [((0, 0), 20), ((-333, 77), 20), ((401, -90), 13.7), ((-4000, 0), 20), ((0, 0), 700)])
def test_a_coarse_region_in_blocks_equals_one_piece(xy, pixel, flat, monkeypatch):
    """Of a slide without levels, what a region reaches beyond it may be far more than the slide."""
    slide = Slide(flat)
    whole = slide.read_regions([xy, (0, 0)], (61, 40), 0.25 * pixel, exact=True)
    sizes, read = [], Slide._read_level
    monkeypatch.setattr("shared.wsi.slide._LARGEST_SOURCE_PX", 200**2)
    monkeypatch.setattr(Slide, "_read_level", lambda self, *place: sizes.append(place[2]) or read(self, *place))
    blocks = slide.read_regions([xy, (0, 0)], (61, 40), 0.25 * pixel, exact=True)
    np.testing.assert_allclose(blocks.astype(int), whole, atol=1)
    # A block, or a single pixel where it is larger, and what the filter needs around it; none of blocks of glass.
    assert max(max(size) for size in sizes) <= max(200, pixel) + 2 * pixel + 7
    assert len(sizes) <= 2 * 5 * 4


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (10, 20, 30, 255)), ("L", 7), ("P", 3), ("1", 1), ("LA", (9, 255))])
def test_plain_images_of_any_mode(mode, colour, tmp_path):
    Image.new(mode, (30, 20), colour).save(tmp_path / "tile.png")
    with Image.open(tmp_path / "tile.png") as image:
        expected = np.asarray(image.convert("RGB"))
    slide = Slide(tmp_path / "tile.png")
    assert (slide.backend, slide.size_px) == ("pillow", (30, 20))
    np.testing.assert_array_equal(slide.read_region((-5, 2), (30, 20)), crop(expected, (-5, 2), (30, 20)))


def test_transparent_parts_of_an_image_are_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "tile.png")
    assert (Slide(tmp_path / "tile.png").read_region((0, 0), 4) == 255).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["slides/cmu-1-small-region.svs", "slides/tcga-cr-7395-01a-01-ts1.svs"])
def test_real_slides_equal_tifffile(name, backend, wsi_test_data):
    reference = tifffile.imread(wsi_test_data / name, key=0)
    xys = [(1000, 1200), (-20, 30), (reference.shape[1] - 100, reference.shape[0] - 90), (777, 1503)]
    expected = np.stack([crop(reference, xy, (224, 200)) for xy in xys])
    assert expected.std() > 20
    np.testing.assert_array_equal(Slide(wsi_test_data / name, backend).read_regions(xys, (224, 200)), expected)


@pytest.mark.cucim
def test_odd_level_of_a_real_slide(wsi_test_data):
    """Level 1 of the TCGA slide has downsample 2.0005: cuCIM is exact, OpenSlide interpolates by 1/4 pixel at most."""
    path = wsi_test_data / "slides/tcga-cr-7395-01a-01-ts1.svs"
    reference = tifffile.imread(path, key=2)
    xy, corner = (2001, 1501), (1000, 750)  # 2001 / 2.0005 = 1000.2, 1501 / 2.0005 = 750.3
    expected = reference[corner[1] : corner[1] + 200, corner[0] : corner[0] + 224]
    regions = {backend: Slide(path, backend, mpp=0.25).read_region(xy, (224, 200), mpp=0.5) for backend in BACKENDS}
    np.testing.assert_array_equal(regions["cucim"], expected)
    assert np.abs(regions["openslide"].astype(int) - expected).mean() < 8


@pytest.mark.cucim
def test_levels_of_a_real_pyramid_agree_between_libraries(wsi_test_data):
    path = wsi_test_data / "mosaic_slides/slides/tumor_000.tif"
    cucim, openslide = Slide(path, "cucim"), Slide(path, "openslide")
    for mpp in (0.5, 0.6667, 1.0, 3.0):
        xys = [(500, 700), (3500, 2700), (-100, 1000)]
        np.testing.assert_array_equal(
            cucim.read_regions(xys, 100, mpp, num_workers=2), openslide.read_regions(xys, 100, mpp, num_workers=2)
        )


@pytest.mark.parametrize(("pixel", "is_read_as_stored"), [(4.0, True), (3.95, False)])
def test_an_exact_region_lies_where_its_pixel_size_says(pixel, is_read_as_stored, tmp_path):
    """A level within 2 % of the wanted pixel size is 12 pixels away at the far end of a region of 1,000."""
    width = 4000
    image = np.full((64, width, 3), 255, np.uint8)
    image[:, 3800:3880] = 0
    write_slide(tmp_path / "a.tif", [image, image[::4, ::4]], mpp=0.25)
    with Slide(tmp_path / "a.tif") as slide:
        assert slide.level_downsamples == (1.0, 4.0)
        size = (round(width / pixel), 4)
        exact, snapped = (slide.read_region((0, 0), size, 0.25 * pixel, exact=exact)[1, :, 0] for exact in (True, False))
    (first, last), expected = np.flatnonzero(exact < 128)[[0, -1]], (3800 / pixel, 3880 / pixel)
    assert (first, last + 1) == pytest.approx(expected, abs=1)
    assert np.array_equal(exact, snapped) == is_read_as_stored


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rounded", [math.floor, math.ceil], ids=["floor", "ceil"])
def test_levels_of_a_core_biopsy_lie_where_the_slide_is(backend, rounded, tmp_path):
    """Of a slide that is 30 times as long as wide, the short side of a level says little of how much smaller it is."""
    width, height, block = 300, 9000, (7680, 8160)
    image = np.full((height, width, 3), 240, np.uint8)
    image[slice(*block)] = 60
    levels = [image]
    for level in range(1, 6):
        step = 2**level
        shape = rounded(height / step), rounded(width / step)
        rows, columns = (
            np.minimum(np.arange(length) * step, end - 1) for length, end in zip(shape, (height, width), strict=True)
        )
        levels.append(image[np.ix_(rows, columns)])
    write_slide(tmp_path / "core.tif", levels, mpp=0.5)
    with Slide(tmp_path / "core.tif", backend) as slide:
        assert len(slide.level_sizes_px) == len(levels)
        for pixel in (8, 16, 24, 32):
            region = slide.read_region((0, 0), (width // pixel, height // pixel), 0.5 * pixel, exact=True)
            dark = np.flatnonzero(region[:, 1, 0] < 150)
            assert (dark[0], dark[-1] + 1) == pytest.approx([edge / pixel for edge in block], abs=0.51), pixel
