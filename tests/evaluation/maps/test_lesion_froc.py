"""FROC of lesions by hand."""

import numpy as np
import pytest

from shared.evaluation.maps.lesion_froc import FALSE_POSITIVES, FrocSlide, MapFROC, _sensitivities


def test_found_lesions_and_false_alarms_by_hand():
    """Two lesions on two slides; the surer detection hits one, a false alarm is next, the last hits the other."""
    probabilities = [np.zeros((200, 200), np.float32) for _ in range(2)]
    masks = [np.zeros((200, 200), np.uint8) for _ in range(2)]
    masks[0][20:60, 20:60], masks[1][120:160, 20:60] = 1, 1
    probabilities[0][40, 40], probabilities[0][150, 150], probabilities[1][140, 40] = 0.95, 0.8, 0.7
    slides = [FrocSlide(8.0, lambda i=i: probabilities[i], lambda i=i: masks[i]) for i in range(2)]
    scores = MapFROC(slides).scores()
    assert (scores["num_lesions"], scores["num_slides"]) == (2, 2)
    # One of two lesions without a false alarm; from 0.7 on, which MONAI leaves out, both at half a false alarm a slide.
    assert scores["sensitivity_at"] == {"0.25": 0.5} | dict.fromkeys(("0.5", "1", "2", "4", "8"), 1.0)
    assert probabilities[0].max() == np.float32(0.95), "the map was written to"


def froc_of_all_thresholds(false, true, num_slides):
    """Sensitivity at each number of false alarms a slide, of every threshold in a loop; between them it is interpolated."""
    points = [(0.0, 0.0)]
    for threshold in sorted({*false, *true} - {0.0}, reverse=True):
        points.append((sum(false >= threshold) / num_slides, sum(true >= threshold) / len(true)))
    return np.interp(FALSE_POSITIVES, *zip(*points, strict=True))


@pytest.mark.parametrize("num_slides", [1, 2, 4, 5])
def test_sensitivities_are_those_of_all_thresholds(num_slides):
    """Also where there are exactly as many false alarms as one of the numbers says; lesions that are not found have 0."""
    rng = np.random.default_rng(num_slides)
    hits = 0
    for _ in range(300):
        false = rng.integers(5, 12, rng.integers(0, 10)) / 10
        true = rng.integers(5, 12, rng.integers(1, 5)) / 10 * (rng.random(1) < 0.8)
        expected = froc_of_all_thresholds(false, true, num_slides)
        assert _sensitivities(false, true, len(true), num_slides) == pytest.approx(expected)
        hits += len(false) / num_slides in FALSE_POSITIVES
    assert hits > 20


def test_the_last_lesion_counts_at_just_as_many_false_alarms():
    found = _sensitivities(np.array([0.9, 0.8]), np.array([0.7]), num_lesions=1, num_slides=2)
    assert found.tolist() == [0, 0, 1, 1, 1, 1]


def box_of(width_um, height_um, mpp=8.0):
    """A slide's mask with one lesion."""
    mask = np.zeros((200, 200), np.uint8)
    mask[50 : 50 + round(height_um / mpp), 60 : 60 + round(width_um / mpp)] = 1
    return mask


@pytest.mark.parametrize(
    ("boxes", "num_lesions", "num_isolated"),
    [
        ([(200, 150)], 1, 0),
        ([(400, 300)], 1, 0),
        ([(200, 150), (300, 300), None], 2, 0),
        ([(200, 150), (80, 60)], 1, 1),
        ([(80, 60), (60, 40)], 0, 2),
    ],
)
@pytest.mark.parametrize("probability", [1.0, 0.75])
def test_a_map_without_a_fault_scores_all_that_there_is(boxes, num_lesions, num_isolated, probability):
    """Isolated tumour cells are neither lesions nor false alarms; where there is nothing else there is no score."""
    masks = [np.zeros((200, 200), np.uint8) if box is None else box_of(*box) for box in boxes]
    sure = [(mask * np.float32(probability)) for mask in masks]
    sure[0][sure[0] > 0] += np.float32(0.125 if probability < 1 else 0)
    scores = MapFROC([FrocSlide(8.0, lambda i=i: sure[i], lambda i=i: masks[i]) for i in range(len(masks))]).scores()
    assert (scores["num_lesions"], scores.get("num_isolated", 0)) == (num_lesions, num_isolated)
    assert scores["froc"] == (1.0 if num_lesions else None)
    if num_lesions:
        assert set(scores["sensitivity_at"].values()) == {1.0}


def test_a_false_alarm_at_the_corner_of_a_normal_slide_is_one():
    lesion, normal, alarm = box_of(400, 300), np.zeros((200, 200), np.uint8), np.zeros((200, 200), np.float32)
    alarm[0, 0] = 0.9
    slides = [FrocSlide(8.0, lambda: lesion * np.float32(0.8), lambda: lesion), FrocSlide(8.0, lambda: alarm, lambda: normal)]
    scores = MapFROC(slides).scores()
    # Half a false alarm a slide comes before the lesion.
    assert scores["sensitivity_at"]["0.25"] == 0
    assert scores["sensitivity_at"]["1"] == 1


def test_without_lesions_there_is_no_froc():
    empty = FrocSlide(8.0, lambda: np.zeros((60, 50), np.float32), lambda: np.zeros((60, 50), np.uint8))
    assert MapFROC([empty]).scores() == {"froc": None, "num_lesions": 0, "num_slides": 1, "sensitivity_at": None}
