import pytest
import torch

from shared.losses import deep_weak_supervision_loss, superpixel_means


def test_values_by_hand():
    values = torch.tensor([[[[0.0, 0.2], [0.4, 1.0]], [[1.0, 2.0], [3.0, 4.0]]]])
    means, counts = superpixel_means(values, torch.tensor([[[[0, 3], [3, 1]]]]))
    # Id 2 is missing; id 3 has the pixels 0.2 and 0.4, and 2 and 3.
    torch.testing.assert_close(means, torch.tensor([[[0.0, 1.0, 0.0, 0.3], [1.0, 4.0, 0.0, 2.5]]]))
    assert counts.tolist() == [[1, 1, 0, 2]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_equals_a_loop(dtype):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, 2, 9, 7, generator=generator, dtype=torch.float64)
    superpixels = torch.stack([torch.randint(0, most, (1, 9, 7), generator=generator) for most in (3, 30, 12)])
    means, counts = superpixel_means(values, superpixels.to(dtype))
    assert means.shape == (3, 2, superpixels.max() + 1)
    for image in range(3):
        for index in range(means.shape[2]):
            inside = superpixels[image, 0] == index
            assert counts[image, index] == inside.sum()
            expected = values[image][:, inside].mean(1) if inside.any() else torch.zeros(2, dtype=torch.float64)
            torch.testing.assert_close(means[image, :, index], expected)


def test_gradient_is_shared_out():
    values = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    superpixels = torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2], [5] * 9]).view(2, 1, 3, 3)
    assert torch.autograd.gradcheck(lambda pixels: superpixel_means(pixels, superpixels)[0], values)


def test_float32_of_half_values():
    means, _ = superpixel_means(torch.ones(1, 1, 40, 40, dtype=torch.float16), torch.zeros(1, 1, 40, 40, dtype=torch.int32))
    assert means.dtype == torch.float32
    assert means.item() == 1


def test_large_superpixels_keep_their_precision():
    values = torch.full((1, 1, 1500, 1500), 0.1, requires_grad=True)
    superpixels = torch.zeros(1, 1, 1500, 1500, dtype=torch.int32)
    means, counts = superpixel_means(values, superpixels)
    means.sum().backward()
    assert counts.item() == 1500**2
    assert means.item() == pytest.approx(0.1, rel=1e-7)
    torch.testing.assert_close(values.grad, torch.full_like(values, 1 / 1500**2))


def test_rejects_what_does_not_fit():
    values, superpixels = torch.rand(2, 3, 4, 5), torch.zeros(2, 1, 4, 5, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\(B, C, H, W\) and not empty; got \(3, 4, 5\)"):
        superpixel_means(values[0], superpixels)
    with pytest.raises(ValueError, match=r"not empty; got \(0, 3, 4, 5\)"):
        superpixel_means(values[:0], superpixels[:0])
    with pytest.raises(ValueError, match=r"superpixels must be \(2, 1, 4, 5\); got \(2, 1, 5, 4\)"):
        superpixel_means(values, superpixels.mT)
    with pytest.raises(ValueError, match=r"must be integers; got torch\.float32"):
        superpixel_means(values, superpixels.float())
    with pytest.raises(ValueError, match=r"must be integers; got torch\.bool"):
        superpixel_means(values, superpixels.bool())
    with pytest.raises(ValueError, match="ids must be >= 0; got -1"):
        superpixel_means(values, superpixels - 1)


def test_maps_that_are_coarser_than_the_super_pixels_take_the_ids_of_their_middles():
    """The loss of maps with a value every 4 px is that of the ids in the middle of each square of 4 x 4 px."""
    generator = torch.Generator().manual_seed(0)
    sides, labels, areas = torch.randn(2, 2, 8, 6, generator=generator), torch.tensor([0, 1]), torch.tensor([0.0, 0.4])
    fine = torch.randint(0, 5, (2, 1, 32, 24), generator=generator)
    coarse = torch.stack([fine[:, :, 4 * row + 2, 4 * column + 2] for row in range(8) for column in range(6)], dim=-1)
    losses = [
        deep_weak_supervision_loss(sides, None, labels, areas, superpixels=ids, etas=[2.5, 5])
        for ids in (fine, coarse.reshape(2, 1, 8, 6))
    ]
    torch.testing.assert_close(*losses, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"superpixels must be \(2, 1, 8, 6\); got \(2, 1, 30, 24\)"):
        deep_weak_supervision_loss(sides, None, labels, areas, superpixels=fine[:, :, :30], etas=[2.5, 5])
