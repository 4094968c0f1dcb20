"""An encoder is one key: every bundle learns, is evaluated and maps with encoders of any stride, and nothing else is given."""

import json
from itertools import product
from typing import Any

import pytest
import torch

from scripts.options.embedding import EmbeddingOptions

from .conftest import CLASS_NAMES, IMAGE_SIZE_PX, TINY, TINY_JOINT
from .runs import Bundle, mapped_row, messages_of, metrics_of, weights_of
from .tiny_encoders import CHANNELS, FACTS, exported_encoder, vgg16_encoder

ONCE: dict[str, Any] = {"image_size_px": IMAGE_SIZE_PX, "amp_dtype": "$None", "num_workers": 0, "num_epochs": 1}
SLIDES = {"amp_dtype": "$None", "num_workers": 1, "num_epochs": 1, "tissue_mpp": 4.0}
IMAGES: dict[str, dict[str, Any]] = {
    "camel": {
        **{name: value for name, value in TINY.items() if "backbone" not in name},
        **{"instances_per_side": 2, "cmil::num_epochs": 1, "max_min::num_epochs": 1},
    },
    "cdws_mil": ONCE | {"mpp": 0.5},
    "fully_supervised": ONCE,
    "joint_seg_cls": TINY_JOINT | {"mpp": 8.0, "num_epochs": 1, "class_names": CLASS_NAMES},
    "mil_boosting": {"image_size_px": IMAGE_SIZE_PX, "mpp": 0.5, "num_workers": 0, "num_trees": 4, "rounds_per_epoch": 4},
    "wildcat": ONCE,
}
BAGS = {
    "alpha_beta_mil": SLIDES | {"tiles_per_slide": 6, "mpp": 0.5},
    "attention_mil": SLIDES | {"features_per_slide": 8, "min_steps": 6, "mpp": 0.5},
}
# Trees have no gradient to fine-tune an encoder by.
TUNED = [name for name in IMAGES if name != "mil_boosting"]
# VGG-16 takes a minute for a few slides.
QUICK = ("patch14", "patch8", "patch16", "map32")
KINDS = (*QUICK, "vgg16")
# Of images and of slides, which keep the encoder's own.
STRIDES_PX = {"patch14": (14, 14), "patch8": (8, 8), "patch16": (16, 16), "map32": (16, 32), "vgg16": (16, 16)}
SIDES = {"patch14": 1, "patch8": 1, "patch16": 1, "map32": 1, "vgg16": 3}


@pytest.fixture(scope="session")
def encoder(request, tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "vgg16":
        return vgg16_encoder(folder / "vgg16.pth")
    kind = "map" if request.param.startswith("map") else "tokens"
    return exported_encoder(folder / "encoder.pt2", int(request.param.lstrip("patchm")), kind)


@pytest.fixture
def bundle(request, tmp_path) -> Bundle:
    name = request.param
    data = {"joint_seg_cls": "easy_breast"}.get(name, "easy_data" if name in IMAGES else "easy_slides")
    return Bundle(name, request.getfixturevalue(data), (IMAGES | BAGS)[name] | {"features_dir": str(tmp_path / "features")})


def overlays_of(bundle: Bundle, last: str) -> list[str]:
    """After train.json; attention_mil has its encoder there."""
    if bundle.name == "attention_mil":
        return []
    return ["features", "finetune"] if last == "finetune" and bundle.name in ("camel", "alpha_beta_mil") else [last]


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "encoder"), [*product(IMAGES, KINDS), *product(BAGS, QUICK)], indirect=True)
def test_a_bundle_learns_on_the_features_of_any_encoder(bundle, encoder, tmp_path, request):
    kind = request.node.callspec.params["encoder"]
    overlays = overlays_of(bundle, "features")
    workflow = bundle.train_here(*overlays, output_dir=tmp_path / "run", **encoder)
    network = workflow.parser.get_parsed_content("network_def")
    assert network.stride_px == STRIDES_PX[kind][bundle.name in BAGS]
    if bundle.name == "cdws_mil":
        assert len(network.side_outputs) == SIDES[kind]
    metrics = metrics_of(tmp_path / "run")
    names = ("image_size_px", "mpp", "instances_per_side", "num_trees", "class_names", "tissue_mpp", "features_dir")
    given = {name: bundle.tiny[name] for name in names if name in bundle.tiny} | encoder
    again = bundle.evaluate_here(*overlays, output_dir=tmp_path / "run", evaluation_dir=tmp_path / "again", **given)
    shown = "pixels_tissue" if bundle.name in BAGS else "pixels" if "pixels" in metrics else "confusion"
    assert again[shown] == metrics[shown]


