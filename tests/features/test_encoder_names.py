"""Published encoders are known by their names in TRIDENT and STAMP, and none by that of another."""

import pytest

from shared.encoders import load_encoder
from shared.encoders.presets import PRESETS
from shared.features.slide_features import is_other_name

# From the lists of models of TRIDENT and of STAMP.
NAMES = {
    **{"uni_v1": "uni", "uni_v2": "uni2-h", "conch_v1": "conch", "virchow": "virchow", "virchow2": "virchow2"},
    **{"hoptimus0": "h-optimus-0", "hoptimus1": "h-optimus-1", "phikon_v2": "phikon-v2", "gigapath": "prov-gigapath"},
    **{"midnight12k": "midnight-12k", "kaiko-vitb8": "kaiko-vitb8", "lunit-vits8": "lunit-vits8"},
    **{"mahmood-uni": "uni", "mahmood-conch": "conch", "uni2": "uni2-h", "h_optimus_0": "h-optimus-0"},
    **{"conch_v15": None, "phikon": None, "ctranspath": None, "resnet50": None, "musk": None},
}


@pytest.mark.parametrize(("name", "preset"), NAMES.items())
def test_a_name_is_that_of_one_preset(name, preset):
    facts = [one.facts() for one in PRESETS.values()]
    found = [one.name for one in facts if not is_other_name(name, [one.name, *one.aliases])]
    assert found == ([preset] if preset else [])


def test_an_encoder_without_a_table_has_its_own_name():
    encoder = load_encoder("efficientnet_lite0")
    assert encoder.aliases == ["efficientnet_lite0"]
    encoder.name = "timm/resnet50.a1_in1k"
    assert encoder.aliases == ["timm/resnet50.a1_in1k", "resnet50.a1_in1k", "resnet50"]
