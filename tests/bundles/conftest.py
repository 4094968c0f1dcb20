"""The bundles' configurations on tiny data: as processes of their own, as users start them, and within this one."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from shared.synthetic import BreastPlan, BreastSlidePlan, DemoPlan, SlidePlan, write_demo, write_slide

REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 600

IMAGE_SIZE_PX = 64
# Everything that makes a training small. In fp32, because bfloat16 is used on some CPUs and not on others; the word None would do
# nothing on MONAI's command line.
TINY: dict[str, Any] = {
    "image_size_px": IMAGE_SIZE_PX,
    "backbone": "resnet10",
    "segmentation_backbone": "resnet10",
    "amp_dtype": "$None",
    "num_workers": 0,
    "cmil_epochs": 2,
    "max_min_epochs": 2,
    "retrain_epochs": 1,
    "retrain_batch_size": 8,
    "segmentation_epochs": 1,
    "segmentation_batch_size": 4,
    "classifier_learning_rate": 0.001,
}


# The tiles are generated at 0.5 um per pixel and read as they are.
TINY_CDWS: dict[str, Any] = {
    "image_size_px": IMAGE_SIZE_PX,
    "mpp": 0.5,
    "amp_dtype": "$None",
    "num_workers": 0,
    "num_epochs": 2,
    "batch_size": 4,
    "learning_rate": 0.001,
}


TINY_SLIDES: dict[str, Any] = {
    "backbone": "resnet10",
    "amp_dtype": "$None",
    "num_workers": 0,
    "slides_per_step": 3,
    "tiles_per_slide": 12,
    "tile_size_px": 32,
    "map_margin_px": 8,
    "tissue_mpp": 4.0,
    "num_epochs": 2,
    "learning_rate": 0.003,
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
# Of benign, in situ and invasive.
CLASS_PAINTS = ((70, 30, 120), (20, 110, 60), (160, 20, 20))


def files_of(folder: Path) -> set[str]:
    """Every file of an output folder but MLflow's own; so no resume point and nothing half written."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.parts[0] not in ("mlruns", "mlruns.db")}


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def assert_same_results(ours: Path, theirs: Path, names: set[str]) -> None:
    """Both folders hold these files; numbers are the same to the letter, weights to the bit."""
    assert files_of(ours) == files_of(theirs) == names
    for name in sorted(names):
        if name.endswith((".csv", "metrics.json")):
            assert (ours / name).read_text() == (theirs / name).read_text(), name
        elif name.endswith("model.pt"):
            torch.testing.assert_close(weights_of(ours / name), weights_of(theirs / name), rtol=0, atol=0, msg=name)


@dataclass(frozen=True)
class Bundle:
    """Starts a bundle's configurations on the tiny data set in `data`; `tiny` makes its training small."""

    name: str
    data: Path
    tiny: dict[str, Any]

    @property
    def root(self) -> Path:
        return REPOSITORY / "bundles" / self.name

    def config_files(self, *names: str) -> list[str]:
        return [str(self.root / "configs" / f"{name}.json") for name in names]

    def command(self, *names: str, run_id: str | None = None, cwd: Path = REPOSITORY, **overrides: Any) -> list[str]:
        """``python -m monai.bundle run ...`` with the configuration files of these names, as paths relative to `cwd`."""
        files = [os.path.relpath(file, cwd) for file in self.config_files(*names)]
        options = {"config_file": files[0] if len(files) == 1 else str(files), "dataset_dir": self.data, **overrides}
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        return ["-m", "monai.bundle", "run", *([run_id] if run_id else []), *arguments]

    def run(self, command: list[str], cwd: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``python <command>`` to its end."""
        return subprocess.run(
            [sys.executable, *command],
            cwd=cwd,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def kill_when(self, exists: Path, command: list[str], log: Path, **environment: str) -> None:
        """Run ``python <command>`` until a file is there, then kill it and its children, who can do nothing about it."""
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=REPOSITORY,
                env=self.environment(**environment),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + DEADLINE_S
        try:
            while not exists.exists():
                assert process.poll() is None, f"{process.returncode} before {exists.name} was there: {log.read_text()}"
                assert time.monotonic() < deadline, f"no {exists.name} after {DEADLINE_S} s: {log.read_text()}"
                time.sleep(0.005)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def environment(self, **extra: str) -> dict[str, str]:
        """On the CPU and with one thread: sums in another order would not be the same numbers."""
        inherited = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        return {**inherited, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **extra}

    def workflow(self, *names: str, workflow_type: str = "train", **overrides: Any) -> ConfigWorkflow:
        """The same within this process, on the CPU."""
        workflow = ConfigWorkflow(
            config_file=self.config_files(*names),
            workflow_type=workflow_type,
            logging_file=False,
            bundle_root=str(self.root),
            dataset_dir=str(self.data),
            device="$torch.device('cpu')",
            **overrides,
        )
        workflow.initialize()
        return workflow

    def train_here(self, *overlays: str, output_dir: Path, **overrides: Any) -> ConfigWorkflow:
        """A tiny training within this process, without MLflow, whose import alone takes seconds."""
        options = {**self.tiny, "output_dir": str(output_dir), "tracking::enabled": False, **overrides}
        workflow = self.workflow("train", *overlays, **options)
        workflow.run()
        workflow.finalize()
        return workflow


@pytest.fixture(scope="session")
def easy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated images and slides, their tumour painted in another colour: easy enough to be learnt in seconds."""
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


@dataclass(frozen=True)
class Training:
    """A training that has ended: how it was started, where, and what it said."""

    options: dict[str, Any]
    folder: Path
    process: subprocess.CompletedProcess[str]

    @property
    def database(self) -> str:
        return f"sqlite:///{self.folder}/mlruns.db"


def train_once(bundle: Bundle, options: dict[str, Any], parent: Path) -> Training:
    """The bundle's train.json with these options, as a user starts it, in ``parent/run``."""
    folder = parent / "run"
    process = bundle.run(bundle.command("train", output_dir=folder, **options))
    assert process.returncode == 0, process.stdout + process.stderr
    return Training(options, folder, process)


@pytest.fixture(scope="session")
def trained(camel: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The whole pipeline of CAMEL's train.json, once, as a user starts it."""
    options = TINY | {"cmil_epochs": 4, "max_min_epochs": 4, "retrain_epochs": 4, "segmentation_epochs": 4}
    options |= {"classifier_learning_rate": 0.003}
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
    options = joint.tiny | {"masked_share": 1.0, "num_epochs": 6, "steps_per_epoch": 6, "learning_rate": 0.003}
    return train_once(joint, options, tmp_path_factory.mktemp("trained_joint"))
