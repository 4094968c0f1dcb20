import pytest
import torch

from shared.networks.probabilities import class_probabilities, to_map_pixels, tumour_probability


def test_one_channel_is_a_sigmoid_and_two_are_a_softmax():
    logits = torch.randn(3, 2, 4, 5)
    torch.testing.assert_close(tumour_probability(logits), logits.softmax(1)[:, 1])
    torch.testing.assert_close(tumour_probability(logits[:, :1]), logits[:, 0].sigmoid())
    assert tumour_probability(torch.zeros(3, 1)).shape == (3, 1, 1)


@pytest.mark.parametrize("shape", [(3,), (3, 3), (3, 3, 8, 8), (3, 8, 8)])
def test_tumour_rejects_other_shapes(shape):
    with pytest.raises(ValueError, match="C = 1 or 2"):
        tumour_probability(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 4)])
def test_classes_are_a_softmax_in_float32(shape):
    logits = torch.randn(shape)
    probabilities = class_probabilities(logits.bfloat16(), 4)
    assert probabilities.dtype == torch.float32
    assert probabilities.shape == (*shape, 1, 1)[:4]
    torch.testing.assert_close(probabilities.reshape(shape), logits.bfloat16().float().softmax(dim=1))


@pytest.mark.parametrize("shape", [(3,), (3, 3), (3, 5, 8, 8), (4, 8, 8)])
def test_classes_reject_other_shapes(shape):
    with pytest.raises(ValueError, match=r"for 4 class names the network must return logits \(B, 4, H, W\) or \(B, 4\), got"):
        class_probabilities(torch.zeros(shape), 4)


def test_map_pixels_are_means_of_finer_and_interpolated_from_coarser_outputs():
    tiles = torch.arange(16.0).reshape(1, 1, 4, 4)
    torch.testing.assert_close(to_map_pixels(tiles, (2, 2)), torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]))
    assert to_map_pixels(tiles, (4, 4)) is tiles
    torch.testing.assert_close(to_map_pixels(torch.full((2, 3, 1, 1), 0.3), (8, 8)), torch.full((2, 3, 8, 8), 0.3))
