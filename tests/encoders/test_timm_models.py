"""timm's models as encoders, against what timm itself computes."""

import argparse
import json
import pathlib
import re

import pytest
import torch
from torch.testing import assert_close

from shared.encoders import load_encoder
from shared.networks.layers.packed_strides import unpack_strides
from shared.networks.layers.pixel_normalization import PixelNormalization

timm = pytest.importorskip("timm", reason="requirements-encoders.txt is not installed")

VIT = "vit_tiny_patch16_224"
DINOV2 = "vit_small_patch14_reg4_dinov2"


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def saved(tmp_path):
    """Makes a model of timm, and a file of its state dict."""

    def make(name, **arguments):
        torch.manual_seed(0)
        network = timm.create_model(name, pretrained=False, **arguments).eval()
        torch.save(network.state_dict(), tmp_path / "weights.pth")
        return network, tmp_path / "weights.pth"

    return make


def normalised(network, images):
    return PixelNormalization(network.pretrained_cfg["mean"], network.pretrained_cfg["std"])(images)


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv3_small_050", "convnext_atto", "swin_tiny_patch4_window7_224", "pvt_v2_b0"]
)
def test_maps_of_convolutional_networks(saved, images, name):
    network, file = saved(name)
    # timm's own way to maps of several strides, and its last map.
    arguments = {"strict_img_size": False} if name.startswith("swin") else {}
    backbone = timm.create_model(name, features_only=True, pretrained=False, **arguments).eval()
    # It joins the names of nested layers by underscores.
    weights = {key.replace(".", "_"): value for key, value in network.state_dict().items()}
    backbone.load_state_dict({key: weights[key.removeprefix("model.").replace(".", "_")] for key in backbone.state_dict()})
    maps = [m.permute(0, 3, 1, 2) if name.startswith("swin") else m for m in backbone(normalised(network, images))]
    strides = backbone.feature_info.reduction()
    encoder = load_encoder(f"timm/{name}", strides_px=strides[-3:-1], checkpoint_path=file)
    for found, expected in zip(
        unpack_strides(encoder(images), list(encoder.map_channels), list(encoder.strides_px)), maps[-3:-1], strict=True
    ):
        assert_close(found, expected, rtol=1e-4, atol=1e-4)
    whole = load_encoder(f"timm/{name}", checkpoint_path=file)
    assert (whole.stride_px, whole.channels, whole.input_size_px) == (strides[-1], network.num_features, None)
    several = load_encoder(f"timm/{name}", strides_px=strides[-2:], checkpoint_path=file)
    packed = unpack_strides(several(images), list(several.map_channels), list(several.strides_px))
    assert_close(packed[0], maps[-2], rtol=1e-4, atol=1e-4)
    assert_close(packed[1], whole(images))


def test_the_last_map_is_that_of_forward_features(saved, images):
    network, file = saved("efficientnet_b0")
    encoder = load_encoder("timm/efficientnet_b0", checkpoint_path=file)
    assert_close(encoder(images), network.forward_features(normalised(network, images)))


@pytest.mark.parametrize("name", [VIT, DINOV2])
@pytest.mark.parametrize("patches", [(4, 6), (5, 3)])
def test_patch_tokens_at_any_size(saved, name, patches):
    network, file = saved(name)
    side = network.patch_embed.patch_size[0]
    images = torch.randint(0, 256, (1, 3, patches[0] * side, patches[1] * side), dtype=torch.uint8)
    # timm's own interpolation of the position embeddings, of a network for this size alone.
    network.set_input_size(img_size=tuple(images.shape[2:]))
    tokens = network.forward_features(normalised(network, images))
    prefix = 5 if name == DINOV2 else 1
    assert tokens.shape[1] == prefix + patches[0] * patches[1]
    dense = load_encoder(f"timm/{name}", checkpoint_path=file)
    assert (dense.channels, dense.stride_px, dense.name) == (network.embed_dim, side, f"timm/{name}")
    found = dense(images)
    assert found.shape == (1, network.embed_dim, *patches)
    assert_close(found.flatten(2).transpose(1, 2), tokens[:, prefix:], rtol=1e-4, atol=1e-4)
    both = load_encoder(f"timm/{name}", tokens="dense+class", checkpoint_path=file)(images)
    assert_close(both[:, : network.embed_dim], found)
    of_class = load_encoder(f"timm/{name}", tokens="class", checkpoint_path=file)(images)
    assert_close(both[:, network.embed_dim :], of_class)
    assert_close(of_class, tokens[:, 0, :, None, None].expand_as(of_class), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [VIT, "resnet18"])
