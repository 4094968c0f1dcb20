"""From slides' pixels to a map, with a vision transformer of timm: its weights, its features, a head that learns, its map."""

import pytest
import torch
from torch.testing import assert_close

from shared.encoders import EncoderFacts, FeatureOptions
from shared.networks import EncodedSegmentation, EncodedSideOutputs

timm = pytest.importorskip("timm", reason="requirements-encoders.txt is not installed")

from shared.encoders.timm_models import TimmEncoder  # noqa: E402

STRIDE_PX, SIDE_PX = 14, 112


@pytest.fixture
def encoder():
    """Patches of 14 px like those of UNI2-h, tiny, and with random weights, which `load_encoder` never gives."""
    torch.manual_seed(0)
    size = {"patch_size": STRIDE_PX, "img_size": 4 * STRIDE_PX, "embed_dim": 32, "depth": 2, "num_heads": 2}
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, dynamic_img_size=True, **size).eval()
    facts = EncoderFacts("random_vit", mpp=0.5, input_size_px=4 * STRIDE_PX)
    return TimmEncoder(facts, network, FeatureOptions(max_stride_px=16, num_strides=3), "class").requires_grad_(False).eval()


@pytest.fixture
def images():
    """Grey, with a square of purple in another corner of each; and where it is, ``(B, H, W)``."""
    pixels = torch.randint(150, 170, (4, 3, SIDE_PX, SIDE_PX), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    truth = torch.zeros(4, SIDE_PX, SIDE_PX, dtype=torch.long)
    half = slice(0, SIDE_PX // 2), slice(SIDE_PX // 2, SIDE_PX)
    for index in range(4):
        rows, columns = half[index // 2], half[index % 2]
        truth[index, rows, columns] = 1
        pixels[index, :, rows, columns] = torch.tensor([70, 30, 120], dtype=torch.uint8)[:, None, None]
    return pixels, truth


def test_it_learns_on_features_and_maps_pixels(encoder, images):
    pixels, truth = images
    assert (encoder.stride_px, encoder.native_strides_px, encoder.channels) == (STRIDE_PX, (STRIDE_PX,), 32)
    assert encoder.whole_px(SIDE_PX) == SIDE_PX
    features = torch.stack([encoder(one[None])[0].half() for one in pixels])
    assert features.shape == (4, 32, 8, 8)
    network = EncodedSegmentation(encoder)
    network.standardise([features])
    optimizer = torch.optim.Adam(network.head.parameters(), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(features), truth).backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        of_pixels, of_features = network(pixels), network(features)
    assert of_pixels.shape == (4, 2, SIDE_PX, SIDE_PX)
    # Features are stored in half precision.
    assert_close(of_pixels, of_features, rtol=0.02, atol=0.02)
    found = of_pixels.argmax(dim=1)
    assert ((found == 1) & (truth == 1)).sum() / ((found == 1) | (truth == 1)).sum() > 0.8


def test_its_one_grid_is_the_last_stage(encoder, images):
    network = EncodedSideOutputs(encoder, num_stages=3)
    assert (network.side_outputs, network.num_left_out) == ([1], 2)
    sides, fused = network.train()(encoder(images[0]))
    assert sides.shape == (4, 1, 8, 8)
    assert fused is None
