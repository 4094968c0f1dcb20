"""Published numbers, put together from the bundles."""

import json

import pytest

from scripts.declarations.published import WHOLE, published_data, read_published


@pytest.fixture
def bundles(tmp_path):
    """A folder of bundles with these published numbers: name -> content."""

    def write(**published):
        for name, content in published.items():
            (tmp_path / name / "docs").mkdir(parents=True)
            (tmp_path / name / "docs" / "published.json").write_text(json.dumps(content))
        return tmp_path

    return write


def on_slides(citation, *rows, **more):
    return {"slides": {"title": "Slides", "citation": citation, "rows": list(rows), **more}}


def row(iou, *methods, **more):
    return {"scores": {"iou": iou}, **({"methods": list(methods)} if methods else {}), **more}


def test_methods_of_several_bundles_meet_on_a_data_set(bundles):
    folder = bundles(
        one=on_slides("A, 2020", row(0.5), row(0.6, "unet", "other+unet")),
        two=on_slides("A, 2020", row(0.7)),
        three=on_slides("B, 2021", row(0.8)),
    )
    (found,) = published_data(folder).values()
    assert (found.title, found.citation, found.score_names) == ("Slides", "A, 2020; B, 2021", {"iou"})
    keys = ["one", "one+unet", "one+slides+unet", "one+other+unet", "two+slides", "three"]
    assert [found.of(key, {})["iou"] for key in keys] == [0.5, 0.6, 0.6, 0.6, 0.7, 0.8]
    assert found.of("one+vnet", {}) == found.of("four", {}) == {}


def test_a_row_is_shown_for_its_settings_alone(bundles):
    """Those of the data set are those of every row; null is a key that is null, or that is not there."""
    folder = bundles(
        one=on_slides(
            "A", row(0.5, settings={"share": 1.0}), row(0.4, settings={"share": 0.2}), settings={"folds": None, "n": [4]}
        )
    )
    (found,) = published_data(folder).values()
    assert found.of("one", {"share": 1, "n": [4]}) == {"iou": 0.5}
    assert found.of("one", {"share": 0.2, "n": [4], "folds": None}) == {"iou": 0.4}
    for config in ({"share": 0.6, "n": [4]}, {"share": 1.0, "n": [8]}, {"share": 1.0, "n": [4], "folds": 5}, {}):
        assert found.of("one", config) == {}


def test_a_row_is_shown_beside_its_group_alone(bundles):
    (found,) = published_data(bundles(one=on_slides("A", row(0.5), row(0.6, group="a"), row(0.7, group="b")))).values()
    assert [found.of_groups(groups).of("one", {}) for groups in ({WHOLE}, {"a"}, {"b"}, {"c"})] == [
        {"iou": 0.5},
        {"iou": 0.6},
        {"iou": 0.7},
        {},
    ]


def test_a_row_is_shown_beside_its_unit_alone(bundles):
    folder = bundles(one=on_slides("A", row(0.5), unit="slides"), two=on_slides("A", row(0.6)))
    (found,) = published_data(folder).values()
    assert [found.of_unit(unit).of("one", {}) for unit in ("images", "slides")] == [{}, {"iou": 0.5}]
    assert [found.of_unit(unit).of("two", {}) for unit in ("images", "slides")] == [{"iou": 0.6}] * 2
    with pytest.raises(ValueError, match=r"published\.json, 'slides': expected the unit images or slides; found 'patches'"):
        read_published(bundles(three=on_slides("A", row(0.5), unit="patches")) / "three")


def test_a_bundle_may_say_nothing(tmp_path):
    assert read_published(tmp_path) == published_data(tmp_path) == {}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"title": "Slides", "rows": []}, r"expected the entries title, citation, rows; found no citation"),
        ({"title": "Slides", "citation": "A", "scores": {}}, r"expected the entries .*; found no rows"),
        (
            {"title": "Slides", "citation": "A", "rows": [{"scores": {"iou": 0.5}}, {"methods": [""]}]},
            r"row 2: expected the entry scores; found methods",
        ),
    ],
)
def test_what_is_missing_is_named(bundles, data, problem):
    with pytest.raises(ValueError, match=r"one/docs/published\.json, 'slides'(:|,) " + problem):
        published_data(bundles(one={"slides": data}))


def test_what_cannot_be_read_is_named(bundles):
    folder = bundles(one={})
    (folder / "one" / "docs" / "published.json").write_text("{")
    with pytest.raises(ValueError, match=r"one/docs/published\.json cannot be read"):
        read_published(folder / "one")
