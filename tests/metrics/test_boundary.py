import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment
from skimage.morphology import thin

from shared.metrics import (
    BOUNDARY_THRESHOLDS,
    BoundaryScore,
    boundary as boundary_module,
    boundary_counts,
    ods_of_counts,
    region_boundary,
)
from shared.metrics.thinning import thin_pixels

# Of a 30 x 40 px image, whose diagonal is 50 px.
SHAPE = (30, 40)
ONE_PX = 0.02
RIM = 40


def boundary_ods(fields, targets, thresholds=BOUNDARY_THRESHOLDS, **options):
    """The score of several images: their counts add up."""
    counts = sum(boundary_counts(*pair, thresholds, **options) for pair in zip(fields, targets, strict=True))
    return ods_of_counts(counts, thresholds)


def block(top=10, left=10, height=8, width=16, shape=SHAPE):
    region = np.zeros(shape, dtype=bool)
    region[top : top + height, left : left + width] = True
    return region


def blobs(rng, shape, sigma, level=0.5):
    """A smooth field in [0, 1], and where it exceeds `level`."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), sigma)
    field = (field - field.min()) / (field.max() - field.min())
    return field, field > level


def counts_at_half(prediction, target, tolerance):
    return boundary_counts(prediction.astype(float), target, [0.5], tolerance)[0].tolist()


def assigned(predicted, true, distance_px):
    """Pairs of the benchmark's minimum-cost assignment, where a pixel without a partner costs 100 times the distance."""
    a, b = np.argwhere(predicted), np.argwhere(true)
    if not len(a) or not len(b):
        return 0
    distances = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
    outlier_cost = 100 * distance_px
    # Every pixel has an outlier of its own, and outliers may meet: a perfect matching always exists.
    cost = np.full((len(a) + len(b),) * 2, outlier_cost)
    cost[: len(a), : len(b)] = np.where(distances <= distance_px, distances, 1e6)
    rows, columns = linear_sum_assignment(cost)
    return int(((rows < len(a)) & (columns < len(b)) & (cost[rows, columns] < outlier_cost)).sum())


def test_boundary_by_hand():
    # The rim of a block of 8 x 16 px without its corners: a line that may go diagonally needs none.
    expected = block(10, 11, 8, 14) & ~block(11, 11, 6, 14) | block(11, 10, 6, 16) & ~block(11, 11, 6, 14)
    assert expected.sum() == RIM == 2 * 14 + 2 * 6
    assert np.array_equal(region_boundary(block()), expected)


def test_the_frame_of_the_image_is_no_boundary():
    left_half = block(0, 0, 30, 20)
    expected = block(0, 19, 30, 1)
    assert np.array_equal(region_boundary(left_half), expected)
    assert not region_boundary(np.ones(SHAPE, bool)).any()
    assert not region_boundary(np.zeros(SHAPE, bool)).any()


def test_boundaries_are_thinned_and_no_region_vanishes():
    # A 2 x 2 block is rim throughout, two pixels thick.
    assert region_boundary(block(height=2, width=2)).sum() == 1
    assert region_boundary(block(height=1, width=1)).sum() == 1
    _, region = blobs(np.random.default_rng(0), (64, 80), sigma=2)
    boundary = region_boundary(region)
    squares = boundary[:-1, :-1] & boundary[1:, :-1] & boundary[:-1, 1:] & boundary[1:, 1:]
    assert not squares.any()
    assert not (boundary & ~region).any()


@pytest.mark.parametrize(
    ("shift", "tolerance", "matched"),
    [
        ((0, 0), 0.0, RIM),
        # Of the long sides, 14 px each, all but one overlap; the short ones lie side by side.
        ((0, 1), 0.0, 2 * 13),
        ((0, 1), 0.99 * ONE_PX, 2 * 13),
        ((0, 1), ONE_PX, RIM),
        ((1, 1), 1.5 * ONE_PX, RIM),
    ],
)
def test_shifts_within_and_beyond_the_tolerance(shift, tolerance, matched):
    prediction = block(10 + shift[0], 10 + shift[1])
    assert counts_at_half(prediction, block(), tolerance) == [matched, RIM, matched, RIM]


def test_a_line_one_pixel_off():
    # Straight edges from frame to frame: every pixel is one away, or none is near.
    target = block(0, 0, 30, 20)
    for width, tolerance, matched in ((21, ONE_PX, 30), (21, 0.99 * ONE_PX, 0), (22, ONE_PX, 0), (22, 2 * ONE_PX, 30)):
        assert counts_at_half(block(0, 0, 30, width), target, tolerance) == [matched, 30, matched, 30]