@pytest.mark.parametrize("bundle", ["alpha_beta_mil", "camel"], indirect=True)
def test_a_bundle_learns_with_a_model_of_timm(bundle, tmp_path):
    """A published architecture, with position embeddings, a class token and weights in a file; scripts/test.sh --encoders."""
    timm = pytest.importorskip("timm", reason="requirements-encoders.txt is not installed")
    torch.manual_seed(0)
    torch.save(timm.create_model("vit_tiny_patch16_224", pretrained=False).state_dict(), tmp_path / "weights.pth")
    encoder = {"encoder": "timm/vit_tiny_patch16_224", "encoder_file": str(tmp_path / "weights.pth")}
    bundle.train_here("features", output_dir=tmp_path / "run", **encoder)
    assert not any(name.startswith("encoder.") for name in weights_of(tmp_path / "run/model.pt"))
    metrics = metrics_of(tmp_path / "run")
    scores = next(iter(metrics["pixels_tissue" if bundle.name in BAGS else "pixels"].values()))
    assert 0 <= scores["iou"] <= 1


# Stride, kind of output, input size, tokens; then the tiles, margins and smoothing of both.
USED = {
    "a transformer of 14 px patches": ((14, "tokens", 56, "dense"), (56, 0, 3)),
    "an input size of no whole map pixels": ((14, "tokens", 70, "dense+class"), (84, 0, 3)),
    "one without an input size": ((14, "tokens", None, "dense"), (532, 84, 3)),
    "a token of the whole image": ((16, "tokens", 64, "class"), (64, 0, 1)),
    "a vector per tile": ((16, "vector", 64, "embedding"), (64, 0, 1)),
    # Its own weights, and nothing said of it.
    "the default encoder": (None, (512, 64, 3)),
}


@pytest.mark.parametrize("name", BAGS)
@pytest.mark.parametrize(("encoder_of", "expected"), USED.values(), ids=USED)
def test_embed_py_and_bundles_have_the_same_defaults(name, encoder_of, expected, tmp_path):
    given: dict[str, Any] = {}
    options = EmbeddingOptions("efficientnet_lite0", device="cpu")
    if encoder_of is not None:
        stride_px, kind, input_size_px, tokens = encoder_of
        given = exported_encoder(tmp_path / "encoder.pt2", stride_px, kind) | {"tokens": tokens}
        given["encoder_facts::input_size_px"] = "$None" if input_size_px is None else input_size_px
        options = EmbeddingOptions(given["encoder"], tokens=tokens, input_size_px=input_size_px, device="cpu", **FACTS)
    settings = options.build().settings()
    assert (settings["tile_size_px"], settings["margin_px"], settings["encoder_options"]["smoothing"]) == expected
    for config in ("train", "evaluate", "inference"):
        parser = Bundle(name, tmp_path, {}).configuration(config, *([] if name == "attention_mil" else ["features"]), **given)
        keys = ("mpp", "tile_size_px", "margin_px", "tissue_mpp", "tissue_method")
        assert {key: parser.get_parsed_content(key) for key in keys} == {key: settings[key] for key in keys}
        assert parser.get_parsed_content("encoder_def").key == settings["encoder_key"]


@pytest.mark.parametrize("config", ["train", "evaluate", "inference"])
@pytest.mark.parametrize("name", BAGS)
def test_heads_that_learn_from_tiles_of_slides_are_given_images_in_tiles(name, config, tmp_path):
    """In one piece an image of 2048 px would be seen as nothing was in training, and one token would answer for all of it."""
    configuration = Bundle(name, tmp_path, {}).configuration(config, *([] if name == "attention_mil" else ["features"]))
    (tiles,) = _items_of("shared.inference.Tiles", configuration.config)
    assert tiles["whole_image_px"] == 0


