"""What is packed, and what is refused with which reason."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from scripts.packing.contents import code_digest, files_of, stage, stage_weights
from scripts.packing.packer import pack
from scripts.packing.refusals import reasons, settings_changed
from shared import __version__

REPOSITORY = Path(__file__).parents[2]
NAME = "camel"


@pytest.fixture
def bundle(tmp_path):
    """A copy of a bundle, with a `shared` of one file."""
    copy = tmp_path / "bundles" / NAME
    shutil.copytree(REPOSITORY / "bundles" / NAME, copy, symlinks=True, ignore=shutil.ignore_patterns("models", "output"))
    code = tmp_path / "shared"
    code.mkdir()
    shutil.copy(REPOSITORY / "shared/__init__.py", code)
    return copy


@pytest.fixture
def training(bundle, tmp_path):
    """What a training leaves; the network is a single number."""
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save({"weight": torch.ones(1)}, folder / "model.pt")
    shutil.copy(bundle / "configs/train.json", folder / "config.json")
    return folder


def edit(path, **values):
    content = json.loads(path.read_text())
    content.update(values)
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def test_a_sound_bundle_has_no_reasons(bundle, training):
    assert reasons(bundle, training) == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"changelog": {"0.0.1": "first"}}, "the changelog lacks version"),
        ({"changelog": None}, "the changelog lacks version"),
        ({"version": None}, "has no version"),
        ({"schema": None}, "names no schema"),
        ({"supervision": None}, "'supervision': expected an object with the entries you_have"),
        ({"shared_version": "9.9.9"}, "shared_version is 9.9.9, but shared is"),
        ({"description": "Finds tumours"}, "description must state that the weights were trained on generated data"),
        ({"intended_use": "Diagnosis", "description": "x"}, "description and intended_use must state"),
    ],
)
def test_metadata_that_are_refused(bundle, training, values, reason):
    edit(bundle / "configs/metadata.json", **values)
    (found,) = reasons(bundle, training)
    assert reason in found
    assert "metadata.json" in found


def test_a_bundle_without_weights_is_refused(bundle, tmp_path):
    (found,) = reasons(bundle, tmp_path / "nowhere")
    assert f"{NAME} has no weights: {tmp_path / 'nowhere' / 'model.pt'} does not exist" in found


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"network": {"weight": torch.ones(1)}}, "is not a dictionary of tensors only: network"),
        ({"weight": torch.ones(1), "epoch": 3}, "is not a dictionary of tensors only: epoch"),
        ([torch.ones(1)], "holds a list, expected a dictionary of tensors"),
        ({}, "holds a dict, expected a dictionary of tensors"),
        (Path("code"), "does not load with weights_only=True"),
    ],
)
def test_weights_that_are_refused(bundle, training, content, reason):
    torch.save(content, training / "model.pt")
    (found,) = reasons(bundle, training)
    assert reason in found
    assert str(training / "model.pt") in found


def test_weights_of_other_data_are_refused(bundle, training):
    edit(training / "config.json", manifest="hospital/slides.csv")
    (found,) = reasons(bundle, training)
    assert "was trained on manifest hospital/slides.csv, not on the generated data" in found
    (training / "config.json").unlink()
    (found,) = reasons(bundle, training)
    assert "it is not known on what model.pt was trained" in found


def test_missing_documents_are_named(bundle, training):
    (bundle / "docs/data_license.txt").unlink()
    (bundle / "LICENSE").unlink()
    assert reasons(bundle, training) == [f"{bundle} lacks LICENSE, docs/data_license.txt"]


def test_all_reasons_come_at_once_and_nothing_is_written(bundle, tmp_path):
    edit(bundle / "configs/metadata.json", changelog={}, schema=None)
    with pytest.raises(ValueError, match=r"(?s)changelog.*schema.*no weights"):
        pack(
            bundle.parent, [NAME], tmp_path / "dist", lambda name: tmp_path / name, tmp_path / "model_info.json", "https://there"
        )
    assert not (tmp_path / "dist").exists()
    assert not (tmp_path / "model_info.json").exists()


def test_an_unknown_bundle_is_named(bundle, tmp_path):
    with pytest.raises(ValueError, match=f"has no bundle dromedary; the bundles are {NAME}"):
        pack(bundle.parent, ["dromedary"], tmp_path, lambda name: tmp_path, tmp_path / "model_info.json", "https://there")


def test_what_runs_and_caches_write_is_left_out(bundle):
    before = files_of(bundle)
    for name in (
        "models/model.pt",
        "output/map.png",
        "shared/__pycache__/x.cpython-311.pyc",
        "configs/.hidden",
        "large_files.yml",
    ):
        path = bundle / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert files_of(bundle) == before
    assert Path("shared/__init__.py") in before


def test_links_other_than_shared_are_refused(bundle, tmp_path):
    (bundle / "docs/secret.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "secret.txt").write_text("x")
    with pytest.raises(ValueError, match=r"docs/secret\.txt is a link"):
        files_of(bundle)


def test_the_packed_code_is_stamped(bundle, tmp_path):
    stage(bundle, tmp_path / "staged" / NAME)
    staged = tmp_path / "staged" / NAME
    digest = (staged / "shared/build.txt").read_text().strip()
    assert digest == code_digest(tmp_path / "shared")
    assert json.loads((staged / "configs/metadata.json").read_text())["shared_version"] == f"{__version__}+{digest}"
    with (tmp_path / "shared/__init__.py").open("a") as file:
        file.write("# changed\n")
    assert code_digest(tmp_path / "shared") != digest


def test_the_weights_say_what_they_were_trained_on(bundle, training, tmp_path):
    edit(training / "config.json", seed=7, output_dir="/home/someone/runs", num_workers=99)
    (training / "calibration.json").write_text("{}")
    stage_weights(training, tmp_path / "models", settings_changed(bundle, training))
    names = {path.name for path in (tmp_path / "models").iterdir()}
    assert names == {"model.pt", "config.json", "calibration.json", "TRAINED_ON_GENERATED_DATA.txt"}
    note = (tmp_path / "models/TRAINED_ON_GENERATED_DATA.txt").read_text()
    assert "not a clinical model" in note
    assert "seed: 0 in train.json, 7 in training" in note
    assert "someone" not in note + (tmp_path / "models/config.json").read_text()
