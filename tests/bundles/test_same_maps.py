"""One network answers the same whether evaluate.json scores an image or scripts/infer.py maps it, whatever the image's size."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import ConfigParser
from PIL import Image
from torch import Tensor, nn

from shared.data import read_image
from shared.inference import run_cohort
from shared.inference.bundle_mapper import load_slide_mapper
from shared.inference.inputs import ImageInput
from shared.networks.probabilities import class_probabilities, tumour_probability
from shared.synthetic import synthesize_image

from .runs import REPOSITORY


class Case(NamedTuple):
    bundle: str
    network: str
    """Of evaluate.json, as its evaluator gets it."""
    last_layers: str
    options: dict[str, Any]
    overlay: str | None = None


CASES = {
    "DeepLab": Case("camel", "evaluator::segmenter", "pyramid", {"segmentation_backbone": "resnet10"}),
    "U-Net": Case(
        "camel", "evaluator::segmenter", "unet.final_conv", {"network_def::features": [8, 8, 16, 16, 32, 8]}, overlay="unet"
    ),
    "FCN": Case("fully_supervised", "evaluation::network", "score", {"head_channels": 32}, overlay="fcn8s"),
    "DCAN": Case("fully_supervised", "evaluation::network", "score_layers", {"head_channels": 32}, overlay="dcan"),
    "side outputs": Case("cdws_mil", "evaluator::network", "side_layers", {}),
    "Wildcat": Case("wildcat", "evaluation::network", "transfer", {"backbone": "resnet10"}),
    "boosted patches": Case("mil_boosting", "evaluator::network", "", {"num_trees": 4}),
    "joint": Case("joint_seg_cls", "evaluator::network", "decoder.4", {}),
}
# Below a tile, as large as one, above it; sides that strides do and do not divide.
SIZES = {
    "DeepLab": [(112, 112), (224, 160), (400, 400), (1000, 1000), (113, 77)],
    "U-Net": [(224, 160), (400, 400), (113, 77)],
    "FCN": [(113, 77)],
    "DCAN": [(112, 112)],
    "side outputs": [(112, 112), (113, 77)],
    "Wildcat": [(224, 160), (400, 400)],
    "boosted patches": [(112, 112), (224, 160)],
    "joint": [(112, 112), (224, 160), (400, 400)],
}


@functools.cache
def picture() -> np.ndarray:
    return synthesize_image(3, tumour_share=0.4, size_px=1000).image


@torch.inference_mode()
def randomized(network: nn.Module, last_layers: str) -> nn.Module:
    """The network with weights that give every part of a picture another answer, up to its borders."""
    torch.manual_seed(0)
    if hasattr(network, "set_trees"):
        feature, value = torch.arange(4)[:, None] * 7, torch.tensor([[-1.0, 1.0]]).expand(4, 2)
        network.set_trees(feature, torch.tensor([0.1, 0.05, 0.1, 0.2])[:, None], value)
        return network
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and not (layer.weight != 0).any():
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    sample = torch.from_numpy(picture()[:320, :320]).permute(2, 0, 1)[None].float()
    if any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()):
        network.train()
        network(sample)
    network.eval()
    answer = network(sample)
    spread = (torch.logit(answer, eps=1e-4) if "side" in last_layers else answer).std()
    for name, parameter in network.named_parameters():
        if name.startswith(last_layers):
            parameter *= 2 / spread
    return network


def config_of(case: Case, name: str, options: dict[str, Any]) -> ConfigParser:
    configs = REPOSITORY / "bundles" / case.bundle / "configs"
    parser = ConfigParser()
    parser.read_config([str(configs / f"{part}.json") for part in (name, case.overlay) if part])
    parser.read_meta(str(configs / "metadata.json"))
    parser.update({"bundle_root": str(configs.parent)} | case.options | options)
    return parser


def probabilities(network: Any, images: Tensor, is_of_classes: bool) -> Tensor:
    """``(C, H, W)`` of one image, as the bundle's evaluator computes them."""
    if hasattr(network, "maps") and not is_of_classes:
        return network.maps(images)[0, -1:]
    logits = network(images)
    return class_probabilities(logits, logits.shape[1])[0] if is_of_classes else tumour_probability(logits)


@pytest.mark.parametrize(("kind", "size"), [(kind, size) for kind, sizes in SIZES.items() for size in sizes], ids=str)
@pytest.mark.slow
def test_inference_answers_as_the_evaluation_does(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    case, is_of_classes = CASES[kind], kind == "joint"
    width, height = size
    Image.fromarray(picture()[:height, :width]).save(tmp_path / "a.png")
    weights = tmp_path / "model.pt"
    network = config_of(case, "evaluate", {}).get_parsed_content("network_def")
    torch.save(randomized(network, case.last_layers).state_dict(), weights)

    scored = config_of(case, "evaluate", {"checkpoint": str(weights), "output_dir": str(tmp_path)})
    with torch.inference_mode():
        images = read_image({"image": str(tmp_path / "a.png")})[None]
        expected = probabilities(scored.get_parsed_content(case.network).eval(), images, is_of_classes).numpy() * 255

    overlays = [case.overlay] if case.overlay else []
    options = case.options | {"checkpoint": str(weights), "slide_mapper::compute::amp": False}
    mapper = load_slide_mapper(REPOSITORY / "bundles" / case.bundle, overlays, options)
    run_cohort(mapper, [ImageInput(tmp_path / "a.png", "a")], tmp_path / "maps")
    stored = tifffile.imread(tmp_path / "maps" / "a.ome.tif").reshape(expected.shape)
    assert expected.std() > 10
    assert np.abs(stored - expected).max() <= 1
