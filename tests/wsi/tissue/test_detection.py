import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2hsv
from skimage.filters import median
from skimage.morphology import disk

from shared.wsi import TISSUE_METHODS, Slide, ink_mask, tissue_mask
from shared.wsi.tissue import detection as tissue

EOSIN, HAEMATOXYLIN, GLASS = (215, 130, 180), (130, 80, 160), (243, 243, 242)
BLOOD = (200, 70, 110)
INKS = {
    "green": (20, 110, 60),
    "blue": (40, 90, 190),
    "black": (15, 15, 20),
    "grey": (80, 80, 84),
    "red": (205, 40, 50),
}
# As in the thick parts of a red stroke, and in folds of pink tissue.
DARK_RED = (75, 22, 35)
METHODS = pytest.mark.parametrize("method", TISSUE_METHODS)


def painted(colour, background=GLASS, noise=2):
    """A rectangle of `colour` in the middle of (120, 160) `background`, with a scanner's noise."""
    image = np.empty((120, 160, 3))
    image[:] = background
    image[30:90, 40:120] = colour
    return np.uint8(np.clip(image + np.random.default_rng(0).normal(0, noise, image.shape), 0, 255))


@METHODS
@pytest.mark.parametrize("colour", [EOSIN, HAEMATOXYLIN, BLOOD])
def test_tissue_on_glass(method, colour):
    expected = np.zeros((120, 160), dtype=bool)
    expected[30:90, 40:120] = True
    mask = tissue_mask(painted(colour), method)
    assert mask.dtype == bool
    assert (mask != expected).mean() < 0.005


@METHODS
@pytest.mark.parametrize("glass", [GLASS, (255, 255, 255), (232, 230, 234)])
def test_empty_glass_has_no_tissue(method, glass):
    assert tissue_mask(painted(glass, glass), method).mean() < 0.001


# The light that passes empty glass, as a share of what passes GLASS: of old lamps, of filters, of little light.
TINTS = {
    "warm": (0.98, 0.92, 0.82),
    "grey": (0.72,) * 3,
    "cold": (0.85, 0.92, 1),
    "green": (0.88, 1, 0.85),
    "pink": (1, 0.93, 0.98),
}


def in_light(image, tint):
    return np.uint8(np.rint(image * np.array(TINTS[tint])).clip(0, 255))


def paled(image):
    """With a fifth of its contrast to GLASS."""
    return np.uint8(np.rint(np.array(GLASS) + (image - np.array(GLASS, float)) / 5).clip(0, 255))


def expected_rectangle():
    expected = np.zeros((120, 160), dtype=bool)
    expected[30:90, 40:120] = True
    return expected


@METHODS
@pytest.mark.parametrize("tint", TINTS)
@pytest.mark.parametrize("colour", [EOSIN, HAEMATOXYLIN, BLOOD, GLASS])
def test_tinted_glass_is_no_tissue_and_hides_none(method, tint, colour):
    expected = expected_rectangle() & (colour != GLASS)
    assert (tissue_mask(in_light(painted(colour), tint), method) != expected).mean() < 0.005


@METHODS
def test_glass_is_told_beside_black_borders_and_white_that_was_not_scanned(method):
    image = in_light(painted(EOSIN), "warm")
    image[:10], image[:, 140:] = 255, 0
    assert (tissue_mask(image, method) != expected_rectangle()).mean() < 0.005


@METHODS
@pytest.mark.parametrize("tint", [None, "warm"])
@pytest.mark.parametrize("colour", [EOSIN, HAEMATOXYLIN, BLOOD, (172, 176, 220)])
def test_pale_tissue(method, colour, tint):
    image = paled(painted(colour, noise=0))
    image = np.uint8((image + np.random.default_rng(1).normal(0, 0.7, image.shape)).clip(0, 255))
    mask = tissue_mask(image if tint is None else in_light(image, tint), method)
    assert (mask != expected_rectangle()).mean() < 0.01


@METHODS
def test_uneven_light_is_no_pale_tissue(method):
    falloff = np.linspace(0, 1, 160)[None, :, None] * np.array([0, 0.015, 0.03])
    image = np.uint8((painted(GLASS, noise=1) * (1 - falloff)).clip(0, 255))
    assert tissue_mask(image, method).mean() < 0.001