def _items_of(target: str, config: Any) -> list[dict[str, Any]]:
    """All items of a configuration that make a `target`."""
    if not isinstance(config, dict | list):
        return []
    found = [config] if isinstance(config, dict) and config.get("_target_") == target else []
    parts = config.values() if isinstance(config, dict) else config
    return found + [item for part in parts for item in _items_of(target, part)]


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["patch14"], indirect=True)
@pytest.mark.parametrize("bundle", IMAGES, indirect=True)
def test_tiles_and_margins_are_whole_features(bundle, encoder, tmp_path):
    """A slide is mapped, in tiles that divide into whole features and whole pixels of the map."""
    bundle.train_here("features", output_dir=tmp_path / "run", **encoder)
    size = {"tile_size_px": "$@encoder_def.whole_px(256)"} if bundle.name in ("fully_supervised", "wildcat", "camel") else {}
    names = ("mpp", "image_size_px", "num_trees", "class_names")
    given = {name: bundle.tiny[name] for name in names if name in bundle.tiny} | encoder | size
    folders = {"source": str(bundle.data / "slides/slide_00.tif"), "output_dir": str(tmp_path / "maps")}
    checkpoint = {"checkpoint": str(tmp_path / "run/model.pt")}
    bundle.workflow("inference", "features", workflow_type="infer", **folders, **checkpoint, **given).run()
    mapped_row(tmp_path / "maps", "slide_00")
    settings = json.loads((tmp_path / "maps/settings.json").read_text())
    assert (settings["tile_size_px"] % 28, settings["margin_px"]) == (0, 84)


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "encoder"), [*product(TUNED, KINDS), *product(["alpha_beta_mil"], QUICK)], indirect=True)
def test_a_bundle_fine_tunes_any_encoder(bundle, encoder, tmp_path):
    if bundle.name == "alpha_beta_mil":
        bundle = Bundle(bundle.name, bundle.data, bundle.tiny | {"bag_tile_px": "$@encoder_def.whole_px(56)"})
    overlays = overlays_of(bundle, "finetune")
    bundle.train_here(*overlays, output_dir=tmp_path / "run", **encoder)
    weights = weights_of(tmp_path / "run/model.pt")
    untouched = bundle.configuration("inference", *overlays, **encoder).get_parsed_content("encoder_def").state_dict()
    assert [name for name, value in untouched.items() if not torch.equal(weights[f"encoder.{name}"], value)]


@pytest.mark.parametrize(("name", "others"), [("camel", {"loader": 0, "validator": 0}), ("alpha_beta_mil", {})])
def test_images_of_a_fine_tuning_are_read_by_several_processes(name, others, tmp_path):
    """features.json, which comes before, has none for features; in camel the stages before the last one still learn from them."""
    parser = Bundle(name, tmp_path, {}).configuration("train", "features", "finetune", num_workers=3)
    readers = dict.fromkeys(("train::dataloader", "validate::evaluator", "calibration"), 3) | others
    assert {reader: parser.get_parsed_content(f"{reader}::num_workers") for reader in readers} == readers


@pytest.mark.parametrize("last", ["features", "finetune"])
@pytest.mark.parametrize("name", [name for name in TUNED if name != "camel"])
def test_a_head_has_a_hidden_layer_that_sees_neighbours(name, last, tmp_path):
    bundle = Bundle(name, tmp_path, {})
    parser = bundle.configuration("inference", last, hidden_channels=11, kernel_size=3)
    network = parser.get_parsed_content("network_def")
    layers = [part for name, part in network.named_modules() if isinstance(part, torch.nn.Conv2d) and "encoder" not in name]
    # The first layer sees 3 x 3 features, the last one the hidden channels of one place.
    assert {layer.kernel_size for layer in layers if layer.out_channels == 11} == {(3, 3)}
    assert {layer.kernel_size for layer in layers if layer.in_channels == 11} == {(1, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["camel"], indirect=True)
def test_a_head_that_sees_neighbours_learns(bundle, tmp_path):
    """In camel it is that of the segmentation alone; the classifiers have the hidden layer."""
    encoder = exported_encoder(tmp_path / "encoder.pt2", 16)
    bundle.train_here("features", output_dir=tmp_path / "run", hidden_channels=5, kernel_size=3, **encoder)
    assert weights_of(tmp_path / "run/model.pt")["head.0.weight"].shape == (5, CHANNELS, 3, 3)
    assert weights_of(tmp_path / "run/max_max/model.pt")["head.0.weight"].shape == (5, CHANNELS, 1, 1)


def test_a_file_that_does_not_state_its_normalisation_is_refused(tmp_path):
    bundle = Bundle("wildcat", tmp_path, {})
    encoder = exported_encoder(tmp_path / "encoder.pt2", 16)
    del encoder["encoder_facts::mean"]
    with pytest.raises(RuntimeError) as error:
        bundle.configuration("inference", "features", **encoder).get_parsed_content("network_def")
    assert "encoder.pt2 does not state how its images are normalised: give mean and std" in messages_of(error.value)
