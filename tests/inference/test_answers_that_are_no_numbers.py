"""A network that answers NaN maps nothing: 0 in a map is an answer, and it is no tumour."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from shared.inference import InferenceFailures, SlideMapper, load_slide_mapper, map_array, map_one
from shared.networks import load_weights
from tests.inference.cohort_processes import SETTINGS
from tests.inference.flat_options import grouped

CAMEL = Path(__file__).parents[2] / "bundles" / "camel"
SIDE_PX = 96


class Doubtful(nn.Module):
    """NaN where an image is dark, and tumour elsewhere; of several classes, and of whole tiles, likewise."""

    def __init__(self, num_classes=1, per_tile=False):
        super().__init__()
        self.num_classes, self.per_tile = num_classes, per_tile

    def forward(self, images):
        logits = torch.where(images[:, :1] < 50, torch.nan, 3.0).expand(-1, self.num_classes, -1, -1)
        return logits.mean(dim=(2, 3)) if self.per_tile else logits


@pytest.fixture
def folder(tmp_path):
    """One picture of which a single pixel is dark, in its middle, and one without."""
    (tmp_path / "images").mkdir()
    for name in ("dark", "pale"):
        rgb = np.full((SIDE_PX, SIDE_PX, 3), (200, 120, 180), np.uint8)
        if name == "dark":
            rgb[SIDE_PX // 2, SIDE_PX // 2] = 0
        Image.fromarray(rgb).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize(
    ("network", "options"),
    [
        (Doubtful(), {}),
        (Doubtful(), {"stitching": "blend"}),
        (Doubtful(2), {}),
        (Doubtful(3), {"class_names": ["a", "b", "c"]}),
        (Doubtful(per_tile=True), {}),
    ],
    ids=["cropped", "blended", "two logits", "classes", "one answer per tile"],
)
def test_a_map_of_nan_is_a_failure_of_its_image(folder, network, options, skips):
    """Not of the others; nor is it a problem of the image, for which it could be skipped."""
    mapper = SlideMapper(network, skip_problems=skips, **grouped(**SETTINGS | {"margin_px": 8} | options))
    with pytest.raises(InferenceFailures, match=r"1 of 2 images failed:\n.*dark\.png: AnswersNotFinite: the network's answers"):
        mapper.run(folder / "images", folder / "maps")
    rows = {path.stem: json.loads(path.read_text()) for path in (folder / "maps" / "rows").glob("*.json")}
    assert {name: row["status"] for name, row in rows.items()} == {"dark": "failed", "pale": "ok"}
    assert not list((folder / "maps").glob("dark*"))
    rgb = np.asarray(Image.open(folder / "images" / "dark.png"))
    with pytest.raises(ValueError, match="answers are not finite"):
        map_array(mapper, rgb)


def test_a_single_image_is_told_from_its_network(folder):
    """What is the image's fault is a ValueError, as of a file that cannot be read."""
    mapper = SlideMapper(Doubtful(), **grouped(**SETTINGS))
    assert map_one(mapper, folder / "images" / "pale.png", folder / "maps")["status"] == "ok"
    with pytest.raises(InferenceFailures, match="answers are not finite"):
        map_one(mapper, folder / "images" / "dark.png", folder / "maps")
    (folder / "images" / "none.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"^.*none\.png"):
        map_one(mapper, folder / "images" / "none.png", folder / "maps")


def diverged(path, value):
    """The weights of a head, of which one number is not finite."""
    state = torch.load(CAMEL / "models" / "ebhi_seg" / "model.pt", weights_only=True)
    name = next(name for name in state if name.endswith("bias"))
    state[name].view(-1)[0] = value
    torch.save(state, path)
    return name


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_of_a_training_that_has_diverged_are_refused(tmp_path, value):
    name = diverged(tmp_path / "model.pt", value)
    overlay = str(CAMEL / "models" / "ebhi_seg" / "inference.json")
    with pytest.raises(ValueError, match=rf"model\.pt: {name} has 1 values of \d+ that are not finite.*lower learning rate"):
        load_slide_mapper(CAMEL, [overlay], {"checkpoint": str(tmp_path / "model.pt"), "device": "cpu"})


def test_buffers_may_be_infinite_and_are_numbers(tmp_path):
    """The thresholds of trees that do not split are."""

    class Trees(nn.Module):
        def __init__(self, threshold):
            super().__init__()
            self.register_buffer("threshold", torch.tensor([threshold]))

    for threshold in (torch.inf, torch.nan):
        torch.save(Trees(threshold).state_dict(), tmp_path / f"{threshold}.pt")
    load_weights(Trees(0.0), tmp_path / "inf.pt")
    with pytest.raises(ValueError, match=r"nan\.pt: threshold has 1 values of 1"):
        load_weights(Trees(0.0), tmp_path / "nan.pt")
