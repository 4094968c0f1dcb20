"""Bundles that are packed once: with the weights that their networks begin with, which take no training to make."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from scripts.packing.packer import Packed, bundle_names, pack

REPOSITORY = Path(__file__).parents[2]
BUNDLES = REPOSITORY / "bundles"
ADDRESS = "https://github.com/someone/bundles/releases/download/first"


def write_training(bundle: Path, folder: Path) -> Path:
    """What a training of a bundle would leave that ends before its first step; a threshold for those that calibrate one."""
    configs = bundle / "configs"
    parser = ConfigParser()
    parser.read_config(str(configs / "inference.json"))
    parser.read_meta(str(configs / "metadata.json"))
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")
    shutil.copy(configs / "train.json", folder / "config.json")
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.5}))
    return folder


@pytest.fixture(scope="session")
def training_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The output folder of a training of the bundle of this name."""
    parent = tmp_path_factory.mktemp("trainings")

    def find(name: str) -> Path:
        folder = parent / name
        return folder if folder.is_dir() else write_training(BUNDLES / name, folder)

    return find


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's bundles and of `shared` next to it: packing writes into bundles."""
    repository = tmp_path_factory.mktemp("repository")
    unwanted = shutil.ignore_patterns("models", "output", "__pycache__")
    for name in ("bundles", "shared"):
        shutil.copytree(REPOSITORY / name, repository / name, symlinks=True, ignore=unwanted)
    return repository / "bundles"


@pytest.fixture(scope="session")
def pack_into(bundles: Path, training_of: Callable[[str], Path]) -> Callable[[list[str], Path], dict[str, Packed]]:
    """Pack the bundles of these names into a folder, with a ``model_info.json`` of its own."""

    def pack_copies(names: list[str], out: Path) -> dict[str, Packed]:
        packed = pack(bundles, names, out, training_of, out / "model_info.json", ADDRESS)
        return dict(zip(names, packed, strict=True))

    return pack_copies


@pytest.fixture(scope="session")
def names() -> list[str]:
    """Every bundle of the repository."""
    return bundle_names(BUNDLES)
