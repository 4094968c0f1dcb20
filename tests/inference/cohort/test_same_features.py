"""Features that are there are found by whatever runs next: a bundle with its folder of tissue masks, or a command without one."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from shared.data import TissueCache
from shared.data.tissue_cache import slide_content_key
from shared.inference import Compute, SlideEmbedder, Tissue
from tests.inference.stored import Means, picture

CPU = Compute(device="cpu", amp=False, num_workers=1)


@pytest.fixture
def slide(tmp_path, write_slide):
    return write_slide(tmp_path / "a.tif", picture(), mpp=0.5)


def embed(slide, folder, masks=None, tissue_mpp=8.0, **changed):
    """The rows of the slides that were embedded now."""
    tissue = Tissue(mpp=tissue_mpp) if masks is None else Tissue(cache=TissueCache(masks, tissue_mpp))
    given = {"mpp": 0.5, "tile_size_px": 128, "margin_px": 32, "compute": CPU, "tissue": tissue} | changed
    return SlideEmbedder(given.pop("encoder", None) or Means(), **given).run(slide, folder)


@pytest.mark.parametrize("first_has_masks", [False, True])
def test_a_folder_of_tissue_masks_makes_no_other_features(tmp_path, slide, first_has_masks):
    masks = [tmp_path / "tissue", None] if first_has_masks else [None, tmp_path / "tissue"]
    assert len(embed(slide, tmp_path / "out", masks[0])) == 1
    before = (tmp_path / "out/a.h5").read_bytes()
    assert embed(slide, tmp_path / "out", masks[1]) == embed(slide, tmp_path / "out", masks[0]) == []
    assert (tmp_path / "out/a.h5").read_bytes() == before


def test_features_of_an_edited_mask_are_not_replaced_by_those_of_the_one_that_was_found(tmp_path, slide):
    embed(slide, tmp_path / "out", tmp_path / "tissue")
    (mask,) = (tmp_path / "tissue").glob("a.*.png")
    Image.fromarray(np.ones_like(np.asarray(Image.open(mask)))).save(mask)
    (row,) = embed(slide, tmp_path / "out", tmp_path / "tissue")
    # 900 x 700 px of 16 px.
    assert row["num_features"] == 56 * 44
    for masks in (None, None, tmp_path / "tissue"):
        assert embed(slide, tmp_path / "out", masks) == []


def test_without_masks_tissue_is_found_at_the_given_pixel_size(tmp_path, slide):
    (row,) = embed(slide, tmp_path / "out", None, 2.0)
    (other,) = embed(slide, tmp_path / "masks", tmp_path / "tissue", 2.0)
    assert row["num_features"] == other["num_features"]
    message = r"tissue_mpp: expected 8.0, found 2.0\)\. To use these features give .*: --tissue_mpp 2.0\. Otherwise give another"
    with pytest.raises(ValueError, match=message):
        embed(slide, tmp_path / "out", tmp_path / "tissue")


def test_another_encoder_and_other_weights_are_refused(tmp_path, slide):
    embed(slide, tmp_path / "out")
    other = Means()
    other.name = "medians"
    with pytest.raises(ValueError, match=r"\(encoder: expected medians, found means\)\. .* were made: --encoder means\."):
        embed(slide, tmp_path / "out", encoder=other)
    changed = Means(gain=2.0)
    with pytest.raises(ValueError, match=rf"\(encoder_key: expected {changed.key}, found {Means().key}\)\. Give another folder"):
        embed(slide, tmp_path / "out", encoder=changed)


@pytest.mark.parametrize("has_masks", [False, True])
def test_features_of_version_0_7_0_are_finished(tmp_path, slide, has_masks):
    """Its settings named no pixel size of the tissue where there was no folder of masks, and no options of the encoder."""
    embed(slide, tmp_path / "out")
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    del settings["encoder_options"]
    settings["tissue_mpp"] = None
    decisive = {name: settings[name] for name in sorted(settings) if name != "tissue_dir"}
    parts = json.dumps([decisive, slide_content_key(slide), None], separators=(",", ":"))
    row = json.loads((tmp_path / "out/rows/a.json").read_text())
    row["fingerprint"] = hashlib.sha256(parts.encode()).hexdigest()[:16]
    (tmp_path / "out/settings.json").write_text(json.dumps(settings))
    (tmp_path / "out/rows/a.json").write_text(json.dumps(row))
    assert embed(slide, tmp_path / "out", tmp_path / "tissue" if has_masks else None) == []


@pytest.mark.parametrize(("has_masks", "tissue_mpp", "named"), [(False, 8.0, None), (True, 8.0, 8.0), (True, 2.0, 2.0)])
def test_a_folder_has_the_name_that_version_0_7_0_gave_it(tmp_path, has_masks, tissue_mpp, named):
    """As it was computed there: all settings but ``tissue_dir``, with the pixel size of the kept masks, if there are any."""
    tissue = Tissue(cache=TissueCache(tmp_path / "tissue", tissue_mpp)) if has_masks else Tissue()
    settings = {
        **{"result": "features", "encoder": "means", "encoder_key": Means().key},
        **{"mpp": 0.5, "slide_mpp": None, "tile_mpp": None, "tile_size_px": 128, "margin_px": 32, "cell_px": 16},
        **{"tissue_only": True, "tissue_method": "otsu", "tissue_mpp": named, "amp": False, "features_version": 1},
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    embedder = SlideEmbedder(Means(), 0.5, tile_size_px=128, margin_px=32, compute=CPU, tissue=tissue)
    assert embedder.folder_name == f"means_{digest}"
    # Which 0.7.0 could not be told.
    others = {SlideEmbedder(Means(), 0.5, compute=CPU, tissue=Tissue(mpp=mpp)).folder_name for mpp in (2.0, 4.0, 8.0)}
    assert len(others) == 3
