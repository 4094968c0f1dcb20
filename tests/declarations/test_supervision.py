"""What the bundles declare of their labels holds for their trainings, and a wrong declaration is named."""

import json
from pathlib import Path

import pytest

from scripts.comparison.planning.methods import find_methods
from scripts.declarations.supervision import read_supervision

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
METHODS = find_methods(BUNDLES)
SOUND = {"you_have": "masks", "unit": "images", "learns_from": ["label", "mask"], "of_some": ["mask"], "chooses_by": []}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.key)
def test_a_training_learns_from_what_the_metadata_say(method):
    assert method.labels() == method.supervision.learns_from


def test_a_sound_declaration(tmp_path):
    found = read_supervision(bundle(tmp_path, SOUND))
    assert (found.unit, found.learns_from, found.of_some) == ("images", ("label", "mask"), ("mask",))


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (None, "expected an object with the entries you_have, unit, learns_from, of_some, chooses_by; found None"),
        ({"unit": "images"}, "expected an object with the entries you_have, .*; found unit"),
        (SOUND | {"you_have": ""}, "expected in you_have the labels of its user in words, found ''"),
        (SOUND | {"unit": "patients"}, "expected as unit one of images, slides, found 'patients'"),
        (SOUND | {"learns_from": "label"}, "expected as learns_from a list of columns of label, area, mask, found 'label'"),
        (SOUND | {"chooses_by": ["class"]}, "expected as chooses_by a list of columns"),
        (SOUND | {"of_some": ["area"]}, "expected in of_some columns of learns_from"),
    ],
)
def test_a_wrong_declaration_is_named(tmp_path, entry, problem):
    with pytest.raises(ValueError, match=rf"metadata\.json, 'supervision': {problem}"):
        read_supervision(bundle(tmp_path, entry))


def bundle(folder, entry):
    (folder / "configs").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps({"supervision": entry}))
    return folder
