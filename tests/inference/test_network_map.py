import pytest
import torch

from shared.inference import MapGrid
from shared.inference.network_map import predict_cores, to_map_pixels, tumour_probability


def test_one_channel_is_a_sigmoid_and_two_are_a_softmax():
    logits = torch.randn(3, 2, 4, 5)
    torch.testing.assert_close(tumour_probability(logits), logits.softmax(1)[:, 1])
    torch.testing.assert_close(tumour_probability(logits[:, :1]), logits[:, 0].sigmoid())
    assert tumour_probability(torch.zeros(3, 1)).shape == (3, 1, 1)


@pytest.mark.parametrize("shape", [(3,), (3, 3), (3, 3, 8, 8), (3, 8, 8)])
def test_rejects_other_shapes(shape):
    with pytest.raises(ValueError, match="C = 1 or 2"):
        tumour_probability(torch.zeros(shape))


def test_map_pixels_are_means_of_finer_and_interpolated_from_coarser_outputs():
    tiles = torch.arange(16.0).reshape(1, 4, 4)
    torch.testing.assert_close(to_map_pixels(tiles, (2, 2)), torch.tensor([[[2.5, 4.5], [10.5, 12.5]]]))
    assert to_map_pixels(tiles, (4, 4)) is tiles
    torch.testing.assert_close(to_map_pixels(torch.full((2, 1, 1), 0.3), (8, 8)), torch.full((2, 8, 8), 0.3))


def test_cores_leave_the_margin_out():
    class Columns(torch.nn.Module):
        def forward(self, images):
            return torch.logit(images[:, :1] / 255)

    grid = MapGrid.of_image((1000, 1000), tile_size_px=64, margin_px=8, map_downsample=4)
    tiles = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    tiles[:, :, :, 0] = torch.arange(64) * 2
    cores = predict_cores(Columns(), grid, False, tiles)
    assert cores.shape == (2, 12, 12)
    # Map pixel k of the core is the mean of columns 8 + 4k .. 11 + 4k, which hold twice their index.
    assert cores[1, 5].tolist() == [2 * (8 + 4 * k) + 3 for k in range(12)]
