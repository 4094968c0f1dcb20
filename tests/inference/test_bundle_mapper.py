"""What a bundle has to declare for its mapper to be built."""

import json
import shutil
from pathlib import Path

import pytest

from shared.inference.bundle_mapper import load_slide_mapper

BUNDLES = Path(__file__).parents[2] / "bundles"


@pytest.fixture
def bundle(tmp_path):
    """A copy of a bundle's configurations, whose ``inference.json`` has these entries instead of its own; None for none."""

    def write(**entries):
        shutil.copytree(BUNDLES / "wildcat" / "configs", tmp_path / "configs")
        path = tmp_path / "configs" / "inference.json"
        config = json.loads(path.read_text()) | entries
        path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
        return tmp_path

    return write


def test_every_declared_check_is_made(bundle):
    folder = bundle(checks=["@check_version", "$[][1]"])
    with pytest.raises(RuntimeError, match=r"\$\[\]\[1\]"):
        load_slide_mapper(folder)


def test_a_bundle_without_checks_is_refused(bundle):
    with pytest.raises(ValueError, match=r"inference\.json has no key 'checks': expected a list of what is checked before"):
        load_slide_mapper(bundle(checks=None))
