import pytest

from shared.engines import WarmStart


def start(enabled=True, norm="batch", num_epochs=16, segmentation="resnet18"):
    return WarmStart(enabled, "out", norm, 0.0004, num_epochs, ["resnet18", segmentation], 0.0001, 0.0002, 0.25)


def test_the_later_stages_begin_with_max_max():
    warm = start()
    assert (warm.max_min_norm, warm.max_min_lr, warm.max_min_epochs, warm.retrain_lr) == ("frozen", 0.0001, 4, 0.0002)
    assert warm.weights() == warm.segmentation_weights == "out/max_max/model.pt"
    assert warm.weights("outer_max_max") == "out/outer_max_max/model.pt"


def test_from_scratch_they_are_trained_as_max_max():
    cold = start(enabled=False)
    assert (cold.max_min_norm, cold.max_min_lr, cold.max_min_epochs, cold.retrain_lr) == ("batch", 0.0004, 16, 0.0004)
    assert cold.weights() is None
    assert cold.segmentation_weights is None


@pytest.mark.parametrize(("num_epochs", "expected"), [(1, 1), (3, 1), (4, 1), (7, 1), (8, 2), (20, 5)])
def test_max_min_takes_a_quarter_of_the_epochs_and_one_at_least(num_epochs, expected):
    assert start(num_epochs=num_epochs).max_min_epochs == expected


@pytest.mark.parametrize("norm", ["group", "frozen", None])
def test_what_has_no_running_statistics_of_its_own_stays_as_it_is(norm):
    assert start(norm=norm).max_min_norm == norm


def test_another_resnet_of_the_segmentation_begins_from_scratch():
    warm = start(segmentation="resnet34")
    assert warm.segmentation_weights is None
    assert warm.weights() is not None
