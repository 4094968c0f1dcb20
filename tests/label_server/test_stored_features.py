"""A training takes from a folder of features how they were made."""

import h5py
import pytest

from scripts.label_server.learning.stored_features import keys_of_features

from .embedded import SETTINGS, embed, write_big_slide


@pytest.mark.parametrize("is_kept", [True, False], ids=["tissue kept", "tissue not kept"])
def test_features_say_how_they_were_made(tmp_path, is_kept):
    (tmp_path / "slides").mkdir()
    write_big_slide(tmp_path / "slides/slide.tif", (3, 2))
    embed(tmp_path / "slides", tmp_path / "features", tmp_path / "tissue" if is_kept else None, tissue_mpp=4.0)
    found = keys_of_features(tmp_path / "features")
    tissue = {"tissue_method": "otsu", "tissue_mpp": 4.0} | ({"tissue_dir": str(tmp_path / "tissue")} if is_kept else {})
    assert found == SETTINGS | tissue | {"tokens": "dense", "feature_stride_px": None}


def test_another_programs_features_say_nothing_and_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"contains no features \(\*\.h5\): create them with scripts/embed\.py"):
        keys_of_features(tmp_path)
    (tmp_path / "slide.h5").write_bytes(b"of another kind")
    assert keys_of_features(tmp_path) == {}
    (tmp_path / "settings.json").write_text("{}")
    with h5py.File(tmp_path / "slide.h5", "w") as file:
        file.attrs["encoder"] = '{"name": "uni"}'
    assert keys_of_features(tmp_path) == {}
