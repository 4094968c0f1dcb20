"""Published numbers, put together from the bundles."""

import json

import pytest

from scripts.declarations.published import published_data, read_published


@pytest.fixture
def bundles(tmp_path):
    """A folder of bundles with these published numbers: name -> content."""

    def write(**published):
        for name, content in published.items():
            (tmp_path / name / "docs").mkdir(parents=True)
            (tmp_path / name / "docs" / "published.json").write_text(json.dumps(content))
        return tmp_path

    return write


def on_slides(citation, **scores):
    return {"slides": {"title": "Slides", "citation": citation, "scores": scores}}


def test_methods_of_several_bundles_meet_on_a_data_set(bundles):
    folder = bundles(
        one=on_slides("A, 2020", **{"": {"iou": 0.5}, "unet": {"iou": 0.6}}),
        two=on_slides("A, 2020", **{"": {"iou": 0.7}}),
        three=on_slides("B, 2021", **{"": {"iou": 0.8}}),
    )
    (found,) = published_data(folder).values()
    assert (found.title, found.citation) == ("Slides", "A, 2020; B, 2021")
    assert [found.of(key)["iou"] for key in ("one", "one+unet", "one+slides+unet", "two+slides", "three")] == [
        0.5,
        0.6,
        0.6,
        0.7,
        0.8,
    ]
    assert found.of("one+vnet") == found.of("four") == {}


def test_a_bundle_may_say_nothing(tmp_path):
    assert read_published(tmp_path) == published_data(tmp_path) == {}


def test_what_cannot_be_read_is_named(bundles):
    folder = bundles(one={"slides": {"title": "Slides", "scores": {}}}, two={})
    with pytest.raises(ValueError, match=r"one/docs/published\.json, 'slides': expected the entries .*; found no citation"):
        published_data(folder)
    (folder / "two" / "docs" / "published.json").write_text("{")
    with pytest.raises(ValueError, match=r"two/docs/published\.json cannot be read"):
        read_published(folder / "two")