@METHODS
@pytest.mark.parametrize("colour", [(172, 176, 220), (120, 135, 185), (95, 105, 165)])
def test_bluish_haematoxylin_is_tissue_and_a_pen_on_it_is_not(method, colour):
    image = painted(colour)
    assert (tissue_mask(image, method) != expected_rectangle()).mean() < 0.005
    image[55:65, 40:120] = INKS["blue"]
    mask = tissue_mask(image, method)
    assert not mask[56:64, 42:118].any()
    assert mask[32:50, 42:118].mean() > 0.98


@METHODS
def test_image_full_of_tissue_is_all_tissue(method):
    # Otsu alone would call the paler of the two background.
    assert tissue_mask(painted(HAEMATOXYLIN, EOSIN), method).mean() > 0.99


@METHODS
@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("background", [GLASS, EOSIN])
def test_ink_is_no_tissue(method, ink, background):
    mask = tissue_mask(painted(INKS[ink], background), method)
    assert mask[34:86, 44:116].mean() < 0.01
    assert mask[:26].mean() == (background == EOSIN)


@METHODS
def test_dark_red_without_plain_red_is_a_fold(method):
    assert tissue_mask(painted(DARK_RED, EOSIN), method).mean() > 0.99


@METHODS
@pytest.mark.parametrize("noise", [0, 5])
def test_red_ink_takes_its_dark_parts_with_it(method, noise):
    image = painted(INKS["red"], noise=0)
    image[30:90, 80:120] = DARK_RED
    image = np.clip(image + np.random.default_rng(0).normal(0, noise, image.shape), 0, 255).astype(np.uint8)
    assert tissue_mask(image, method)[34:86, 44:116].mean() < 0.01


def test_red_specks_are_not_ink():
    image = np.full((120, 120, 3), EOSIN, np.uint8)
    # Groups of red cells, 5 px wide.
    specks = np.indices((120, 120)) % 12 // 5 == 1
    image[specks.all(axis=0)] = INKS["red"]
    assert not ink_mask(image).any()
    # The same colour in strokes is ink.
    image[specks[0]] = INKS["red"]
    image = image.repeat(3, axis=0)
    stroke = specks[0].repeat(3, axis=0)
    assert ink_mask(image)[stroke].mean() > 0.95
    assert ink_mask(image)[~stroke].mean() < 0.1


@pytest.mark.parametrize(("shape", "colour", "share"), [((1, 1), EOSIN, 1), ((1, 1), GLASS, 0), ((1, 9), INKS["red"], 0)])
@METHODS
def test_tiny_images(method, shape, colour, share):
    mask = tissue_mask(np.full((*shape, 3), colour, np.uint8), method)
    assert (mask.shape, mask.dtype, mask.mean()) == (shape, bool, share)


@METHODS
def test_constant_image(method):
    assert not tissue_mask(np.full((20, 20, 3), 255, np.uint8), method).any()
    assert tissue_mask(np.full((20, 20, 3), EOSIN, np.uint8), method).all()
    for ink in INKS.values():
        assert not tissue_mask(np.full((20, 20, 3), ink, np.uint8), method).any()


def test_white_is_all_of_rgb_above_220():
    image = np.array([[[220, 255, 255], [221, 221, 221], [255, 220, 255], [255, 255, 220]]], np.uint8)
    # As published, a pixel of 220 in any channel is tissue; the first is paler than ink, too.
    assert ink_mask(image).tolist() == [[True, False, False, False]]
    assert tissue_mask(image, "white").tolist() == [[False, False, True, True]]


def test_hsv_fills_lumina_but_not_the_glass_between_pieces():
    image = painted(EOSIN, noise=0)
    image[50:60, 50:60] = GLASS  # 100 px, of 19200
    image[50:70, 80:100] = GLASS  # 400 px
    image[:3, :3] = EOSIN  # a speck
    expected = np.zeros((120, 160), dtype=bool)
    expected[30:90, 40:120] = True
    expected[50:70, 80:100] = False
    # The disc of the opening takes 3 px from each corner.
    assert (tissue_mask(image, "hsv") != expected).sum() <= 9 + 4 * 3
    assert not tissue_mask(image, "otsu")[52:58, 52:58].any()


def test_hsv_does_not_fill_ink():
    image = painted(EOSIN, noise=0)
    image[50:58, 50:58] = INKS["blue"]
    assert not tissue_mask(image, "hsv")[50:58, 50:58].any()