def test_one_true_pixel_takes_one_predicted_pixel():
    target = block(10, 10, 1, 1)
    prediction = block(10, 9, 1, 1) | block(10, 11, 1, 1)
    assert counts_at_half(prediction, target, ONE_PX) == [1, 2, 1, 1]
    assert counts_at_half(target, prediction, ONE_PX) == [1, 1, 1, 2]


def test_as_many_pairs_as_can_be():
    # Each to its nearest would pair the two in the middle and leave both outer ones alone.
    prediction = block(10, 12, 1, 1) | block(10, 15, 1, 1)
    target = block(10, 10, 1, 1) | block(10, 13, 1, 1)
    assert counts_at_half(prediction, target, 2 * ONE_PX) == [2, 2, 2, 2]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tolerance", [0.01, 0.03, 0.08])
def test_as_many_pairs_as_the_benchmarks_assignment(seed, tolerance):
    rng = np.random.default_rng(seed)
    field, _ = blobs(rng, (33, 44), sigma=1 + seed % 3)
    _, target = blobs(rng, (33, 44), sigma=2, level=0.6)
    thresholds = [0.35, 0.5, 0.65]
    distance_px = tolerance * 55
    expected = []
    for threshold in thresholds:
        predicted, true = region_boundary(field >= threshold), region_boundary(target)
        num = assigned(predicted, true, distance_px)
        assert min(predicted.sum(), true.sum()) > 0
        expected.append([num, predicted.sum(), num, true.sum()])
    assert np.array_equal(boundary_counts(field, target, thresholds, tolerance), expected)


def test_a_perfect_map_is_1_at_the_lowest_threshold():
    rng = np.random.default_rng(1)
    targets = [blobs(rng, shape, sigma=4)[1] for shape in ((40, 50), (64, 33))]
    score = boundary_ods([target.astype(np.float32) for target in targets], targets)
    assert score == BoundaryScore(f=1.0, threshold=0.01, precision=1.0, recall=1.0)
    assert float(score) == 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_map_without_boundary_is_0(value):
    score = boundary_ods([np.full(SHAPE, value)], [block()])
    assert (score.f, score.precision, score.recall) == (0, 0, 0)


def test_an_image_that_is_tumour_throughout_counts_false_boundaries_alone():
    entire = np.ones(SHAPE, bool)
    assert counts_at_half(block(), entire, ONE_PX) == [0, RIM, 0, 0]
    assert counts_at_half(entire, entire, ONE_PX) == [0, 0, 0, 0]
    assert boundary_ods([entire.astype(float)], [entire]).f == 0
    score = boundary_ods([block().astype(float)] * 2, [block(), entire])
    assert (score.precision, score.recall) == (0.5, 1.0)


def test_counts_are_pooled_over_images():
    # A large image with a perfect boundary and a small one without any: the mean of their F would be 0.5.
    large, small = block(2, 2, 20, 30), block(5, 5, 2, 3, shape=(12, 12))
    score = boundary_ods([large.astype(float), np.zeros((12, 12))], [large, small])
    num_large, num_small = region_boundary(large).sum(), region_boundary(small).sum()
    assert score.recall == pytest.approx(num_large / (num_large + num_small))
    assert score.precision == 1
    assert score.f == pytest.approx(2 * score.recall / (1 + score.recall))


def test_one_threshold_for_all_images():
    """Each image alone is perfect somewhere, but not at the same threshold."""
    target, other = block(), block(2, 25, 6, 6)
    # Right below 0.3, then right above 0.6.
    first = np.where(target, 1.0, np.where(other, 0.6, 0.0))
    second = np.where(target, 0.3, 0.0)
    alone = [boundary_ods([map_], [target]).f for map_ in (first, second)]
    assert alone == [1, 1]
    assert boundary_ods([first, second], [target] * 2).f < 1


def test_the_sweep_finds_the_best_threshold():
    target = block(10, 10, 10, 20)
    field = np.where(target, 0.7, 0.0)
    field[8:22, 6:34] = np.maximum(field[8:22, 6:34], 0.4)
    field[12:14, 15:19] = 0.9
    score = boundary_ods([field], [target], tolerance=0.0)
    assert (score.f, score.threshold) == (1.0, 0.41)
    f = {t: boundary_ods([field], [target], [t], tolerance=0.0).f for t in (0.2, 0.55, 0.8)}
    assert f[0.55] == 1 > max(f[0.2], f[0.8])


def test_equal_regions_are_matched_once(monkeypatch):
    calls = []
    match = boundary_module._Matcher.num_matched
    monkeypatch.setattr(boundary_module._Matcher, "num_matched", lambda self, pixels: calls.append(1) or match(self, pixels))
    counts = boundary_counts(np.where(block(), 0.7, 0.2), block())
    # Everything, the block, nothing.
    assert len(calls) == 3
    assert counts.shape == (99, 4)
    assert np.array_equal(np.flatnonzero(np.diff(counts[:, 1])), [19, 69])


