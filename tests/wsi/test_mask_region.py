import json
import logging
import os

import numpy as np
import pytest
import tifffile
from PIL import Image

from shared.wsi import MaskMeaning, Slide, mask_region, read_mask_region

IMAGE_SIZE = (517, 301)
CLASSES = ["normal", "benign", "in situ", "invasive"]


@pytest.fixture(scope="module")
def mask():
    """(H, W) = (301, 517), values 0, 1, 255."""
    return np.random.default_rng(0).choice(np.uint8([0, 0, 1, 255]), size=(301, 517))


def save(mask, path, **options):
    if path.suffix == ".png":
        Image.fromarray(mask).save(path)
    else:
        tifffile.imwrite(path, mask, photometric="minisblack", **options)
    return path


def reference(mask, xy, size_px, factor, downsample):
    """Pixel by pixel."""
    region = np.zeros(size_px[::-1], dtype=np.uint8)
    for row in range(size_px[1]):
        for column in range(size_px[0]):
            x, y = (int(np.floor(s + (i + 0.5) * downsample)) for s, i in zip(xy, (column, row), strict=True))
            if 0 <= x < IMAGE_SIZE[0] and 0 <= y < IMAGE_SIZE[1]:
                y, x = min(y // factor, mask.shape[0] - 1), min(x // factor, mask.shape[1] - 1)
                region[row, column] = mask[y, x] > 0
    return region


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mask.png", {}),
        ("strips.tif", {"compression": "deflate"}),
        ("tiled.tif", {"tile": (64, 32), "compression": "deflate", "predictor": True}),
        ("raw.tif", {"tile": (64, 64)}),
    ],
)
@pytest.mark.parametrize("downsample", [1.0, 2.0, 4 / 3, 0.5])
@pytest.mark.parametrize("xy", [(0, 0), (61, 33), (-20, -7), (490, 280), (700, 0)])
def test_nearest_neighbour_inside_and_0_outside(name, options, downsample, xy, mask, tmp_path):
    region = read_mask_region(save(mask, tmp_path / name, **options), xy, (40, 31), IMAGE_SIZE, downsample)
    assert region.dtype == np.uint8
    np.testing.assert_array_equal(region, reference(mask, xy, (40, 31), 1, downsample))


@pytest.mark.parametrize("factor", [2, 4, 16])
@pytest.mark.parametrize("rounding", [np.floor, np.ceil])
def test_masks_of_a_whole_fraction(factor, rounding, mask, tmp_path):
    width, height = (int(rounding(side / factor)) for side in IMAGE_SIZE)
    small = mask[:height, :width]
    path = save(small, tmp_path / "small.png")
    for xy in [(0, 0), (470, 270), (-9, 100)]:
        np.testing.assert_array_equal(
            read_mask_region(path, xy, (50, 40), IMAGE_SIZE), reference(small, xy, (50, 40), factor, 1.0)
        )


def test_the_overview_of_a_large_mask_is_read_in_bands(mask, tmp_path, monkeypatch):
    """Every 40th pixel of it is needed, and all of it would not fit into memory."""
    path = save(mask, tmp_path / "mask.tif", tile=(64, 64))
    whole = read_mask_region(path, (-30, -20), (60, 50), IMAGE_SIZE, 10.0)
    windows, read = [], mask_region._TiledMask.read

    def watched(self, left, top, right, bottom):
        windows.append((right - left) * (bottom - top))
        return read(self, left, top, right, bottom)

    monkeypatch.setattr(mask_region._TiledMask, "read", watched)
    monkeypatch.setattr(mask_region, "_LARGEST_WINDOW_PX", 30_000)
    np.testing.assert_array_equal(read_mask_region(path, (-30, -20), (60, 50), IMAGE_SIZE, 10.0), whole)
    assert len(windows) > 4
    assert max(windows) <= 30_000


