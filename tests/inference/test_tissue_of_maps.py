"""A map's tissue is that of the training: by its method, and where masks were edited by these."""

import json

import numpy as np
import pytest
from PIL import Image

from shared.data import TissueCache
from shared.inference import SlideMapper
from tests.inference.flat_options import grouped

SETTINGS = {"mpp": 0.5, "tile_size_px": 128, "margin_px": 0, "device": "cpu", "num_workers": 1}


def run(redness, folder, slide, **options):
    return SlideMapper(redness, **grouped(**SETTINGS | options)).run(slide, folder / "out")


def settings(folder):
    return json.loads((folder / "out" / "settings.json").read_text())


def test_the_method_decides_and_is_told(tmp_path, write_slide, picture, redness):
    # Pale: "white" calls it glass, "saturation" does not. Not so pale that it would be taken for a weak stain.
    picture[40:660, 40:240] = (255, 224, 240)
    slide = write_slide(tmp_path / "slide.tif", picture)
    areas = {}
    for method in ("white", "saturation"):
        (row,) = run(redness, tmp_path, slide, tissue_method=method)
        areas[method] = row["tissue_area_mm2"]
        assert settings(tmp_path)["tissue_method"] == method
    assert areas["saturation"] - areas["white"] == pytest.approx(620 * 200 * 0.25e-6, rel=0.1)


def test_an_edited_mask_decides(tmp_path, write_slide, picture, redness):
    slide = write_slide(tmp_path / "slide.tif", picture)
    masks = TissueCache(tmp_path / "tissue", mpp=4.0, method="hsv")
    mask = masks.get(slide).mask
    mapper = {"tissue": TissueCache(tmp_path / "tissue", mpp=4.0, method="hsv", keep=False)}
    (whole,) = run(redness, tmp_path, slide, **mapper)
    assert whole["tissue_area_mm2"] == pytest.approx(mask.mean() * 1100 * 700 * 0.25e-6, rel=0.02)
    assert not run(redness, tmp_path, slide, **mapper), "finished"
    # Somebody paints all but the left third out: the map is made again, and only there.
    edited = mask.copy()
    edited[:, edited.shape[1] // 3 :] = False
    Image.fromarray(edited).save(masks.file(slide, 0.5))
    (third,) = run(redness, tmp_path, slide, **mapper)
    assert third["tissue_area_mm2"] == pytest.approx(edited.mean() * 1100 * 700 * 0.25e-6, rel=0.05)
    assert third["num_tiles"] < 0.4 * whole["num_tiles"]
    assert third["tumour_area_mm2"] < whole["tumour_area_mm2"]
    assert not run(redness, tmp_path, slide, **mapper), "finished"
    found = settings(tmp_path)
    assert (found["tissue_method"], found["tissue_mpp"]) == ("hsv", 4.0)
    assert found["tissue_dir"] == str(tmp_path / "tissue")


@pytest.mark.parametrize("keep", [True, False])
def test_a_mask_that_is_kept_is_no_edit(keep, tmp_path, write_slide, picture, redness):
    slide = write_slide(tmp_path / "slide.tif", picture)
    tissue = TissueCache(tmp_path / "tissue", keep=keep)
    assert len(run(redness, tmp_path, slide, tissue=tissue)) == 1
    assert (tmp_path / "tissue").exists() == keep
    TissueCache(tmp_path / "tissue").get(slide)
    assert not run(redness, tmp_path, slide, tissue=tissue)
    # Nor does it matter where the folder is.
    (tmp_path / "tissue").rename(tmp_path / "moved")
    assert not run(redness, tmp_path, slide, tissue=TissueCache(tmp_path / "moved", keep=keep))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tissue_method": "grey"}, "tissue_method must be one of otsu, white, hsv, saturation; got 'grey'"),
        ({"tissue_method": "white", "tissue": TissueCache("masks", method="hsv")}, "got 'white', or hsv, that of the saved"),
    ],
)
def test_rejects_methods(options, message, redness):
    with pytest.raises(ValueError, match=message):
        SlideMapper(redness, **grouped(**SETTINGS, **options))


def test_every_tile_that_training_calls_tissue_is_mapped(tmp_path, write_slide, redness):
    """Also where it is less than half of a pixel of the overview."""
    rgb = np.full((1024, 1024, 3), 255, np.uint8)
    slide = write_slide(tmp_path / "slide.tif", rgb)
    masks = TissueCache(tmp_path / "tissue")
    mask = masks.get(slide).mask.copy()
    mask[20, 30] = True  # 16 of the slide's pixels
    Image.fromarray(mask).save(masks.file(slide, 0.5))
    (row,) = run(redness, tmp_path, slide, tissue=masks, overview_size_px=16)
    assert row["num_tiles"] == 1
