import itertools
import re
import tracemalloc

import numpy as np
import pytest
import shapely
from shapely.geometry import MultiPolygon, Point, Polygon, box

from shared.wsi import Annotation, AnnotationMask

NAMES = ["normal", "benign", "in situ", "invasive"]


def area(polygon, name="", is_exclusion=False, layer=None, parents=()):
    return Annotation(polygon, name, is_exclusion, "", "here", layer, parents)


def square(left, top, side=4):
    return box(left, top, left + side, top + side)


def level_0_indices(start, length, downsample):
    """The level-0 pixel that a mask file's reader takes for each pixel."""
    return np.floor(start + (np.arange(length) + 0.5) * downsample).astype(int)


@pytest.fixture(scope="module")
def blobs():
    """Outlines with corners at random places, one with a hole, one in two parts; 200 x 150 px."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(12):
        angles = np.sort(rng.random(15)) * 2 * np.pi
        radii = rng.uniform(5, 40, 15)
        centre = rng.uniform((0, 0), (200, 150))
        polygon = Polygon(centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1))
        made.append(polygon.buffer(0))
    made.append(Point(100, 75).buffer(50).difference(Point(110, 80).buffer(20)))
    made.append(MultiPolygon([square(150.3, 20.2, 30), square(20.1, 100.7, 37)]))
    return [area(polygon) for polygon in made if polygon.is_valid and polygon.area]


def reference(annotations, xs, ys):
    """Point by point, 0 or 1."""
    joined = shapely.union_all([annotation.polygon for annotation in annotations])
    return shapely.contains_xy(joined, *np.meshgrid(xs, ys)).astype(np.uint8)


@pytest.mark.parametrize("xy", [(0, 0), (60, 33), (-20, -7), (190, 130), (400, 0)])
@pytest.mark.parametrize("downsample", [1.0, 2.0, 4 / 3, 3.0, 0.5, 7.3, 16.0])
def test_pixel_centres_decide(blobs, xy, downsample):
    mask = AnnotationMask(blobs).read(xy, (40, 31), downsample)
    assert mask.shape == (31, 40)
    assert mask.dtype == np.uint8
    if downsample == round(downsample):  # the level-0 pixel that stands for the pixel
        xs, ys = (level_0_indices(start, length, downsample) + 0.5 for start, length in zip(xy, (40, 31), strict=True))
    else:
        xs, ys = (start + (np.arange(length) + 0.5) * downsample for start, length in zip(xy, (40, 31), strict=True))
    np.testing.assert_array_equal(mask, reference(blobs, xs, ys))


@pytest.mark.parametrize("downsample", [1, 2, 3, 4, 8])
def test_same_pixels_as_a_mask_at_level_0(blobs, downsample):
    mask = AnnotationMask(blobs)
    whole = mask.read((0, 0), (200, 150))
    rows, columns = level_0_indices(11, 15, downsample), level_0_indices(6, 20, downsample)
    np.testing.assert_array_equal(mask.read((6, 11), (20, 15), downsample), whole[np.ix_(rows, columns)])


def test_regions_fit_together(blobs):
    mask = AnnotationMask(blobs)
    whole = mask.read((0, 0), (200, 150))
    parts = [[mask.read((x, y), (50, 30)) for x in range(0, 200, 50)] for y in range(0, 150, 30)]
    np.testing.assert_array_equal(np.block(parts), whole)
    assert 0.1 < whole.mean() < 0.9


def test_whole_pixel_corners_give_whole_pixels():
    mask = AnnotationMask([area(box(2, 3, 6, 5))]).read((0, 0), (8, 8))
    expected = np.zeros((8, 8))
    expected[3:5, 2:6] = 1
    np.testing.assert_array_equal(mask, expected)


def test_what_lies_inside_is_on_top_whichever_came_first():
    nested = [area(square(0, 0, 8), "invasive"), area(square(2, 2), "benign"), area(square(3, 3, 2), "normal")]
    expected = np.full((8, 8), 3)
    expected[2:6, 2:6] = 1
    expected[3:5, 3:5] = 0
    for order in itertools.permutations(nested):
        np.testing.assert_array_equal(AnnotationMask(order, 4, NAMES).read((0, 0), (8, 8)), expected)


def test_each_part_of_an_annotation_has_its_own_place():
    """A tumour of two parts next to and inside stroma, which is smaller than their sum; and a ring with nothing in its hole."""
    tumour = area(MultiPolygon([box(0, 0, 4, 8), square(5, 1, 2)]), "invasive")
    drawings = [tumour, area(square(4, 0), "benign"), area(square(4, 4).difference(square(5, 5, 2)), "in situ")]
    expected = np.zeros((8, 8))
    expected[:, :4] = 3
    expected[:4, 4:] = 1
    expected[1:3, 5:7] = 3
    expected[4:, 4:] = 2
    expected[5:7, 5:7] = 0
    for order in itertools.permutations(drawings):
        np.testing.assert_array_equal(AnnotationMask(order, 4, NAMES).read((0, 0), (8, 8)), expected)


def test_of_areas_that_overlap_in_part_the_smaller_is_on_top_and_of_equal_ones_the_later():
    large, small = area(box(0, 0, 6, 8), "invasive"), area(box(4, 0, 8, 8), "benign")
    for order in ((large, small), (small, large)):
        mask = AnnotationMask(order, 4, NAMES).read((0, 0), (8, 8))
        np.testing.assert_array_equal(mask[0], [3, 3, 3, 3, 1, 1, 1, 1])
    # The same outline, drawn the other way round.
    outline = [(0.1, 0.2), (7.3, 0.7), (6.9, 7.1), (0.4, 6.6)]
    same = [area(Polygon(outline), "invasive"), area(Polygon(outline[::-1]), "benign")]
    assert AnnotationMask(same, 4, NAMES).read((0, 0), (8, 8))[4, 4] == 1
    assert AnnotationMask(same[::-1], 4, NAMES).read((0, 0), (8, 8))[4, 4] == 3


def test_classes_that_are_no_tumour_are_cut_from_the_tumour_around_them():
    drawings = [
        area(square(3, 3, 2), "Tumor: Positive", parents=("Tumor",)),
        area(square(2, 2), "Stroma"),
        area(square(0, 0, 8), "tumor"),
        area(square(0, 0, 1), "Region*"),
        area(square(1, 0, 1)),
        area(square(7, 7, 1), "Ignore*", is_exclusion=True),
    ]
    expected = np.ones((8, 8))
    expected[2:6, 2:6] = 0
    expected[3:5, 3:5] = 1
    expected[7, 7] = 0
    mask = AnnotationMask(drawings, tumour_classes=["Tumor"]).read((0, 0), (8, 8))
    np.testing.assert_array_equal(mask, expected)
    everything = AnnotationMask(drawings, tumour_classes=["Tumor", "STROMA", "Unclassified"]).read((0, 0), (8, 8))
    np.testing.assert_array_equal(everything, np.arange(64).reshape(8, 8) < 63)


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (["Tumor", "Stroma", "Tumor"], r"Tumor \(2\), Stroma \(1\)"),
        (["Tumor", ""], r"Tumor \(1\), Unclassified \(1\)"),
        (["a/lesion", "a/stroma"], r"lesion \(1\), stroma \(1\)"),
        (["_0", "_1", "Region*"], r"_0 \(1\), _1 \(1\), Region\* \(1\)"),
    ],
)
def test_of_several_classes_the_tumours_must_be_named(names, counts):
    # Groups of one group are still of two classes.
    drawings = [area(square(0, 0), name.split("/")[-1], parents=tuple(name.split("/")[:-1])) for name in names]
    with pytest.raises(ValueError, match=f"found {counts}.*tumour_classes"):
        AnnotationMask(drawings)
    with pytest.raises(ValueError, match=f"tumour's classes 'Tumour'.*found {counts}"):
        AnnotationMask(drawings, tumour_classes=["Tumour"], needs_tumour=True)
    with pytest.raises(ValueError, match="must be a list of names, got 'Tumor'"):
        AnnotationMask(drawings, tumour_classes="Tumor")
    assert not AnnotationMask(drawings, tumour_classes=["Tumour"]).read((0, 0), (4, 4)).any()


def test_one_class_is_tumour_whatever_its_name():
    """Case, blanks, what a class is derived with and exclusions make no other class."""
    drawings = [
        area(square(0, 0), "Lesion"),
        area(square(4, 4), " LESION"),
        area(square(0, 4), "Lesion: Positive", parents=("Lesion",)),
        area(square(4, 0), "Exclusion", is_exclusion=True),
    ]
    assert AnnotationMask(drawings).read((0, 0), (8, 8)).sum() == 48
    assert AnnotationMask([area(square(0, 0)), area(square(4, 4))]).read((0, 0), (8, 8)).sum() == 32


@pytest.mark.parametrize("name", ["Region*", "Stroma", "Immune cells", " normal", "Stroma: Positive"])
def test_one_class_that_is_no_tumour_by_its_name_is_not_taken_for_it(name):
    drawings = [area(square(0, 0), name), area(square(4, 4), name)]
    with pytest.raises(ValueError, match=rf"found {re.escape(name)} \(2\).*tumour_classes"):
        AnnotationMask(drawings)
    assert AnnotationMask(drawings, tumour_classes=[name]).read((0, 0), (8, 8)).sum() == 32


def test_an_exclusion_by_name_counts_wherever_it_stands():
    annotations = [area(square(2, 2), "_2", is_exclusion=True), area(square(0, 0, 8))]
    mask = AnnotationMask(annotations).read((0, 0), (8, 8))
    expected = np.ones((8, 8))
    expected[2:6, 2:6] = 0
    np.testing.assert_array_equal(mask, expected)


def test_a_negative_region_uncovers_what_lies_below_its_layer():
    annotations = [
        area(square(0, 0, 8), "benign", layer=1),
        area(square(2, 2, 4), "in situ", is_exclusion=True, layer=2),
        area(square(1, 1, 6), "in situ", layer=2),
        area(square(3, 3, 1), "invasive", layer=3),
    ]
    expected = np.full((8, 8), 1)
    expected[1:7, 1:7] = 2
    expected[2:6, 2:6] = 1
    expected[3, 3] = 3
    np.testing.assert_array_equal(AnnotationMask(annotations, 4, NAMES).read((0, 0), (8, 8)), expected)
    # Of the whole slide: not even the layers above keep anything there.
    annotations.append(area(square(3, 3, 2), "Exclusion", is_exclusion=True))
    expected[3:5, 3:5] = 0
    np.testing.assert_array_equal(AnnotationMask(annotations, 4, NAMES).read((0, 0), (8, 8)), expected)


def test_class_names_without_regard_to_case_and_blanks():
    annotations = [area(square(0, 0, 8), " Carcinoma  IN situ ")]
    assert (AnnotationMask(annotations, 2, ["", "carcinoma in situ"]).read((0, 0), (4, 4)) == 1).all()


@pytest.mark.parametrize(
    ("name", "num_classes", "class_names", "words"),
    [
        ("dcis", 4, NAMES, "here has the class 'dcis', expected one of 'normal', 'benign', 'in situ', 'invasive'"),
        ("", 4, NAMES, "here has no class, expected one of 'normal'"),
        ("benign", 4, None, "annotations of 4 classes need class_names"),
        ("benign", 3, NAMES, "class_names must be 3 different names"),
        ("benign", 4, ["a", "b", "c", "A "], "class_names must be 4 different names"),
        ("benign", 2, "ab", "class_names must be 2 different names"),
        ("benign", 1, None, "num_classes must be from 2 to 255, got 1"),
        ("benign", 256, None, "num_classes must be from 2 to 255, got 256"),
    ],
)
def test_classes_that_do_not_fit(name, num_classes, class_names, words):
    with pytest.raises(ValueError, match=words):
        AnnotationMask([area(square(0, 0), name)], num_classes, class_names)


def test_no_annotations_no_classes():
    assert not AnnotationMask([], 4, NAMES).read((0, 0), (8, 8)).any()
    assert not AnnotationMask([area(square(0, 0, 9), "x", is_exclusion=True)], 4, NAMES).read((0, 0), (8, 8)).any()


def test_the_last_of_many_classes():
    names = [str(number) for number in range(255)]
    holed = [area(square(0, 0, 8), "254", layer=1), area(square(2, 2), "254", is_exclusion=True, layer=1)]
    mask = AnnotationMask(holed, 255, names).read((0, 0), (8, 8))
    assert sorted(np.unique(mask)) == [0, 254]
    assert (mask == 0).sum() == 16


def test_memory_of_a_region_does_not_grow_with_the_slide():
    """100 000 x 200 000 px, an outline of 100 000 points around most of it and 20 000 small ones."""
    angles = np.linspace(0, 2 * np.pi, 100_000, endpoint=False)
    radius = 1 + 0.01 * np.sin(angles * 2000)
    outline = np.stack([50_000 + 45_000 * radius * np.cos(angles), 100_000 + 90_000 * radius * np.sin(angles)], axis=1)
    corners = np.random.default_rng(0).uniform((0, 0), (100_000, 200_000), (20_000, 2))
    small = shapely.box(*corners.T, *(corners + 50).T)
    mask = AnnotationMask([area(Polygon(outline)), *(area(polygon, is_exclusion=True) for polygon in small)])
    tracemalloc.start()
    regions = [mask.read((x, y), (512, 512)) for x, y in [(94_500, 100_000), (50_000, 100_000), (0, 0), (99_900, 199_900)]]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20
    assert 0.1 < regions[0].mean() < 0.9
    assert regions[1].mean() > 0.9
    assert not regions[2].any()
    # A sample of points of the region on the outline.
    inside = shapely.contains_xy(Polygon(outline), 94_500 + np.arange(512) + 0.5, 100_000 + 256.5)
    assert (regions[0][256] <= inside).all()
    assert regions[0][256].sum() > 0.9 * inside.sum()