def test_embeddings_are_those_of_each_tile(saved, name):
    network, file = saved(name, num_classes=0)
    images = torch.randint(0, 256, (2, 3, 448, 224), dtype=torch.uint8)
    encoder = load_encoder(f"timm/{name}", tokens="embedding", checkpoint_path=file)
    assert (encoder.stride_px, encoder.size_multiple_px) == (224, 224)
    found = encoder(images)
    assert found.shape == (2, network.num_features, 2, 1)
    for row in range(2):
        tile = images[:, :, 224 * row : 224 * (row + 1)]
        assert_close(found[:, :, row, 0], network(normalised(network, tile)), rtol=1e-4, atol=1e-4)


def test_tokens_and_weights_belong_to_the_key(saved):
    _, file = saved(VIT)
    keys = {
        load_encoder(f"timm/{VIT}", tokens=t, checkpoint_path=file).key for t in ("dense", "class", "dense+class", "embedding")
    }
    _, other = saved(VIT, num_classes=0)
    torch.save({k: v + 1 for k, v in torch.load(other, weights_only=True).items()}, other)
    assert len({*keys, load_encoder(f"timm/{VIT}", checkpoint_path=other).key}) == 5


@pytest.mark.parametrize("size_px", [96, 384])
def test_position_embeddings_of_another_image_size(saved, size_px):
    """As the published encoders, own weights state the size of the images that they were trained on."""
    network, file = saved(VIT, img_size=size_px)
    images = torch.randint(0, 256, (1, 3, size_px, size_px), dtype=torch.uint8)
    encoder = load_encoder(f"timm/{VIT}", tokens="embedding", checkpoint_path=file)
    assert (encoder.input_size_px, encoder.stride_px) == (size_px, size_px)
    expected = network.forward_head(network.forward_features(normalised(network, images)), pre_logits=True)
    assert_close(encoder(images)[:, :, 0, 0], expected, rtol=1e-4, atol=1e-4)
    assert load_encoder(f"timm/{VIT}", checkpoint_path=file).slide_tile_px == size_px


def test_position_embeddings_of_no_image_are_refused(saved):
    network, file = saved(VIT)
    torch.save(network.state_dict() | {"pos_embed": torch.zeros(1, 200, 192)}, file)
    with pytest.raises(ValueError, match=r"weights.pth: pos_embed must be \(1, 197, 192\); found \(1, 200, 192\)"):
        load_encoder(f"timm/{VIT}", checkpoint_path=file)


def test_a_checkpoint_of_dino(saved, images):
    network, file = saved(VIT, num_classes=0)
    teacher = {f"module.backbone.{name}": value for name, value in network.state_dict().items()}
    teacher |= {"module.head.mlp.0.weight": torch.ones(4, 192), "module.head.last_layer.weight_g": torch.ones(9, 1)}
    student = {name: torch.zeros_like(value) for name, value in teacher.items()}
    options = argparse.Namespace(arch="vit_tiny", output_dir=pathlib.Path("runs"))
    plain = load_encoder(f"timm/{VIT}", checkpoint_path=file)
    torch.save({"student": student, "teacher": teacher, "epoch": 100, "args": options}, file)
    encoder = load_encoder(f"timm/{VIT}", checkpoint_path=file)
    assert encoder.key == plain.key
    assert torch.equal(encoder(images), plain(images))


def test_a_folder_with_a_configuration_of_timm(saved, images, tmp_path):
    """timm's own loading of pretrained weights, as it does it for those of Hugging Face."""
    network, file = saved("resnet18", num_classes=0)
    (tmp_path / "own").mkdir()
    file.rename(tmp_path / "own" / "pytorch_model.bin")
    normalisation = {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.3, 0.1], "license": "mit", "input_size": [3, 224, 224]}
    configuration = {"architecture": "resnet18", "num_classes": 0, "pretrained_cfg": normalisation}
    (tmp_path / "own" / "config.json").write_text(json.dumps(configuration))
    encoder = load_encoder(f"local-dir:{tmp_path / 'own'}")
    assert (encoder.name, encoder.licence, encoder.mean) == ("local-dir:own", "mit", (0.7, 0.5, 0.6))
    expected = network.forward_features(PixelNormalization([0.7, 0.5, 0.6], [0.2, 0.3, 0.1])(images))
    assert_close(encoder(images), expected)


@pytest.fixture
def folder(saved, tmp_path):
    """Makes a ``local-dir:`` of timm, of a network made with `arguments`; returns its file of weights, and itself."""

    def make(num_classes, num_classes_said, model_args=None, **arguments):
        _, file = saved(VIT, num_classes=num_classes, **arguments)
        normalisation = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 224, 224], "classifier": "head"}
        of_network = {"architecture": VIT, "num_classes": num_classes_said, "model_args": model_args or {}}
        (tmp_path / "own").mkdir()
        text = json.dumps({**of_network, "pretrained_cfg": {**normalisation, "num_classes": num_classes_said}})
        (tmp_path / "own" / "config.json").write_text(text)
        torch.save(torch.load(file, weights_only=True), tmp_path / "own" / "pytorch_model.bin")
        return tmp_path / "own" / "pytorch_model.bin", f"local-dir:{tmp_path / 'own'}"

    return make


