import numpy as np
import pytest
from PIL import Image

from shared.wsi import Slide, tissue_mask

EOSIN, GLASS = (215, 130, 180), (243, 243, 242)
INKS = {"green": (20, 110, 60), "blue": (40, 90, 190), "black": (15, 15, 20)}


def painted(colour, background=GLASS):
    """A square of `colour` in the middle of (120, 160) `background`, with a scanner's noise."""
    image = np.empty((120, 160, 3))
    image[:] = background
    image[30:90, 40:120] = colour
    return np.uint8(np.clip(image + np.random.default_rng(0).normal(0, 2, image.shape), 0, 255))


def test_tissue_on_glass():
    expected = np.zeros((120, 160), dtype=bool)
    expected[30:90, 40:120] = True
    assert (tissue_mask(painted(EOSIN)) != expected).mean() < 0.005


@pytest.mark.parametrize("glass", [GLASS, (255, 255, 255), (228, 226, 230)])
def test_empty_glass_has_no_tissue(glass):
    assert tissue_mask(painted(glass, glass)).mean() < 0.001


def test_image_full_of_tissue_is_all_tissue():
    # Otsu alone would call the paler of the two background.
    assert tissue_mask(painted((130, 80, 160), EOSIN)).mean() > 0.99


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("background", [GLASS, EOSIN])
def test_ink_is_no_tissue(ink, background):
    mask = tissue_mask(painted(INKS[ink], background))
    assert mask[34:86, 44:116].mean() < 0.01
    assert mask[:26].mean() == (background == EOSIN)


def test_constant_image():
    assert not tissue_mask(np.full((20, 20, 3), 255, np.uint8)).any()
    assert not tissue_mask(np.zeros((20, 20, 3), np.uint8)).any()
    assert tissue_mask(np.full((20, 20, 3), EOSIN, np.uint8)).all()


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_rejects_other_arrays(image):
    with pytest.raises(ValueError, match=r"need a uint8 image \(H, W, 3\), got"):
        tissue_mask(image)


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("almost-white-1", 0, 0.001),
        ("no-tissue", 0, 0.001),
        ("tcga-green-pen", 0.7, 0.88),  # the pen covers about a fifth
        ("wsi-blue-pen", 0.2, 0.4),
    ],
)
def test_real_artefacts(name, lowest, highest, wsi_test_data):
    with Image.open(wsi_test_data / f"slides/artefact_tiles/{name}.png") as image:
        assert lowest <= tissue_mask(np.asarray(image.convert("RGB"))).mean() <= highest


def test_real_slides(wsi_test_data):
    # Mosaics are tiles on exact white or grey: their level-0 background is known from the colour itself.
    slide = Slide(wsi_test_data / "mosaic_slides/slides/tumor_000.tif")
    assert 0.55 < tissue_mask(slide.thumbnail(512)).mean() < 0.7
    assert 0.25 < tissue_mask(Slide(wsi_test_data / "slides/cmu-1-small-region.svs").thumbnail(512)).mean() < 0.45