@pytest.mark.parametrize("sigma", [0.0, 0.7, 2.0, 5.0])
def test_lines_are_thinned_as_by_scikit_image(sigma):
    """Whose `thin` looks at every pixel of the image: the rims of regions of all kinds, and the regions themselves."""
    rng = np.random.default_rng(7)
    for _ in range(40):
        height, width = rng.integers(1, 60, 2)
        field = gaussian_filter(rng.normal(size=(height, width)), sigma)
        region = field > np.quantile(field, rng.uniform(0.05, 0.95))
        near = np.pad(region, 1, mode="edge")
        rim = region & ~(near[:-2, 1:-1] & near[2:, 1:-1] & near[1:-1, :-2] & near[1:-1, 2:])
        assert np.array_equal(region_boundary(region), thin(rim))
        canvas = np.zeros((height + 2, width + 2), np.uint8)
        left = thin_pixels(np.flatnonzero(np.pad(region, 1)), canvas)
        assert not canvas.any()
        assert np.array_equal(left, np.flatnonzero(np.pad(thin(region), 1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_probability_at_the_threshold_is_tumour(dtype):
    # 0.7 in single precision is less than in double.
    probability = torch.where(torch.from_numpy(block()), torch.tensor(0.7, dtype=dtype), torch.tensor(0.0, dtype=dtype))
    assert boundary_counts(probability, block(), [0.7, 0.70001]).tolist() == [[RIM] * 4, [0, 0, 0, RIM]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool])
def test_short_types(dtype):
    assert boundary_counts(torch.from_numpy(block()).to(dtype), block(), [0.1, 1.0]).tolist() == [[RIM] * 4] * 2


def test_thresholds_in_any_order():
    field, target = blobs(np.random.default_rng(3), (40, 40), sigma=3, level=0.4)
    up = boundary_counts(field, target, [0.2, 0.4, 0.6])
    assert np.array_equal(boundary_counts(field, target, [0.6, 0.2, 0.4]), up[[2, 0, 1]])


def test_arrays_and_tensors_are_equal():
    rng = np.random.default_rng(0)
    fields = np.stack([blobs(rng, (32, 48), sigma=3)[0] for _ in range(3)]).astype(np.float32)
    targets = np.stack([blobs(rng, (32, 48), sigma=3)[1] for _ in range(3)])
    expected = boundary_ods(fields, targets)
    assert 0 < expected.f < 1
    tensors = torch.from_numpy(fields), torch.from_numpy(targets)
    assert boundary_ods(fields, targets.astype(np.uint8)) == expected
    assert boundary_ods(*tensors) == expected
    assert boundary_ods(tensors[0][:, None].requires_grad_(), tensors[1][:, None].float()) == expected


def test_ods_by_hand():
    # P = 1/2, R = 1/4: F = 1/3; P = 3/4, R = 3/8: F = 1/2, twice.
    counts = np.array([[2, 4, 2, 8], [3, 4, 3, 8], [0, 0, 0, 8], [3, 4, 3, 8]])
    assert ods_of_counts(counts, [0.1, 0.7, 0.9, 0.3]) == BoundaryScore(f=0.5, threshold=0.3, precision=0.75, recall=0.375)


@pytest.mark.parametrize(
    ("probability", "target", "options", "words"),
    [
        (np.zeros((4, 5)), np.zeros((5, 4)), {}, r"both the same; got \(4, 5\), \(5, 4\)"),
        (np.zeros((2, 4, 5)), np.zeros((2, 4, 5)), {}, r"\(H, W\) or \(1, H, W\).*got \(2, 4, 5\)"),
        (np.full((4, 5), 1.5), np.zeros((4, 5)), {}, r"probabilities must be in \[0, 1\]; got 1.5 to 1.5"),
        (np.full((4, 5), np.nan), np.zeros((4, 5)), {}, "probabilities must be in"),
        (np.zeros((4, 5)), np.full((4, 5), 255), {}, "target must be 0 or 1; got 255"),
        (np.zeros((4, 5)), np.zeros((4, 5)), {"thresholds": []}, "at least one threshold"),
        (np.zeros((4, 5)), np.zeros((4, 5)), {"tolerance": -0.1}, "tolerance=-0.1"),
    ],
)
def test_rejects_what_does_not_fit(probability, target, options, words):
    with pytest.raises(ValueError, match=words):
        boundary_counts(probability, target, **options)


def test_rejects_counts_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(99, 4\).*got \(98, 4\)"):
        ods_of_counts(np.zeros((98, 4), int))
