"""An encoder gives the same features as TorchScript and in ONNX Runtime, also of images of another size."""

import warnings

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from shared.encoders import load_encoder
from shared.encoders.imagenet_backbones import ResNetEncoder, VGG16Encoder
from shared.networks.backbones.resnet import resnet

OPTIONS = {
    "one stride": {},
    "smoothed and denser": {"stride_px": 16, "smoothing": 3},
    "several strides": {"strides_px": (8, 16, 32)},
}


@pytest.fixture(params=OPTIONS)
def encoder(request):
    return load_encoder("efficientnet_lite0", **OPTIONS[request.param])


def random_images(height, width, dtype=torch.uint8):
    return torch.randint(0, 256, (2, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).to(dtype)


def test_torchscript(encoder, tmp_path):
    torch.jit.script(encoder).save(str(tmp_path / "encoder.ts"))
    scripted = torch.jit.load(str(tmp_path / "encoder.ts"))
    for images in (random_images(64, 96), random_images(128, 32, torch.float32)):
        assert_close(scripted(images), encoder(images), rtol=1e-5, atol=1e-5)
    with pytest.raises(torch.jit.Error, match="the sides of images must be multiples of"):
        scripted(random_images(40, 96))


@pytest.mark.parametrize("name", ["resnet18", "vgg16_bn"])
def test_torchscript_of_the_imagenet_backbones(name):
    torch.manual_seed(0)
    encoder = ResNetEncoder(name, resnet(name)) if name == "resnet18" else VGG16Encoder(name)
    images = random_images(64, 96)
    assert_close(torch.jit.script(encoder.eval())(images), encoder(images), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    encoder = load_encoder("efficientnet_lite0", strides_px=(8, 16, 32), stride_px=16, smoothing=3)
    file = str(tmp_path / "encoder.onnx")
    multiple = encoder.size_multiple_px
    sides = {2: multiple * torch.export.Dim("rows", max=64), 3: multiple * torch.export.Dim("columns", max=64)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(encoder, (random_images(64, 96),), file, dynamo=True, dynamic_shapes=({0: "images", **sides},))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for images in (random_images(64, 96), random_images(96, 128)):
        (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        expected = encoder(images).numpy()
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
