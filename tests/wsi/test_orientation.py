"""Images and masks whose tag Orientation says that they are to be turned: both are, in the same way."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from shared.wsi import Slide, read_mask_region
from shared.wsi.orientation import upright

from .conftest import smooth_rgb

# Where the first row and the first column of the stored pixels are to be seen (TIFF 6.0).
SEEN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
ORIENTATIONS = pytest.mark.parametrize("orientation", SEEN)


def write_strips(path, pixels, orientation, **options):
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    tag = [(274, "H", 1, orientation, True)]
    options = {"rowsperstrip": 16} | options
    tifffile.imwrite(path, pixels, photometric=photometric, extratags=tag, metadata=None, **options)
    return path


def write_exif(path, pixels, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    return path


@pytest.fixture(scope="module")
def picture():
    """Stored pixels (H, W) = (40, 60), and a mask of them that no turn leaves as it is."""
    mask = np.zeros((40, 60), np.uint8)
    mask[:10, :25], mask[30:, :5] = 1, 1
    return smooth_rgb(60, 40, sigma=6), mask


@ORIENTATIONS
def test_stored_pixels_are_turned(orientation, picture):
    for pixels in picture:
        np.testing.assert_array_equal(upright(pixels, orientation), SEEN[orientation](pixels))


@ORIENTATIONS
@pytest.mark.parametrize("suffix", ["tif", "jpg", "png"])
def test_an_image_and_its_masks_are_turned_alike(suffix, orientation, picture, tmp_path):
    rgb, mask = picture
    write = write_strips if suffix == "tif" else write_exif
    slide = Slide(write(tmp_path / f"image.{suffix}", rgb, orientation))
    seen = SEEN[orientation](rgb)
    assert slide.size_px == seen.shape[1::-1]
    read = slide.read_region((0, 0), slide.size_px)
    assert np.abs(read - seen.astype(int)).max() <= (0 if suffix != "jpg" else 25)
    masks = (
        write_strips(tmp_path / "strips.tif", mask, orientation),
        write_strips(tmp_path / "tiles.tif", mask, orientation, tile=(16, 16), rowsperstrip=None),
        write_exif(tmp_path / "mask.png", mask, orientation),
        write_exif(tmp_path / "upright.png", np.ascontiguousarray(SEEN[orientation](mask)), 1),
    )
    for path in masks:
        region = read_mask_region(path, (0, 0), slide.size_px, slide.size_px)
        np.testing.assert_array_equal(region, SEEN[orientation](mask), err_msg=path.name)


@pytest.mark.parametrize("backend", ["cucim", "openslide"])
def test_tiles_that_are_to_be_turned_are_refused_by_what_does_not_turn_them(backend, picture, tmp_path):
    for orientation in (1, 3):
        options = {"tile": (32, 32), "rowsperstrip": None, "compression": "lzw"}
        path = write_strips(tmp_path / f"{orientation}.tif", picture[0], orientation, **options)
        if orientation == 1:
            np.testing.assert_array_equal(Slide(path, backend).read_region((0, 0), (60, 40)), picture[0])
            continue
        with pytest.raises(ValueError, match=r"3\.tif cannot be read .*Orientation \(3\) .* store it upright"):
            Slide(path, backend)