def test_saturation_begins_at_a_tenth_of_the_largest():
    # (max - min) / max: 24 / 240 is a tenth; the other is just below it.
    for colour, share in [((240, 216, 230), 1), ((240, 217, 230), 0)]:
        assert tissue_mask(np.full((20, 20, 3), colour, np.uint8), "saturation").mean() == share


def test_saturation_fills_every_hole_and_opens():
    image = painted(EOSIN, noise=0)
    image[40:80, 50:110] = GLASS  # a duct of 2400 px, of 19200
    image[9:17, 9:17] = EOSIN  # smaller than the square of the opening
    image[50:55, 120:] = EOSIN  # a strand, too
    expected = np.zeros((120, 160), dtype=bool)
    expected[30:90, 40:120] = True
    # A square takes nothing from a rectangle.
    assert np.array_equal(tissue_mask(image, "saturation"), expected)
    image[60:64, 40:50] = GLASS  # the duct opens to the outside: no hole
    assert not tissue_mask(image, "saturation")[42:78, 52:108].any()


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_rejects_other_arrays(image):
    with pytest.raises(ValueError, match=r"need a uint8 image \(H, W, 3\), got"):
        tissue_mask(image)


def test_rejects_other_methods():
    with pytest.raises(ValueError, match="need a tissue method of otsu, white, hsv, saturation; got 'grey'"):
        tissue_mask(np.zeros((4, 4, 3), np.uint8), "grey")


@METHODS
@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("almost-white-1", 0, 0.002),
        ("no-tissue", 0, 0.002),
        ("no-tissue-red-pen", 0, 0.02),
        ("tcga-green-pen", 0.7, 0.88),  # tissue on which the pen covers about a fifth
        ("wsi-blue-pen", 0.2, 0.4),  # tissue covers about a third
    ],
)
def test_real_artefacts(method, name, lowest, highest, wsi_test_data):
    with Image.open(wsi_test_data / f"slides/artefact_tiles/{name}.png") as image:
        assert lowest <= tissue_mask(np.asarray(image.convert("RGB")), method).mean() <= highest


@METHODS
@pytest.mark.parametrize(
    ("name", "mpp", "lowest", "highest"),
    [("cmu-1-small-region", None, 0.3, 0.4), ("tcga-cr-7395-01a-01-ts1", 0.5, 0.58, 0.68)],
)
def test_real_slides(method, name, mpp, lowest, highest, wsi_test_data):
    thumbnail = Slide(wsi_test_data / f"slides/{name}.svs", mpp=mpp).thumbnail(512)
    assert lowest < tissue_mask(thumbnail, method).mean() < highest


@METHODS
def test_mosaics_keep_their_tissue(method, wsi_test_data):
    paths = sorted((wsi_test_data / "mosaic_slides/slides").glob("*.tif"))
    assert len(paths) == 12
    for path in paths:
        thumbnail = Slide(path).thumbnail(512)
        # Tiles lie on exact glass, which varies by JPEG only.
        tiles = np.abs(thumbnail - np.median(thumbnail[:8, :8], axis=(0, 1))).max(axis=-1) > 12
        mask = tissue_mask(thumbnail, method)
        assert mask[tiles].mean() > 0.9, path.name
        # Glass that tiles enclose is a hole, which "saturation" fills however large it is.
        assert method == "saturation" or mask[~tiles].mean() < 0.1, path.name


@METHODS
@pytest.mark.parametrize("name", ["slides/cmu-1-small-region.svs", "mosaic_slides/slides/tumor_002.tif"])
def test_real_tissue_is_the_same_in_other_light_and_with_pale_stain(method, name, wsi_test_data):
    thumbnail = Slide(wsi_test_data / name).thumbnail(512)
    expected = tissue_mask(thumbnail, method)
    for other in (*(in_light(thumbnail, tint) for tint in TINTS), paled(thumbnail)):
        mask = tissue_mask(other, method)
        assert (mask & expected).sum() / (mask | expected).sum() > 0.93


def test_short_cuts_give_what_scikit_image_does():
    rgb = np.random.default_rng(0).integers(0, 256, (60, 71, 3), dtype=np.uint8)
    rgb[:9], rgb[9:14, :, 1:] = 0, 255
    np.testing.assert_array_equal(tissue._saturation_of(rgb), rgb2hsv(rgb)[..., 1])
    # At the rim too, where the picture goes on as it ends.
    np.testing.assert_array_equal(tissue._median(rgb[..., 0]), median(rgb[..., 0], disk(2)))