@pytest.mark.parametrize("image_size_px", [(1500, 40000), (40000, 1500)])
def test_a_mask_of_a_core_biopsy_is_a_64th(image_size_px, tmp_path):
    """1500 / 64 is 23.4, and 1500 / 23 is 65.2: the long side tells."""
    along = int(np.argmax(image_size_px))
    small = np.zeros((image_size_px[1] // 64, image_size_px[0] // 64), np.uint8)
    small[(slice(None), slice(600, 610)) if along == 0 else (slice(600, 610), slice(None))] = 1
    xy = (600 * 64 - 5, 0) if along == 0 else (0, 600 * 64 - 5)
    region = read_mask_region(save(small, tmp_path / "small.png"), xy, 700, image_size_px)
    assert np.flatnonzero(region.any(axis=along))[[0, -1]].tolist() == [5, 5 + 640 - 1]


@pytest.mark.parametrize("size", [(516, 301), (500, 291), (258, 140), (1034, 602), (345, 201)])
def test_another_size_names_both(size, tmp_path):
    Image.new("L", size).save(tmp_path / "mask.png")
    message = rf"mask\.png is {size[0]} x {size[1]} px, slide\.svs 517 x 301 px"
    with pytest.raises(ValueError, match=message):
        read_mask_region(tmp_path / "mask.png", (0, 0), 8, IMAGE_SIZE, image_path="slide.svs")


@pytest.mark.parametrize(
    ("mode", "colour", "value"),
    [
        ("RGB", (0, 0, 9), 1),
        ("RGBA", (0, 0, 0, 255), 0),
        ("RGBA", (1, 0, 0, 255), 1),
        ("1", 1, 1),
        ("P", 0, 0),
        ("P", 2, 1),
    ],
)
def test_any_nonzero_colour_is_tumour(mode, colour, value, tmp_path):
    Image.new(mode, (8, 8), colour).save(tmp_path / "mask.png")
    assert (read_mask_region(tmp_path / "mask.png", (0, 0), 8, (8, 8)) == value).all()


def test_16_bit_labels(tmp_path):
    path = save(np.full((64, 64), 256, np.uint16), tmp_path / "labels.tif", tile=(32, 32))
    assert read_mask_region(path, (0, 0), 64, (64, 64)).all()


def test_tiles_that_were_left_out_are_no_tumour(tmp_path):
    tumour = np.ones((64, 64), np.uint8)
    tiles = (tumour, None, None, tumour)
    tifffile.imwrite(tmp_path / "mask.tif", iter(tiles), shape=(128, 128), dtype=np.uint8, tile=(64, 64), compression="deflate")
    region = read_mask_region(tmp_path / "mask.tif", (0, 0), 128, (128, 128))
    np.testing.assert_array_equal(region, np.kron([[1, 0], [0, 1]], np.ones((64, 64))))


def test_mask_that_was_written_again_is_read_again(tmp_path):
    path = save(np.zeros((8, 8), np.uint8), tmp_path / "mask.png")
    assert not read_mask_region(path, (0, 0), 8, (8, 8)).any()
    save(np.ones((8, 8), np.uint8), path)
    assert read_mask_region(path, (0, 0), 8, (8, 8)).all()


def test_refuses_jpeg_and_what_is_missing_or_damaged(tmp_path, mask):
    Image.fromarray(mask).save(tmp_path / "mask.jpg")
    (tmp_path / "mask.png").write_bytes(b"no image")
    for name, message in {
        "mask.jpg": "JPEG-compressed",
        "mask.png": "save it as PNG",
        "no.png": "`mask` column",
    }.items():
        with pytest.raises(ValueError, match=f"{name}.*{message}"):
            read_mask_region(tmp_path / name, (0, 0), 8, IMAGE_SIZE)


@pytest.mark.parametrize("tile", [(16, 16), None])
def test_a_mask_of_several_channels_is_refused(tile, tmp_path, mask):
    """The first may be that of another class; a smaller picture may be a level."""
    options = {"photometric": "minisblack", "metadata": None, "tile": tile}
    for second, is_refused in ((mask, True), (mask[::2, ::2], False)):
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            tiff.write(np.zeros_like(mask) if is_refused else mask, **options)
            tiff.write(second, **options)
        if is_refused:
            with pytest.raises(ValueError, match=r"a\.tif holds 2 pictures of the same size"):
                read_mask_region(tmp_path / "a.tif", (0, 0), IMAGE_SIZE, IMAGE_SIZE)
        else:
            assert read_mask_region(tmp_path / "a.tif", (0, 0), IMAGE_SIZE, IMAGE_SIZE).any()


def test_a_mask_may_be_as_large_as_its_image_whatever_pillow_thinks(tmp_path, mask, monkeypatch):
    path = save(mask, tmp_path / "mask.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(read_mask_region(path, (0, 0), IMAGE_SIZE, IMAGE_SIZE), mask > 0)
    assert Image.MAX_IMAGE_PIXELS == 100
    # A larger one is not even decoded.
    with pytest.raises(ValueError, match=r"mask\.png is 517 x 301 px, its image 200 x 100 px: a mask must have"):
        read_mask_region(path, (0, 0), 8, (200, 100))


@pytest.mark.parametrize(
    ("name", "remedy"), [("mask.png", "Save it again, or as a tiled TIFF"), ("mask.tif", "again, or as PNG")]
)
def test_the_remedy_for_damage_is_another_format(name, remedy, tmp_path, mask):
    path = save(mask, tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"{name} cannot be read.*{remedy}"):
        read_mask_region(path, (0, 0), 8, IMAGE_SIZE)


@pytest.mark.parametrize("tile", [(64, 64), None])
@pytest.mark.parametrize("compression", ["deflate", "lzw"])
def test_damage_within_a_tiff_names_the_mask(compression, tile, mask, tmp_path):
    path = save(mask, tmp_path / "mask.tif", compression=compression, tile=tile)
    with tifffile.TiffFile(path) as tiff:
        offset, length = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + length] = bytes(length)
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"the mask .*mask\.tif cannot be read"):
        read_mask_region(path, (0, 0), 40, IMAGE_SIZE)
    if tile is not None:  # other tiles are sound
        np.testing.assert_array_equal(read_mask_region(path, (64, 64), 40, IMAGE_SIZE), mask[64:104, 64:104] > 0)


def test_mask_lies_on_its_slide(wsi_test_data):
    slide = Slide(wsi_test_data / "mosaic_slides/slides/tumor_000.tif")
    path = wsi_test_data / "mosaic_slides/masks/tumor_000.png"
    whole = np.asarray(Image.open(path)) > 0
    downsample = slide.downsample(1.0)
    region = read_mask_region(path, (0, 0), (1812, 1392), slide.size_px, downsample)
    assert region.mean() == pytest.approx(whole.mean(), abs=1e-3)


@pytest.fixture(scope="module")
def classes():
    """(H, W) = (301, 517), values 0 to 3."""
    return np.random.default_rng(1).integers(0, 4, (301, 517), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mask.png", {}),
        ("strips.tif", {"compression": "deflate"}),
        ("tiled.tif", {"tile": (64, 32), "compression": "deflate"}),
    ],
)
@pytest.mark.parametrize("downsample", [1.0, 4 / 3, 2.0])
def test_class_indices(name, options, downsample, classes, tmp_path):
    path = save(classes, tmp_path / name, **options)
    region = read_mask_region(path, (-20, 61), (40, 31), IMAGE_SIZE, downsample, meaning=MaskMeaning(num_classes=4))
    expected = sum(
        value * reference(classes == value, (-20, 61), (40, 31), 1, downsample).astype(np.uint8) for value in range(1, 4)
    )
    assert region.dtype == np.uint8
    np.testing.assert_array_equal(region, expected)
    # The same file with two classes: what is not 0 is 1.
    binary = read_mask_region(path, (-20, 61), (40, 31), IMAGE_SIZE, downsample)
    np.testing.assert_array_equal(binary, expected > 0)