@pytest.mark.parametrize(
    ("num_classes", "num_classes_said", "model_args"), [(1000, 1000, {}), (5, 5, {}), (0, 0, {}), (0, 1000, {"num_classes": 0})]
)
def test_a_classifier_may_be_there_or_not(folder, num_classes, num_classes_said, model_args):
    file, source = folder(num_classes, num_classes_said, model_args)
    encoder, expected = load_encoder(source), load_encoder(f"timm/{VIT}", checkpoint_path=file).network.state_dict()
    found = encoder.network.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("num_classes", [0, 1000])
@pytest.mark.parametrize(
    ("arguments", "left_out", "said"),
    [
        ({}, "blocks.3.mlp.", r'Missing key\(s\) in state_dict: "blocks.3.mlp.fc1.weight"'),
        ({"init_values": 1e-5}, "none", r'Unexpected key\(s\) in state_dict: "blocks.0.ls1.gamma"'),
        ({"embed_dim": 96}, "none", "size mismatch for cls_token"),
    ],
)
def test_weights_of_a_folder_that_do_not_fit_its_configuration_are_refused(folder, num_classes, arguments, left_out, said):
    """timm itself leaves what is missing random, and drops what is left over."""
    file, source = folder(num_classes, num_classes, **arguments)
    weights = torch.load(file, weights_only=True)
    torch.save({name: value for name, value in weights.items() if not name.startswith(left_out)}, file)
    with pytest.raises(ValueError, match=rf"the weights of {source} are not those of the network that its config.json") as told:
        load_encoder(source)
    assert re.search(said, str(told.value))
    assert len(str(told.value)) < 1000


OF_TRANSFORMERS = {"architectures": ["ViTModel"], "model_type": "vit", "hidden_size": 192}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (OF_TRANSFORMERS, "that of a model for transformers, vit"),
        ({"architectures": ["ViTModel"]}, r"that of a model for transformers, \['ViTModel'\]"),
        ({"pretrained_cfg": {"mean": [0.5] * 3}}, "none"),
        ([1, 2], "none"),
    ],
)
def test_a_folder_of_another_library_is_refused(tmp_path, config, found):
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = rf'{tmp_path} is not a timm model: expected a config.json with "architecture".* found {found}\. Export the network'
    with pytest.raises(ValueError, match=said) as told:
        load_encoder(f"local-dir:{tmp_path}")
    assert "\n" not in str(told.value)


def test_a_repository_of_another_library_is_refused(run_python, tmp_path):
    """As it lies in the cache of Hugging Face after a download."""
    commit, cache = "0" * 40, tmp_path / "hub/models--someone--vit"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text(commit)
    (cache / "snapshots" / commit).mkdir(parents=True)
    (cache / "snapshots" / commit / "config.json").write_text(json.dumps(OF_TRANSFORMERS))
    program = "from shared.encoders import load_encoder\nload_encoder('hf-hub:someone/vit')"
    finished = run_python("-c", program, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    last = finished.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: hf-hub:someone/vit is not a timm model: expected a config.json")


def test_a_folder_without_a_configuration(tmp_path):
    with pytest.raises(ValueError, match=r"is not a timm model: expected its config.json there"):
        load_encoder(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("timm/resnet18", {"tokens": "class"}, "the tokens of timm/resnet18 must be one of dense"),
        ("timm/resnet18", {"strides_px": (3,)}, r"be among those of timm/resnet18, \[2, 4, 8, 16, 32\]; got \[3\]"),
        ("timm/resnet1x", {}, r"timm .* has no model 'resnet1x'; similar names are none|similar names are resnet"),
        ("timm/resnet18.none", {}, "timm .* has no model 'resnet18.none'"),
        ("timm/cait_xxs24_224", {}, r"gives no dense features of images of 224 x 256 px: Input width \(256\)"),
    ],
)
def test_what_timm_cannot_give_is_an_error(saved, source, options, said):
    name = source.removeprefix("timm/")
    _, file = saved(name if name in timm.list_models() else "resnet18")
    with pytest.raises(ValueError, match=said):
        load_encoder(source, checkpoint_path=file, **options)


def test_weights_of_another_model_are_refused(saved):
    _, file = saved(VIT)
    with pytest.raises(ValueError, match=r"weights.pth does not hold the weights of this encoder: \d+ of \d+ are missing"):
        load_encoder("timm/resnet18", checkpoint_path=file)


def test_a_model_without_weights_is_never_started_from_random_ones():
    name = sorted(set(timm.list_models("resnet*")) - {n.split(".")[0] for n in timm.list_pretrained("resnet*")})[0]
    with pytest.raises(ValueError, match=f"timm has no weights for {name}: name their file as checkpoint_path"):
        load_encoder(f"timm/{name}")
