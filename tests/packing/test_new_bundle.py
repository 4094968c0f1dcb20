"""A new bundle is one folder: it is packed and its zip verified, and no other file has to know its name."""

import pytest

from scripts.packing.packer import bundle_names, pack
from scripts.packing.verification import CHECKS, verify
from tests.bundles.newcomer import add_newcomer

from .conftest import ADDRESS, write_training


@pytest.mark.slow
def test_a_new_bundle_is_packed_and_verified(tmp_path):
    bundles = add_newcomer(tmp_path, "cdws_mil", "newcomer", num_stages=1)
    assert bundle_names(bundles) == ["newcomer"]
    training = write_training(bundles / "newcomer", tmp_path / "training")
    model_info = tmp_path / "dist" / "model_info.json"
    (packed,) = pack(bundles, ["newcomer"], tmp_path / "dist", lambda name: training, model_info, ADDRESS)
    assert packed.archive.name.startswith("newcomer_v")
    results = verify([packed.archive], model_info)
    assert {result.check: result.error for result in results} == dict.fromkeys(("archive", *CHECKS), "")