@pytest.mark.parametrize("name", ["mask.png", "strips.tif", "tiled.tif"])
def test_a_value_that_is_no_class_is_named(name, classes, tmp_path):
    path = save(classes, tmp_path / name, **({"tile": (64, 64)} if name == "tiled.tif" else {}))
    with pytest.raises(
        ValueError, match=rf"{name} has a pixel of value 3: with 3 classes a pixel's value must be its class index, 0\.\.2"
    ):
        read_mask_region(path, (0, 0), 40, IMAGE_SIZE, meaning=MaskMeaning(num_classes=3))


@pytest.mark.parametrize(("mode", "colour", "value"), [("L", 3, 3), ("LA", (1, 255), 1), ("1", 1, 1), ("I;16", 3, 3)])
def test_class_indices_in_one_channel_of_any_kind(mode, colour, value, tmp_path):
    Image.new(mode, (8, 8), colour).save(tmp_path / "mask.png")
    assert (read_mask_region(tmp_path / "mask.png", (0, 0), 8, (8, 8), meaning=MaskMeaning(num_classes=4)) == value).all()


def test_class_indices_with_a_palette(classes, tmp_path):
    """Label images are often saved so, to be looked at."""
    image = Image.fromarray(classes)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert image.mode == "P"
    image.save(tmp_path / "mask.png")
    region = read_mask_region(tmp_path / "mask.png", (0, 0), IMAGE_SIZE, IMAGE_SIZE, meaning=MaskMeaning(num_classes=4))
    np.testing.assert_array_equal(region, classes)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_no_class_indices(mode, tmp_path):
    Image.new(mode, (8, 8)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"mask\.png has 3 channels of uint8: with 4 classes"):
        read_mask_region(tmp_path / "mask.png", (0, 0), 8, (8, 8), meaning=MaskMeaning(num_classes=4))


