"""FROC of lesions by hand."""

import numpy as np
import pytest

from shared.evaluation.maps.lesion_froc import FrocSlide, MapFROC


def test_found_lesions_and_false_alarms_by_hand():
    """Two lesions on two slides; the surer detection hits one, a false alarm is next, the last hits the other."""
    probabilities = [np.zeros((200, 200), np.float32) for _ in range(2)]
    masks = [np.zeros((200, 200), np.uint8) for _ in range(2)]
    masks[0][20:60, 20:60], masks[1][120:160, 20:60] = 1, 1
    probabilities[0][40, 40], probabilities[0][150, 150], probabilities[1][140, 40] = 0.95, 0.8, 0.7
    slides = [FrocSlide(8.0, lambda i=i: probabilities[i], lambda i=i: masks[i]) for i in range(2)]
    scores = MapFROC(slides).scores()
    assert (scores["num_lesions"], scores["num_slides"]) == (2, 2)
    # From 0.8 on one of two lesions at half a false alarm a slide; MONAI leaves out the lowest threshold.
    assert scores["sensitivity_at"]["0.5"] == pytest.approx(0.5)
    assert probabilities[0].max() == np.float32(0.95), "the map was written to"


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
