"""A training takes from a folder of features how they were made."""

import json

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


STATED = {"mean": [0.7] * 3, "std": [0.2] * 3, "mpp": 0.5, "input_size_px": 224, "licence": "mine"}
UNSTATED = dict.fromkeys(STATED)


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ("mine.pt2", {"encoder_facts": STATED}),
        ("timm/vit_tiny_patch16_224", {"encoder_facts": UNSTATED | {"mpp": 0.5}}),
        ("hf-hub:someone/vit", {"encoder_facts": UNSTATED | {"mpp": 0.5}}),
        ("uni", {}),
    ],
)
def test_what_an_encoders_source_does_not_state_is_told_again(tmp_path, encoder, expected):
    described = {"name": encoder, "smoothing": 1, "tokens": "dense", "stride_px": 16, "native_stride_px": 16, **STATED}
    with h5py.File(tmp_path / "slide.h5", "w") as file:
        file.attrs["encoder"] = json.dumps(described)
    (tmp_path / "settings.json").write_text("{}")
    found = keys_of_features(tmp_path)
    assert {name: value for name, value in found.items() if name == "encoder_facts"} == expected


def test_another_programs_features_say_nothing_and_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"contains no features \(\*\.h5\): create them with scripts/embed\.py"):
        keys_of_features(tmp_path)
    (tmp_path / "slide.h5").write_bytes(b"of another kind")
    assert keys_of_features(tmp_path) == {}
    (tmp_path / "settings.json").write_text("{}")
    with h5py.File(tmp_path / "slide.h5", "w") as file:
        file.attrs["encoder"] = '{"name": "uni"}'
    assert keys_of_features(tmp_path) == {}
