"""Features of patches against patches cut out one by one."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from shared.networks import PatchFeatures


def random_images(height, width, batch_size=1, seed=0):
    """Noise that is not the same everywhere."""
    noise = torch.rand(batch_size, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return (255 * noise * torch.linspace(0.2, 1, width)).to(torch.uint8)


@pytest.fixture(scope="module")
def features():
    return PatchFeatures(patch_size_px=16, stride_px=4)


def named(features, images):
    values = features(images)[0]
    assert len(values) == len(features.names) == len(set(features.names))
    return dict(zip(features.names, values.double().numpy(), strict=True))


def patch_at(images, features, row, column):
    """The patch of one place of the map, ``(H, W, 3)``: its middle is that of a cell of stride x stride pixels."""
    size, stride = features.patch_size_px, features.stride_px
    top, left = (stride * place + stride // 2 - size // 2 for place in (row, column))
    return images[0].permute(1, 2, 0).numpy()[top : top + size, left : left + size]


def test_colours_are_those_of_the_patch(features):
    images = random_images(40, 48)
    found = named(features, images)
    for row, column in [(2, 2), (5, 7), (4, 9)]:
        patch = patch_at(images, features, row, column)
        red, lab = patch[..., 0] / 255, rgb2lab(patch)
        at = {name: values[row, column] for name, values in found.items()}
        counts, _ = np.histogram(red, bins=8, range=(0, 1))
        np.testing.assert_allclose([at[f"red in bin {index}"] for index in range(8)], counts / 256, atol=1e-6)
        assert at["mean of red"] == pytest.approx(red.mean(), abs=1e-5)
        assert at["deviation of red"] == pytest.approx(red.std(), abs=1e-5)
        # Scaled from -20 ... 70 to 0 ... 1.
        assert at["mean of a"] == pytest.approx((lab[..., 1].mean() + 20) / 90, abs=1e-5)
        assert at["deviation of L"] == pytest.approx(lab[..., 0].std() / 100, abs=1e-4)


def test_histograms_and_patterns_are_shares(features):
    found = features(random_images(40, 48))[0]
    starts = [8 * index for index in range(9)] + [72, 82]
    for start, end in zip(starts, [*starts[1:], 92], strict=True):
        torch.testing.assert_close(found[start:end].sum(0), torch.ones(10, 12))


def test_what_lies_beyond_a_range_is_in_its_outermost_bin(features):
    """Pure green is far below the a of any stained tissue, pure blue below its b."""
    for colour, name in (((0, 255, 0), "a in bin 0"), ((0, 0, 255), "b in bin 0"), ((0, 0, 0), "haematoxylin in bin 7")):
        image = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(-1, -1, 24, 24)
        assert (named(features, image)[name] == 1).all(), name


def test_flat_images_are_finite(features):
    for value in (0, 128, 255):
        found = named(features, torch.full((1, 3, 24, 24), value, dtype=torch.uint8))
        assert all(np.isfinite(values).all() for values in found.values())
        assert found["contrast at 1 px"].max() == 0
        assert (found["correlation at 3 px"] == 1).all()
        assert found["deviation of red"].max() < 1e-3


def test_a_larger_image_has_the_same_features_inside(features):
    """Away from its edges: half a patch and three pixels of texture."""
    images = random_images(64, 72)
    whole, part = features(images)[0], features(images[:, :, 8:56, 12:60])[0]
    inner = slice(3, -3)
    torch.testing.assert_close(part[:, inner, inner], whole[:, 2:14, 3:15][:, inner, inner])


def test_mirrored_images_have_mirrored_features(features):
    images = random_images(40, 48)
    for dims in ([2], [3], [2, 3]):
        torch.testing.assert_close(features(images.flip(dims)), features(images).flip(dims), atol=1e-5, rtol=1e-4)


def test_images_of_any_size(features):
    images = random_images(41, 50, batch_size=2)
    found = features(images)
    assert found.shape == (2, len(features.names), 11, 13)
    torch.testing.assert_close(found[:1], features(images[:1]))
    torch.testing.assert_close(features(images.float()), found)


def test_defaults_are_the_papers():
    features = PatchFeatures()
    assert (features.patch_size_px, features.stride_px) == (64, 4)
    assert features(random_images(64, 68)).shape == (1, 118, 16, 17)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"stride_px": 3}, "stride_px=3"),
        ({"patch_size_px": 60, "stride_px": 8}, "patch_size_px=60"),
        ({"patch_size_px": 20, "stride_px": 4}, "patch_size_px=20"),
        ({"num_bins": 1}, "num_bins must be at least 2, got 1"),
    ],
)
def test_rejects_patches_that_have_no_middle(options, problem):
    with pytest.raises(ValueError, match=problem):
        PatchFeatures(**options)


def test_rejects_images_that_are_too_small(features):
    with pytest.raises(ValueError, match="larger than 10 px for patches of 16 px; got 10 x 40"):
        features(random_images(10, 40))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        features(torch.zeros(1, 1, 40, 40))
