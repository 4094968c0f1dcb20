"""Tiny data and settings for the bundles' configurations, and a training of each that more than one file looks at."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from shared.synthetic import BreastPlan, BreastSlidePlan, DemoPlan, SlidePlan, write_demo, write_slide

# Its assertions show what they compared, as those of a test do.
pytest.register_assert_rewrite("tests.bundles.runs")

from .runs import Bundle, Training, train_once  # noqa: E402

IMAGE_SIZE_PX = 64
# Everything that makes a training small. In fp32, because bfloat16 is used on some CPUs and not on others; the word None would
# do nothing on MONAI's command line.
TINY: dict[str, Any] = {
    "image_size_px": IMAGE_SIZE_PX,
    "backbone": "resnet10",
    "segmentation_backbone": "resnet10",
    "amp_dtype": "$None",
    "num_workers": 0,
    "cmil::num_epochs": 2,
    "cmil::lr": 0.001,
    "max_min::num_epochs": 2,
    "retrain::num_epochs": 1,
    "retrain::batch_size": 8,
    "num_epochs": 1,
    "batch_size": 4,
}
SMALL_UNET = {"network_def::features": [8, 8, 16, 16, 32, 8]}


# The tiles are generated at 0.5 um per pixel and read as they are.
TINY_CDWS: dict[str, Any] = {
    "image_size_px": IMAGE_SIZE_PX,
    "mpp": 0.5,
    "amp_dtype": "$None",
    "num_workers": 0,
    "num_epochs": 2,
    "batch_size": 4,
    "lr": 0.001,
}


TINY_SLIDES: dict[str, Any] = {
    "backbone": "resnet10",
    "amp_dtype": "$None",
    "num_workers": 0,
    "slides_per_step": 3,
    "tiles_per_slide": 12,
    "tile_size_px": 32,
    "margin_px": 8,
    "tissue_mpp": 4.0,
    "num_epochs": 2,
    "lr": 0.003,
}
TINY_ATTENTION: dict[str, Any] = {
    "amp_dtype": "$None",
    "num_workers": 0,
    "mpp": 0.5,
    "smoothing": 1,
    "feature_stride_px": 16,
    "tile_size_px": 256,
    "margin_px": 32,
    "tissue_mpp": 4.0,
    "features_per_slide": 40,
    "num_epochs": 4,
    "min_steps": 120,
    "lr": 0.003,
}


# Steps of four masked and four labelled images: two of each for each of two processes.
TINY_JOINT: dict[str, Any] = {
    "image_size_px": IMAGE_SIZE_PX,
    "labelled_size_px": IMAGE_SIZE_PX,
    "amp_dtype": "$None",
    "num_workers": 0,
    "num_epochs": 2,
    "batch_size": 8,
    "steps_per_epoch": 3,
}
# Of the classes behind the first.
CLASS_NAMES = ["normal", "benign", "in situ", "invasive"]
CLASS_PAINTS = ((70, 30, 120), (20, 110, 60), (160, 20, 20))


@pytest.fixture(scope="session")
def easy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated images and slides, their tumour painted in another colour: easy enough to be learned in seconds."""
    folder = tmp_path_factory.mktemp("bundles") / "data"
    slides = (SlidePlan("test", 0.3, (520, 680)), SlidePlan("train", 0.0, (300, 420)))
    write_demo(folder, DemoPlan(images={"train": 16, "val": 8, "test": 8}, size_px=IMAGE_SIZE_PX, slides=slides))
    for mask in sorted((folder / "masks").iterdir()):
        image = folder / "images" / mask.name
        pixels = np.array(Image.open(image))
        pixels[np.array(Image.open(mask)) > 0] = (70, 30, 120)
        Image.fromarray(pixels).save(image)
    return folder


@pytest.fixture(scope="session")
def camel(easy_data: Path) -> Bundle:
    return Bundle("camel", easy_data, TINY)


@pytest.fixture(scope="session")
def cdws(easy_data: Path) -> Bundle:
    return Bundle("cdws_mil", easy_data, TINY_CDWS)


