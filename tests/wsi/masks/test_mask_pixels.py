"""Ordinary ways to store one mask: what a viewer shows, or a refusal that says what to do."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from shared.wsi import MaskMeaning, read_mask_region

SIZE_PX = (48, 32)
WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)


@pytest.fixture(scope="module")
def tumour():
    """(H, W) = (32, 48): a rectangle that is not in the middle."""
    mask = np.zeros(SIZE_PX[::-1], bool)
    mask[4:20, 10:40] = True
    return mask


def read(path, **meaning):
    return read_mask_region(path, (0, 0), SIZE_PX, SIZE_PX, meaning=MaskMeaning(**meaning))


def painted(tumour, inside, outside):
    return np.where(tumour[..., None], np.uint8(inside), np.uint8(outside))


@pytest.mark.parametrize("name", ["mask.png", "strips.tif", "tiled.tif"])
@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ((*RED, 255), (*BLACK, 0)),
        ((*RED, 255), (*WHITE, 0)),
        ((*WHITE, 90), (*WHITE, 0)),
        ((*RED, 255), (*BLACK, 255)),
        ((*WHITE, 128), (*BLACK, 128)),
    ],
)
def test_what_is_transparent_is_background(name, inside, outside, tumour, tmp_path):
    pixels = painted(tumour, inside, outside)
    if name == "mask.png":
        Image.fromarray(pixels).save(tmp_path / name)
    else:
        options = {"tile": (16, 16)} if name == "tiled.tif" else {}
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", extrasamples=["unassalpha"], **options)
    np.testing.assert_array_equal(read(tmp_path / name), tumour)


def test_black_among_transparent_and_coloured_is_background(tumour, tmp_path):
    """A slide that was rotated: nothing is stored in its corners."""
    pixels = painted(tumour, (*WHITE, 255), (*BLACK, 255))
    pixels[:4] = 0
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read(tmp_path / "mask.png"), tumour)


@pytest.mark.parametrize(
    ("entries", "palette", "transparency"),
    [
        ((1, 0), (*WHITE, *RED), 0),  # red drawn on nothing
        ((1, 0), (*WHITE, *RED), b"\x00\x80"),
        ((1, 0), (*BLACK, *RED), None),
        ((1, 0), (*WHITE, *RED), None),  # as QuPath exports its labels
        ((3, 0), (*BLACK, *BLACK, *BLACK, *BLACK), None),  # class indices, never meant to be looked at
    ],
)
def test_entries_of_a_palette(entries, palette, transparency, tumour, tmp_path):
    image = Image.fromarray(np.where(tumour, *np.uint8(entries)))
    image.putpalette(palette)
    image.save(tmp_path / "mask.png", **({} if transparency is None else {"transparency": transparency}))
    np.testing.assert_array_equal(read(tmp_path / "mask.png"), tumour)


def test_a_grey_that_is_transparent(tumour, tmp_path):
    Image.fromarray(np.where(tumour, np.uint8(9), np.uint8(255))).save(tmp_path / "mask.png", transparency=255)
    np.testing.assert_array_equal(read(tmp_path / "mask.png"), tumour)


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}])
def test_a_second_channel_without_a_name_is_transparency(options, tumour, tmp_path):
    """As GDAL writes it."""
    pixels = np.stack([tumour * np.uint8(255), np.full(tumour.shape, 255, np.uint8)], axis=-1)
    tifffile.imwrite(tmp_path / "mask.tif", pixels, photometric="minisblack", planarconfig="contig", **options)
    np.testing.assert_array_equal(read(tmp_path / "mask.tif"), tumour)


def save_palette(tumour, path):
    image = Image.fromarray(np.where(tumour, np.uint8(0), np.uint8(1)))
    image.putpalette([*WHITE, *BLACK])
    image.save(path)


def save_group4(tumour, path):
    Image.fromarray(tumour).save(path, compression="group4", tiffinfo={262: 0})


def save_white_is_zero(tumour, path, **options):
    tifffile.imwrite(path, np.where(tumour, np.uint8(0), np.uint8(255)), photometric="miniswhite", **options)


def save_tiff_palette(tumour, path, **options):
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 0] = 65535
    tifffile.imwrite(path, np.where(tumour, np.uint8(0), np.uint8(1)), photometric="palette", colormap=colours, **options)


@pytest.mark.parametrize(
    ("save", "suffix", "message"),
    [
        (save_palette, ".png", "two greys of a palette"),
        (save_palette, ".gif", "two greys of a palette"),
        (save_tiff_palette, ".tif", "two greys of a palette"),
        (lambda *given: save_tiff_palette(*given, tile=(16, 16)), ".tif", "two greys of a palette"),
        (save_group4, ".tif", "stores white as 0"),
        (save_white_is_zero, ".tif", "stores white as 0"),
        (lambda *given: save_white_is_zero(*given, tile=(16, 16)), ".tif", "stores white as 0"),
        (save_white_is_zero, ".tf8", "stores white as 0"),
        (lambda tumour, path: Image.fromarray(painted(tumour, RED, WHITE)).save(path), ".png", "white and other colours"),
        (
            lambda tumour, path: tifffile.imwrite(path, painted(tumour, RED, WHITE), photometric="rgb", tile=(16, 16)),
            ".tif",
            "white and other colours",
        ),
        (lambda tumour, path: Image.fromarray(painted(tumour, RED, BLACK)).convert("CMYK").save(path), ".tif", "black is not 0"),
        # An empty tile with a transparent margin looks the same.
        (
            lambda tumour, path: Image.fromarray(painted(tumour, (*BLACK, 255), (*WHITE, 0))).save(path),
            ".png",
            "whether black is",
        ),
        (
            lambda tumour, path: Image.fromarray(painted(tumour, (*BLACK, 255), (*BLACK, 0))).save(path),
            ".png",
            "whether black is",
        ),
        (
            lambda tumour, path: Image.fromarray(painted(tumour, (*RED, 0), (*BLACK, 0))).save(path),
            ".png",
            "transparent everywhere",
        ),
    ],
)
def test_what_can_be_understood_in_two_ways_is_refused(save, suffix, message, tumour, tmp_path):
    """Of two programs one means the light pixels and the other one the dark ones."""
    path = tmp_path / f"mask{suffix}"
    save(tumour, path)
    with pytest.raises(ValueError, match=rf"the mask .*mask{suffix} .*{message}.*save it"):
        read(path)


@pytest.mark.parametrize("name", ["mask.png", "mask.tif"])
def test_a_palette_of_class_indices_has_any_colours(name, tumour, tmp_path):
    """Entry 0 is white; only where two entries are used could the mask be inverted."""
    indices = tumour.astype(np.uint8)
    indices[10:, 20:] *= 2
    if name == "mask.png":
        image = Image.fromarray(indices)
        image.putpalette([*WHITE, *RED, *BLACK])
        image.save(tmp_path / name)
    else:
        colours = np.zeros((3, 256), np.uint16)
        colours[:, :2] = np.array([WHITE, RED]).T * 257
        colours[2, 2] = 65535
        tifffile.imwrite(tmp_path / name, indices, photometric="palette", colormap=colours, tile=(16, 16))
    np.testing.assert_array_equal(read(tmp_path / name, num_classes=3), indices)
    np.testing.assert_array_equal(read(tmp_path / name), tumour)


def test_a_class_index_below_transparency_is_background(tumour, tmp_path):
    pixels = np.stack([np.full(tumour.shape, 2, np.uint8), tumour * np.uint8(255)], axis=-1)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read(tmp_path / "mask.png", num_classes=3), tumour * 2)
