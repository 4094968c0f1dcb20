"""Networks of an encoder and a head: what of them is packed, and how the packed bundle finds the rest."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from scripts.packing.archive import unpack
from scripts.packing.contents import shipped_heads
from scripts.packing.encoders import terms_of
from scripts.packing.packer import pack
from scripts.packing.refusals import reasons
from scripts.packing.verification import CHECKS, verify

from .conftest import ADDRESS, BUNDLES

CAMEL = BUNDLES / "camel"
OVERLAYS = ("features",)


def merged(kind, *overlays):
    parser = ConfigParser()
    parser.read_config([str(CAMEL / "configs" / f"{name}.json") for name in (kind, *overlays)])
    parser.read_meta(str(CAMEL / "configs" / "metadata.json"))
    return parser


def write_training(folder, encoder=None, finetuned=False):
    """What a training of CAMEL on features leaves that ends before its first step; its configuration names this encoder."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    parser = merged("inference", *OVERLAYS)
    parser["network_def::finetune"] = finetuned
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")
    config = merged("train", *OVERLAYS).get()
    if encoder is not None:
        config["encoder"] = encoder
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "calibration.json").write_text(json.dumps({"threshold": 0.5}))
    return folder


def add_head(bundle, training, name="ebhi_seg"):
    """A shipped head, as far as packing looks at it."""
    folder = bundle / "models" / name
    folder.mkdir(parents=True)
    shutil.copy(training / "model.pt", folder)
    overlay = json.loads((bundle / "configs/features.json").read_text())
    keys = ("encoder", "encoder_file", "hidden_channels", "encoder_def", "network_def", "margin_px")
    overlay = {key: overlay[key] for key in keys} | {"checkpoint": f"$@bundle_root + '/models/{name}/model.pt'"}
    (folder / "inference.json").write_text(json.dumps(overlay))
    (folder / "README.md").write_text("# A head\n")


@pytest.fixture
def bundle(bundles, tmp_path):
    """A copy of CAMEL next to `shared`, to change."""
    for name in ("shared", "bundles/camel"):
        shutil.copytree(bundles.parent / name, tmp_path / name, symlinks=True)
    return tmp_path / "bundles" / "camel"


@pytest.mark.parametrize(
    ("encoder", "terms"),
    [
        ("uni2-h", r"uni2-h (licence: CC-BY-NC-ND-4.0, access must be requested)"),
        ("hf-hub:MahmoodLab/UNI2-h", "CC-BY-NC-ND-4.0"),
        ("lunit-vits16", "not for commercial use"),
        ("timm/some_model", "licence: not known"),
    ],
)
def test_fine_tuned_weights_of_an_encoder_that_is_not_given_on_are_refused(tmp_path, encoder, terms):
    training = write_training(tmp_path / "run", encoder, finetuned=True)
    (reason,) = reasons(CAMEL, training)
    assert terms in reason
    assert "model.pt holds fine-tuned weights of the encoder" in reason


@pytest.mark.parametrize("encoder", ["resnet50", "efficientnet_lite0"])
def test_other_weights_in_a_network_of_imagenet_are_not_given_on(tmp_path, encoder):
    training = write_training(tmp_path / "run", encoder, finetuned=True)
    config = json.loads((training / "config.json").read_text())
    (training / "config.json").write_text(json.dumps(config | {"encoder_file": "weights.pth"}))
    (reason,) = reasons(CAMEL, training)
    assert f"{encoder} (licence: not known)" in reason


@pytest.mark.parametrize(("licence", "is_given_on"), [("Apache-2.0", True), ("CC-BY-NC-4.0", False), (None, False)])
@pytest.mark.parametrize(("source", "file"), [("mine.pt", None), ("timm/resnet18", "own.pth"), ("resnet50", "own.pth")])
def test_an_encoder_of_ones_own_has_the_licence_that_the_training_gave(source, file, licence, is_given_on):
    terms = terms_of({"encoder_def": {"source": source, "checkpoint_path": file, "licence": licence}})
    assert (terms.licence, terms.is_given_on) == (licence, is_given_on)


def test_fine_tuned_weights_of_the_default_encoder_are_packed(tmp_path):
    assert reasons(CAMEL, write_training(tmp_path / "run", finetuned=True)) == []


def test_a_gated_encoder_is_named_and_not_packed(bundle, tmp_path):
    training = write_training(tmp_path / "run", "uni2-h")
    (packed,) = pack(bundle.parent, ["camel"], tmp_path / "dist", lambda name: training, tmp_path / "info.json", ADDRESS)
    folder = unpack(packed.archive, tmp_path / "unpacked")
    entry = json.loads((folder / "models/encoder.json").read_text())
    key = bytes(torch.load(training / "model.pt", weights_only=True)["encoder_key"].tolist()).hex()
    expected = {"name": "uni2-h", "licence": "CC-BY-NC-ND-4.0", "is_gated": True, "key": key, "is_packed": False}
    assert entry == expected
    assert json.loads((folder / "configs/inference.json").read_text())["encoder"] == "uni2-h"
    assert not (folder / "models/model.ts").exists()
    with zipfile.ZipFile(packed.archive) as archive:
        assert sum(file.file_size for file in archive.infolist() if file.filename.startswith("camel/models/")) < 200_000


def test_a_head_that_the_documents_do_not_name_is_refused(bundle, tmp_path):
    training = write_training(tmp_path / "run")
    terms = bundle / "docs/data_license.txt"
    terms.write_text(terms.read_text().replace("models/ebhi_seg", "them"))
    add_head(bundle, training)
    (reason,) = reasons(bundle, training)
    assert "does not state on which data models/ebhi_seg was trained" in reason


@pytest.mark.slow
def test_a_head_on_features_and_a_shipped_one_pass_every_check(bundle, tmp_path):
    training = write_training(tmp_path / "run")
    (bundle / "docs/data_license.txt").write_text("models/ebhi_seg: EBHI-Seg, CC BY 4.0\n")
    add_head(bundle, training)
    assert [head.name for head in shipped_heads(bundle)] == ["ebhi_seg"]
    info = tmp_path / "dist" / "model_info.json"
    (packed,) = pack(bundle.parent, ["camel"], tmp_path / "dist", lambda name: training, info, ADDRESS)
    results = verify([packed.archive], info)
    failed = [f"{result.check}: {result.error}" for result in results if result.error]
    assert not failed, "\n".join(failed)
    assert [result.check for result in results] == ["archive", *CHECKS]
    folder = unpack(packed.archive, tmp_path / "unpacked")
    assert json.loads((folder / "models/encoder.json").read_text())["is_packed"]
    # The head and its encoder in one file, that needs neither the code nor the package.
    answer = torch.jit.load(folder / "models/model.ts")(torch.zeros(1, 3, 64, 64))
    assert answer.shape == (1, 2, 64, 64)
    assert Path(folder / "models/ebhi_seg/model.pt").is_file()
