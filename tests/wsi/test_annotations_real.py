"""Real annotation files: numbers counted with regular expressions and the shoelace formula, not with the readers' own tools."""

import json
import re

import numpy as np
import pytest
import shapely

from shared.wsi import AnnotationMask, read_annotations

TCGA = "annotations/tcga_imagescope_qupath/TCGA-EJ-5519-01Z-00-DX1"


def shoelace(points):
    x, y = np.asarray(points).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def outlines_in(path, block):
    """The points between the tags of a file's annotations."""
    parts = re.findall(rf"<{block}[ >].*?</{block}>", path.read_text(), re.DOTALL)
    return [np.array(re.findall(r'X="([-\d.]+)"\s+Y="([-\d.]+)"', part), dtype=float) for part in parts]


@pytest.mark.parametrize(
    ("name", "num_points"), [("tumor_001", [855, 1657]), ("tumor_002", [866]), ("tumor_010", [661, 269, 255])]
)
def test_camelyon_lesions(name, num_points, wsi_test_data):
    path = wsi_test_data / f"annotations/{name}.xml"
    annotations = read_annotations(path)
    outlines = outlines_in(path, "Coordinates")
    assert [len(points) for points in outlines] == num_points
    assert len(annotations) == len(outlines)
    for index, (annotation, points) in enumerate(zip(annotations, outlines, strict=True)):
        assert annotation.polygon.is_valid
        assert annotation.polygon.geom_type == "Polygon"
        assert annotation.polygon.area == shoelace(points)
        assert annotation.polygon.bounds == (*points.min(axis=0), *points.max(axis=0))
        assert (annotation.class_name, annotation.group, annotation.is_exclusion) == ("_0", "_0", False)
        assert annotation.place == f"annotation {index + 1} ('Annotation {index}')"


def test_imagescope_file(wsi_test_data):
    path = wsi_test_data / f"{TCGA}.xml"
    annotations = read_annotations(path)
    # The second of its four layers is empty; the first is named by an attribute.
    assert [annotation.layer for annotation in annotations] == [1, 3, 4]
    assert [annotation.class_name for annotation in annotations] == ["CaP", "", ""]
    outlines = outlines_in(path, "Vertices")
    assert [len(points) for points in outlines] == [2531, 648, 203]
    stated = [float(area) for area in re.findall(r'\bArea="([\d.]+)"', path.read_text())]
    for annotation, points, area in zip(annotations, outlines, stated, strict=True):
        assert shoelace(points) == pytest.approx(area, abs=0.1)
        assert annotation.polygon.bounds == pytest.approx((*points.min(axis=0), *points.max(axis=0)))
    assert [annotation.polygon.area for annotation in annotations[:2]] == pytest.approx(stated[:2])
    # The third is a figure of eight, whose lobes the shoelace formula takes from each other.
    lobes = sorted((part.area for part in annotations[2].polygon.geoms), reverse=True)
    assert len(lobes) == 3
    assert lobes[0] - lobes[1] + lobes[2] == pytest.approx(stated[2], abs=0.1)


def test_imagescope_and_qupath_agree(wsi_test_data):
    """The same outlines, which QuPath rounds to 0.01 px and repairs itself."""
    from_xml, from_json = (read_annotations(wsi_test_data / f"{TCGA}{suffix}") for suffix in (".xml", ".json"))
    assert [annotation.class_name for annotation in from_json] == ["Tumor", "Other", "Negative"]
    pairs = list(zip(from_xml, [from_json[0], from_json[2], from_json[1]], strict=True))
    for one, other in pairs:
        assert one.polygon.geom_type == other.polygon.geom_type
        difference = one.polygon.symmetric_difference(other.polygon).area
        assert difference < 0.005 * one.polygon.length
        assert difference < 1e-4 * one.polygon.area
    features = json.loads((wsi_test_data / f"{TCGA}.json").read_text())
    assert shoelace(features[0]["geometry"]["coordinates"][0]) == pytest.approx(from_json[0].polygon.area)
    parts = [shoelace(polygon[0]) for polygon in features[1]["geometry"]["coordinates"]]
    assert sum(parts) == pytest.approx(from_json[1].polygon.area)
    classes = [{annotation.class_name or "Unclassified" for annotation in annotations} for annotations in (from_xml, from_json)]
    masks = [
        AnnotationMask(annotations, tumour_classes=names).read((0, 0), (400, 300), 256.0)
        for annotations, names in zip((from_xml, from_json), classes, strict=True)
    ]
    assert (masks[0] != masks[1]).mean() < 1e-3
    assert masks[0].sum() * 256**2 == pytest.approx(shapely.union_all([a.polygon for a in from_xml]).area, rel=0.01)


def test_mask_of_a_lesion_has_its_area(wsi_test_data):
    (annotation,) = read_annotations(wsi_test_data / "annotations/tumor_002.xml")
    mask = AnnotationMask([annotation]).read((46_400, 102_400), (1200, 2300))
    assert mask.sum() == pytest.approx(annotation.polygon.area, rel=2e-3)
    whole = AnnotationMask([annotation]).read((46_400, 102_400), (300, 575), 4.0)
    np.testing.assert_array_equal(whole, mask[2::4, 2::4])
