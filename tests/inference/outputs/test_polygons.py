import numpy as np
import pytest
import rasterio.features
import shapely
from scipy import ndimage
from shapely.geometry import Point, Polygon, box, shape

from shared.inference import MapGrid, ProbabilityMap, tumour_regions
from shared.inference.outputs.polygons import MOST_POINTS_OF_TOPOLOGY, class_regions, simplified


class Rows:
    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def read_rows(self, start, stop):
        return self.array[start:stop]


def _blobs(seed, shape=(300, 211), sigma=2):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
    return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def _tiles(seed):
    """One value a tile of 5 x 4 map pixels, as of a network with one answer per tile."""
    return np.kron(_blobs(seed, (60, 53), sigma=0.5), np.ones((5, 4), np.uint8))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("strip_height_px", [1, 7, 64])
@pytest.mark.parametrize("draw", [_blobs, _tiles])
def test_strips_give_the_whole_maps_polygons(seed, strip_height_px, draw):
    values = draw(seed)
    mask = values >= 0.5 * 255
    expected = [shape(geometry) for geometry, _ in rasterio.features.shapes(mask.astype(np.uint8), mask=mask, connectivity=4)]
    regions = list(tumour_regions(Rows(values), 0.5, strip_height_px=strip_height_px))
    assert len(regions) == len(expected) > 20
    assert any(polygon.interiors for polygon in expected)

    def key(polygon):
        return polygon.bounds, polygon.area

    regions.sort(key=lambda region: key(region.polygon))
    for region, polygon in zip(regions, sorted(expected, key=key), strict=True):
        assert region.polygon.is_valid
        assert region.polygon.equals(polygon)
        assert region.polygon.area == region.num_pixels
        assert len(region.polygon.exterior.coords) <= len(polygon.exterior.coords) + 1  # the ring's first point may differ
        inside = rasterio.features.rasterize([polygon], out_shape=mask.shape).astype(bool)
        assert region.mean_probability == pytest.approx(values[inside].mean() / 255)


def test_a_pixel_at_the_threshold_belongs_and_corners_do_not_join():
    values = np.array([[0, 51, 0], [51, 0, 0], [0, 0, 50]], np.uint8)
    regions = list(tumour_regions(Rows(values), threshold=0.2, strip_height_px=1))
    assert sorted(region.polygon.bounds for region in regions) == [(0, 1, 1, 2), (1, 0, 2, 1)]
    assert [region.mean_probability for region in regions] == [pytest.approx(0.2)] * 2


def test_min_pixels_counts_the_whole_region():
    values = np.zeros((20, 20), np.uint8)
    values[0:10, 0:2] = 255  # 20 pixels in pieces of 2
    values[2:4, 10:14] = 255  # 8 pixels
    values[15:20, 5:9] = 255  # 20 pixels at the end
    regions = list(tumour_regions(Rows(values), 0.5, min_pixels=20, strip_height_px=1))
    assert {region.polygon.bounds for region in regions} == {(0, 0, 2, 10), (5, 15, 9, 20)}
    assert len(list(tumour_regions(Rows(values), 0.5, min_pixels=21, strip_height_px=1))) == 0


@pytest.mark.parametrize(("value", "expected"), [(0, []), (255, [box(0, 0, 5, 4)])])
def test_empty_and_full_maps(value, expected):
    regions = tumour_regions(Rows(np.full((4, 5), value, np.uint8)), 0.5, strip_height_px=3)
    assert [region.polygon.equals(polygon) for region, polygon in zip(regions, expected, strict=True)] == [True] * len(expected)


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_rejects_thresholds_out_of_range(threshold):
    with pytest.raises(ValueError, match=f"got {threshold}"):
        list(tumour_regions(Rows(np.zeros((4, 5), np.uint8)), threshold))


@pytest.mark.parametrize("strip_height_px", [1, 7, 64, None])
def test_regions_of_classes_are_those_of_each_class_alone(tmp_path, strip_height_px):
    values = np.stack([_blobs(seed, (300, 212)) for seed in range(4)])
    classes = values.argmax(axis=0)
    grid = MapGrid.of_image((212, 300), tile_size_px=512, margin_px=0, map_downsample=1)
    core = np.zeros((4, *grid.core_shape), np.uint8)
    core[:, :300, :212] = values
    with ProbabilityMap(tmp_path / "map", grid, num_classes=4) as probability_map:
        probability_map.write_tile((0, 0), core)
        found = list(class_regions(probability_map, min_pixels=5, strip_height_px=strip_height_px))
    assert {index for index, _ in found} == {1, 2, 3}
    for index in (1, 2, 3):
        labels, _ = ndimage.label(classes == index)
        sizes = np.bincount(labels.ravel())[1:]
        regions = [region for of_class, region in found if of_class == index]
        assert sorted(region.num_pixels for region in regions) == sorted(sizes[sizes >= 5].tolist())
        for region in regions:
            assert region.polygon.is_valid
            inside = rasterio.features.rasterize([region.polygon], out_shape=classes.shape).astype(bool)
            assert (classes[inside] == index).all()
            assert region.mean_probability == pytest.approx(values[index][inside].mean() / 255)


@pytest.mark.parametrize("tolerance", [0.8, 1.5, 3.0])
def test_simplified_outlines_are_valid_and_stay_within_the_tolerance(tolerance):
    regions = [region for seed in range(3) for region in tumour_regions(Rows(_blobs(seed)), 0.5)]
    before = after = 0
    for region in regions:
        polygon = simplified(region.polygon, tolerance)
        assert isinstance(polygon, Polygon)
        assert polygon.is_valid
        assert polygon.exterior.hausdorff_distance(region.polygon.exterior) <= tolerance + 1e-9
        before += len(region.polygon.exterior.coords)
        after += len(polygon.exterior.coords)
    assert any(simplified(region.polygon, tolerance).interiors for region in regions)
    assert after < 0.6 * before


def test_no_tolerance_changes_nothing_and_rectangles_stay():
    assert simplified(box(0, 0, 5, 4), 0) == box(0, 0, 5, 4)
    assert simplified(box(0, 0, 5, 4), 1.0).equals(box(0, 0, 5, 4))
    # Smaller than the tolerance: still there.
    assert simplified(box(0, 0, 1, 1), 3.0).area > 0
    disc = Point(0, 0).buffer(10)
    assert len(simplified(disc, 1.0).exterior.coords) < len(disc.exterior.coords)


@pytest.mark.slow
def test_a_region_of_very_many_points_is_simplified_in_seconds():
    # Keeping the topology of one of this size took GEOS a minute, and measuring the distances as long again.
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((1800, 1800)), 2.0)
    mask = (noise > np.quantile(noise, 0.4)).astype(np.uint8) * 255
    largest = max(tumour_regions(Rows(mask)), key=lambda region: region.num_pixels).polygon
    assert shapely.get_num_coordinates(largest) > MOST_POINTS_OF_TOPOLOGY
    simpler = simplified(largest, 1.5)
    assert simpler.is_valid
    assert len(simpler.interiors) == len(largest.interiors)
    assert shapely.get_num_coordinates(simpler) < 0.6 * shapely.get_num_coordinates(largest)
    outline = largest.boundary
    shapely.prepare(outline)
    assert shapely.dwithin(outline, shapely.points(shapely.get_coordinates(simpler)), 1e-9).all()