@pytest.fixture(scope="session")
def easy_slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated slides whose tumour is painted in another colour."""
    folder = tmp_path_factory.mktemp("slides") / "data"
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 3
    plans = [SlidePlan(split, 0.4 * (index % 2 == 0), (420 + 20 * index, 560)) for index, split in enumerate(splits)]
    write_demo(folder, DemoPlan(images={}, slides=plans))
    for mask in sorted((folder / "slide_masks").iterdir()):
        slide = folder / "slides" / f"{mask.stem}.tif"
        pixels = tifffile.imread(slide, level=0)
        pixels[np.array(Image.open(mask)) > 0] = (70, 30, 120)
        write_slide(slide, pixels)
    return folder


@pytest.fixture(scope="session")
def alpha_beta(easy_slides: Path) -> Bundle:
    return Bundle("alpha_beta_mil", easy_slides, TINY_SLIDES)


@pytest.fixture(scope="session")
def easy_breast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated images and slides of four classes: lesions are painted in the colour of their class.

    An image without a mask has a painted square of its class in its middle.
    """
    folder = tmp_path_factory.mktemp("breast") / "data"
    slides = (BreastSlidePlan("train", (3,), (330, 410)), BreastSlidePlan("test", (1, 2, 3), (480, 560)))
    images = {"masked": {"train": 8, "val": 4, "test": 4}, "labelled": {"train": 8}}
    write_demo(folder, BreastPlan(size_px=IMAGE_SIZE_PX, slides=slides, **images))
    middle = slice(IMAGE_SIZE_PX // 4, -IMAGE_SIZE_PX // 4)
    for image in sorted((folder / "images").iterdir()):
        mask = folder / "masks" / image.name
        if mask.exists():
            classes = np.array(Image.open(mask))
        else:
            classes = np.zeros((IMAGE_SIZE_PX, IMAGE_SIZE_PX), np.uint8)
            classes[middle, middle] = int(image.stem.rpartition("_")[2])
        Image.fromarray(painted(np.array(Image.open(image)), classes)).save(image)
    for mask in sorted((folder / "slide_masks").iterdir()):
        slide = folder / "slides" / f"{mask.stem}.tif"
        write_slide(slide, painted(tifffile.imread(slide, level=0), np.array(Image.open(mask))), 4.0)
    return folder


def painted(pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """RGB ``(H, W, 3)`` with `CLASS_PAINTS` where ``(H, W)`` class indices are above 0."""
    result = pixels.copy()
    for index, colour in enumerate(CLASS_PAINTS, start=1):
        result[classes == index] = colour
    return result


@pytest.fixture(scope="session")
def joint(easy_breast: Path) -> Bundle:
    return Bundle("joint_seg_cls", easy_breast, TINY_JOINT)


@pytest.fixture(scope="session")
def trained(camel: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The whole pipeline of CAMEL's train.json, once, as a user starts it."""
    options = TINY | {"cmil::num_epochs": 4, "max_min::num_epochs": 4, "retrain::num_epochs": 4, "num_epochs": 4}
    options |= {"cmil::lr": 0.003}
    return train_once(camel, options, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def trained_cdws(cdws: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """CDWS-MIL's train.json, once, as a user starts it."""
    options = cdws.tiny | {"num_epochs": 4}
    return train_once(cdws, options, tmp_path_factory.mktemp("trained_cdws"))


@pytest.fixture(scope="session")
def trained_alpha_beta(alpha_beta: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Alpha/beta MIL's train.json, once, as a user starts it."""
    options = alpha_beta.tiny | {"num_epochs": 6}
    return train_once(alpha_beta, options, tmp_path_factory.mktemp("trained_alpha_beta"))


@pytest.fixture(scope="session")
def trained_joint(joint: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The train.json of joint segmentation and classification, once, as a user starts it."""
    options = joint.tiny | {"masked_share": 1.0, "num_epochs": 6, "steps_per_epoch": 6, "lr": 0.003}
    return train_once(joint, options, tmp_path_factory.mktemp("trained_joint"))
