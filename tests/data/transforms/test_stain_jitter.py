import numpy as np
import pytest
import torch
from monai.transforms import Compose

from shared.data import RandomStainJitterd, scale_stains
from shared.data.transforms.stain_jitter import STAIN_VECTORS


def random_image(size_px=16):
    return torch.randint(1, 256, (3, size_px, size_px), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def amounts(image):
    """Stains ``(3, H, W)`` of an RGB image by least squares, an independent unmixing."""
    vectors = STAIN_VECTORS.numpy() / np.linalg.norm(STAIN_VECTORS.numpy(), axis=1, keepdims=True)
    density = -np.log(image.double().numpy().reshape(3, -1) / 255)
    return np.linalg.lstsq(vectors.T, density, rcond=None)[0].reshape(image.shape)


def test_factor_1_and_shift_0_change_nothing():
    image = random_image()
    scaled = scale_stains(image, torch.ones(3), torch.zeros(3))
    assert scaled.dtype == torch.float32
    assert torch.equal(scaled.round().to(torch.uint8), image)


@pytest.mark.parametrize("stain", [0, 1, 2])
def test_one_stain_alone_is_changed(stain):
    # Pale enough for nothing to leave 0 ... 255.
    image = 120 + random_image().float() / 8
    factors, shifts = torch.ones(3), torch.zeros(3)
    factors[stain], shifts[stain] = 1.2, 0.05
    before, after = amounts(image), amounts(scale_stains(image, factors, shifts))
    expected = before.copy()
    expected[stain] = expected[stain] * 1.2 + 0.05
    assert np.allclose(after, expected, atol=1e-4)


def test_more_haematoxylin_is_darker_by_its_vector():
    white = torch.full((3, 1, 1), 255.0)
    shifted = scale_stains(white, torch.ones(3), torch.tensor([1.0, 0.0, 0.0]))
    haematoxylin = np.array([0.65, 0.70, 0.29]) / np.linalg.norm([0.65, 0.70, 0.29])
    assert np.allclose(shifted.flatten().numpy(), 255 * np.exp(-haematoxylin), atol=1e-3)


@pytest.mark.parametrize("value", [0, 255])
def test_extremes_stay_in_range(value):
    image = torch.full((3, 2, 2), value, dtype=torch.uint8)
    for factor in (0.0, 5.0):
        scaled = scale_stains(image, torch.full((3,), factor), torch.full((3,), -0.3))
        assert scaled.min() >= 0
        assert scaled.max() <= 255


def test_jitter_is_seeded_and_within_its_strength():
    jitter = RandomStainJitterd(["image"], strength=0.2)
    drawn = []
    for seed in range(200):
        jitter.set_random_state(seed=seed)
        jitter.randomize(None)
        drawn.append((jitter.factors, jitter.shifts))
    factors, shifts = (torch.stack(values) for values in zip(*drawn, strict=True))
    assert 0.8 <= factors.min() < 0.82
    assert 1.18 < factors.max() <= 1.2
    assert 0.018 < shifts.abs().max() <= 0.02
    images = [Compose([jitter]).set_random_state(seed=seed)({"image": random_image()})["image"] for seed in (0, 0, 1)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"strength": 0.5, "prob": 0.0}])
def test_jitter_that_does_nothing(options):
    data = {"image": random_image(), "mask": torch.ones(1)}
    result = RandomStainJitterd(["image"], **options)(data)
    assert result["image"] is data["image"]
    assert result["mask"] is data["mask"]