@pytest.mark.parametrize(("pixels", "words"), [(np.float32(1), "1 channels of float32"), (np.int16(-1), "value -1")])
def test_numbers_that_are_no_class_indices(pixels, words, tmp_path):
    path = save(np.full((64, 64), pixels), tmp_path / "mask.tif", tile=(32, 32))
    with pytest.raises(ValueError, match=words):
        read_mask_region(path, (0, 0), 8, (64, 64), meaning=MaskMeaning(num_classes=4))


def features(*squares):
    """GeoJSON of squares (class, left, top, side)."""
    made = []
    for name, left, top, side in squares:
        right, bottom = left + side, top + side
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        made.append({"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}})
    return json.dumps(made)


@pytest.mark.parametrize("downsample", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("xy", [(0, 0), (-20, -7), (490, 280), (700, 0)])
def test_annotations_give_the_pixels_of_a_mask_drawn_from_them(xy, downsample, tmp_path):
    squares = [("benign", 10, 20, 300), ("invasive", 33, 41, 57), ("normal", 50, 50, 9), ("in situ", 480, 270, 400)]
    (tmp_path / "slide.GEOJSON").write_text(features(*squares))
    drawn = np.zeros((301, 517), dtype=np.uint8)
    for name, left, top, side in squares:
        drawn[top : top + side, left : left + side] = CLASSES.index(name)
    path = save(drawn, tmp_path / "mask.png")
    expected = read_mask_region(path, xy, (70, 50), IMAGE_SIZE, downsample, meaning=MaskMeaning(num_classes=4))
    region = read_mask_region(
        tmp_path / "slide.GEOJSON", xy, (70, 50), IMAGE_SIZE, downsample, meaning=MaskMeaning(num_classes=4, class_names=CLASSES)
    )
    assert region.dtype == np.uint8
    np.testing.assert_array_equal(region, expected)


def test_annotations_of_two_classes(tmp_path):
    path = tmp_path / "slide.json"
    path.write_text(features(("Tumor", 0, 0, 8), ("Stroma", 2, 2, 4)))
    with pytest.raises(ValueError, match=r"slide\.json: expected annotations of a single class.*found Tumor \(1\), Stroma \(1\)"):
        read_mask_region(path, (0, 0), 8, IMAGE_SIZE)
    assert read_mask_region(path, (0, 0), 8, IMAGE_SIZE, meaning=MaskMeaning(tumour_classes=["tumor"])).sum() == 64 - 16
    assert (read_mask_region(path, (0, 0), 8, IMAGE_SIZE, meaning=MaskMeaning(tumour_classes=["Tumor", "Stroma"])) == 1).all()
    named = read_mask_region(path, (0, 0), 8, IMAGE_SIZE, meaning=MaskMeaning(class_names=["stroma", "tumor"]))
    assert named.sum() == 64 - 16
    with pytest.raises(ValueError, match=r"slide\.json: feature 2 has the class 'Stroma', expected one of 'normal', 'tumor'"):
        read_mask_region(path, (0, 0), 8, IMAGE_SIZE, meaning=MaskMeaning(class_names=["normal", "tumor"]))
    with pytest.raises(ValueError, match=r"slide\.json: annotations of 3 classes need class_names"):
        read_mask_region(path, (0, 0), 8, IMAGE_SIZE, meaning=MaskMeaning(num_classes=3))
    with pytest.raises(ValueError, match="class_names must be 2 different names"):
        read_mask_region(path, (0, 0), 8, IMAGE_SIZE, meaning=MaskMeaning(class_names=CLASSES))


def test_annotations_that_were_written_again_are_read_again(tmp_path):
    path = tmp_path / "slide.json"
    for side in (2, 4):
        path.write_text(features(("Tumor", 0, 0, side)))
        os.utime(path, ns=(0, side * 10**9))
        assert read_mask_region(path, (0, 0), 8, IMAGE_SIZE).sum() == side**2


def test_annotations_outside_the_image(tmp_path, caplog):
    path = tmp_path / "slide.json"
    path.write_text(features(("Tumor", 500, 290, 100), ("Tumor", 600, 0, 8)))
    with caplog.at_level(logging.WARNING):
        region = read_mask_region(path, (500, 280), (40, 40), IMAGE_SIZE)
    np.testing.assert_array_equal(np.argwhere(region)[[0, -1]], [[10, 0], [20, 16]])  # cut off at 517 x 301 px
    assert r"lie outside the image of 517 x 301 px: feature 2 at (600, 0) to (608, 8)" in caplog.text
    path.write_text(features(("Tumor", 600, 0, 8), ("Tumor", 0, -9, 4)))
    os.utime(path, ns=(0, 0))
    with pytest.raises(ValueError, match=r"all annotations of .*slide\.json lie outside the image of 517 x 301 px.*and 1 more"):
        read_mask_region(path, (0, 0), 8, IMAGE_SIZE)


def test_annotations_that_are_missing_or_damaged(tmp_path):
    (tmp_path / "slide.xml").write_text("<Annotations>")
    with pytest.raises(ValueError, match=r"slide\.xml are damaged"):
        read_mask_region(tmp_path / "slide.xml", (0, 0), 8, IMAGE_SIZE)
    with pytest.raises(ValueError, match=r"no\.xml.*`mask` column"):
        read_mask_region(tmp_path / "no.xml", (0, 0), 8, IMAGE_SIZE)


def test_a_file_without_annotations_is_all_normal(tmp_path):
    (tmp_path / "slide.xml").write_text("<ASAP_Annotations><Annotations/></ASAP_Annotations>")
    assert not read_mask_region(tmp_path / "slide.xml", (0, 0), 8, IMAGE_SIZE).any()


def test_lesions_of_a_real_slide(wsi_test_data):
    """A lesion of CAMELYON16 on a slide of 100 000 x 200 000 px."""
    path = wsi_test_data / "annotations/tumor_002.xml"
    region = read_mask_region(path, (46_400, 102_400), (300, 575), (100_000, 200_000), 4.0)
    assert region.sum() * 16 == pytest.approx(958_310.5, rel=0.005)
