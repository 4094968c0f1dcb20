"""Coordinates of viewers against level 0: requests, answers and what was drawn."""

import json

import numpy as np
import pytest
from shapely.geometry import box, shape

from scripts.label_server.endpoints.responses import Answer, asap_xml, geojson
from scripts.label_server.endpoints.wsi_request import parse_wsi_request
from scripts.label_server.learning.weak_labels import weak_label
from scripts.label_server.maps.contours import moved_features
from scripts.label_server.refusal import Refusal
from scripts.label_server.viewer_frame import frame_of_viewer, frame_origin_of_slide, moved_box
from shared.writers import annotation_feature
from tests.wsi.scn_slide import write_scn

ORIGIN_PX = (300, 200)


def feature(polygon, name):
    return annotation_feature(polygon, name, (200, 0, 0), {})


@pytest.fixture
def slide(tmp_path):
    return write_scn(tmp_path / "slide.scn", np.full((256, 320, 3), 200, np.uint8), ORIGIN_PX, (900, 700))


@pytest.mark.parametrize(
    ("output", "asked", "default", "frame"),
    [
        ("asap", None, "qupath", "qupath"),
        ("geojson", None, "qupath", "qupath"),
        ("geojson", None, "level0", "level0"),
        ("geojson", "level0", "qupath", "level0"),
        ("dsa", None, "qupath", "level0"),
        ("json", None, "qupath", "level0"),
        ("dsa", "qupath", "level0", "qupath"),
    ],
)
def test_the_frame_of_a_viewer(output, asked, default, frame):
    assert frame_of_viewer(output, asked, default) == frame


def test_a_request_there_and_an_answer_back(slide):
    """QuPath asks for (10, 20), which is (310, 220) at level 0, and gets its outline where it asked."""
    request = parse_wsi_request({"location": [10, 20], "size": [100, 80]})
    assert request.frame is None
    origin = frame_origin_of_slide(slide, frame_of_viewer("asap", request.frame, "qupath"))
    assert origin == ORIGIN_PX
    assert moved_box(request.box, origin) == (310, 220, 100, 80)
    assert moved_box(None, origin) is None
    drawn = [feature(box(310, 220, 330, 250).difference(box(315, 225, 320, 230)), "Tumor")]
    (moved,) = moved_features(drawn, (-origin[0], -origin[1]))
    assert shape(moved["geometry"]).equals(box(10, 20, 30, 50).difference(box(15, 25, 20, 30)))
    assert list(moved_features(drawn, (0, 0))) == drawn
    answer = Answer("camel", "1", "", (10, 20), (100, 80), [moved], {}, annotation_frame="qupath")
    assert json.loads(geojson(answer))["annotation_frame"] == "qupath"
    assert b'X="30"' in asap_xml(answer)


def test_a_request_may_name_its_frame(slide, tmp_path):
    assert parse_wsi_request({"annotation_frame": "level0"}).frame == "level0"
    with pytest.raises(Refusal, match="annotation_frame must be one of qupath, level0, got 'bounds'"):
        parse_wsi_request({"annotation_frame": "bounds"})
    assert frame_origin_of_slide(slide, "level0") == (0, 0)
    (tmp_path / "a.tif").write_bytes(b"II*")
    with pytest.raises(Refusal, match=r"a\.tif cannot be read"):
        frame_origin_of_slide(tmp_path / "a.tif", "qupath")


def test_what_was_drawn_is_moved_to_level_0(tmp_path):
    path = tmp_path / "label.geojson"
    drawn = [feature(box(0, 0, 10, 10), "Tumor")]
    for members, options, expected in [
        ({}, {}, box(300, 200, 310, 210)),
        ({}, {"frame": "level0"}, box(0, 0, 10, 10)),
        ({"annotation_frame": "level0"}, {}, box(0, 0, 10, 10)),
    ]:
        path.write_text(
            json.dumps({"type": "FeatureCollection", **members, "features": drawn}, default=lambda ring: ring.tolist())
        )
        assert weak_label({}, path, qupath_origin_px=ORIGIN_PX, **options).drawn.tumour.equals(expected)


@pytest.mark.parametrize("order", [1, -1])
def test_what_lies_inside_is_no_part_of_the_tumour_around_it(order, tmp_path):
    """Normal tissue and stroma are cut out, tumour in them is kept, what has no class says nothing."""
    drawn = [
        feature(box(0, 0, 100, 100), "Tumor"),
        feature(box(10, 10, 50, 50), "Normal"),
        feature(box(20, 20, 30, 30), "Tumor"),
        feature(box(60, 60, 70, 70), "Stroma"),
        feature(box(80, 80, 90, 90), "Region*"),
    ]
    path = tmp_path / "label.geojson"
    collection = {"type": "FeatureCollection", "features": drawn[::order]}
    path.write_text(json.dumps(collection, default=lambda ring: ring.tolist()))
    areas = weak_label({}, path).drawn
    assert (areas.label, areas.tumour.area, areas.normal.area) == (1, 100**2 - 40**2 + 10**2 - 10**2, 40**2 - 10**2)
