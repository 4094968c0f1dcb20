"""Areas with one name for each class: what is taken away is gone, and background cuts what lies below it."""

import numpy as np
from shapely.geometry import box

from shared.data.labels.class_annotations import class_areas, without_background, write_class_annotations
from shared.wsi import Annotation, AnnotationMask, read_annotations


def area(polygon, is_exclusion=False, layer=None):
    return Annotation(polygon, "any", is_exclusion, "", "here", layer)


def test_what_is_taken_away():
    """An exclusion of a layer counts there alone, one without a layer everywhere."""
    drawn = [
        area(box(0, 0, 10, 10), layer=1),
        area(box(0, 0, 5, 10), True, layer=1),
        area(box(0, 0, 10, 10), layer=2),
        area(box(0, 0, 10, 1), True),
        area(box(0, 0, 4, 4), layer=1),
        area(box(50, 50, 60, 60)),
    ]
    areas = class_areas(drawn, [1, None, 2, None, 1, None])
    assert [(polygon.area, index) for polygon, index in areas] == [(90, 2), (45, 1)]


def test_background_cuts_what_is_below_it_alone():
    squares = [(box(0, 0, 10, 10), 2), (box(0, 0, 5, 10), 0), (box(0, 0, 2, 2), 1), (box(0, 0, 1, 1), 0), (box(0, 0, 1, 9), 0)]
    kept = without_background(squares)
    assert [(polygon.area, index) for polygon, index in kept] == [(50, 2), (2, 1)]
    assert without_background([(box(0, 0, 1, 1), 1), (box(0, 0, 2, 2), 0)]) == []


def test_the_mask_stays(tmp_path):
    """Drawn at random, read back: the classes that painting one after another gives, the larger first."""
    rng = np.random.default_rng(0)
    drawn, indices = [], []
    for _ in range(30):
        left, top, width, height = rng.integers(1, 30, 4)
        drawn.append(area(box(left, top, left + width, top + height)))
        indices.append(int(rng.integers(0, 3)))
    painted = np.zeros((64, 64), np.uint8)
    for annotation, index in sorted(zip(drawn, indices, strict=True), key=lambda pair: -pair[0].polygon.area):
        left, top, right, bottom = map(int, annotation.polygon.bounds)
        painted[top:bottom, left:right] = index
    names = ["normal", "benign", "tumour"]
    write_class_annotations(tmp_path / "a.geojson", without_background(class_areas(drawn, indices)), names)
    written = read_annotations(tmp_path / "a.geojson")
    assert {annotation.class_name for annotation in written} <= {"benign", "tumour"}
    np.testing.assert_array_equal(AnnotationMask(written, 3, names).read((0, 0), (64, 64)), painted)
    # Of two classes: whatever is drawn.
    np.testing.assert_array_equal(AnnotationMask(written, tumour_classes=names[1:]).read((0, 0), (64, 64)), painted > 0)
