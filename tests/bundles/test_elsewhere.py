"""Bundles opened by MONAI's own functions from another folder: their code is found, and their networks are the trained ones."""

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BEGIN = """
import sys
from pathlib import Path
import torch
from monai.bundle import ConfigWorkflow, create_workflow, load

root, work = Path(sys.argv[1]), Path(sys.argv[2])
camel = root / "bundles" / "camel"
head = camel / "models" / "ebhi_seg"

def refused(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except Exception as error:
        while error.__cause__ is not None:
            error = error.__cause__
        return f"{type(error).__name__}: {error}"
    raise AssertionError("nothing was refused")

def same(network, file):
    wanted, found = torch.load(file, weights_only=True), network.state_dict()
    return set(wanted) == set(found) and all(torch.equal(value, found[name]) for name, value in wanted.items())
"""
TRAINED = """
files = [str(camel / "configs" / "inference.json"), str(head / "inference.json")]
for make in (create_workflow, ConfigWorkflow):
    workflow = make(config_file=files, workflow_type="infer", logging_file=False)
    workflow.initialize()
    assert same(workflow.network_def, head / "model.pt") and workflow.bundle_root == str(camel)
print(refused(create_workflow, config_file=files[0], workflow_type="infer", logging_file=False))

from shared.networks import DeepLabV2
plain = work / "bundles" / "camel"
torch.save(DeepLabV2("resnet18", out_channels=2).state_dict(), plain / "models" / "model.pt")
for kind in ("train", "inference"):
    network = load("camel", bundle_dir=work / "bundles", workflow_type=kind, device="cpu")
    assert same(network, plain / "models" / "model.pt")
    print(refused(load, "camel", bundle_dir=work / "bundles", workflow_type=kind, model_file="models/ebhi_seg/model.pt"))
"""
FOREIGN = """
sys.path.insert(0, str(work))
import shared
print(refused(load, "camel", bundle_dir=root / "bundles", model_file="models/ebhi_seg/model.pt", device="cpu"))
"""


@pytest.fixture
def elsewhere(tmp_path, run_python):
    """What a script prints that is run in its own folder."""

    def run(script: str) -> list[str]:
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        (tmp_path / "script.py").write_text(BEGIN + script)
        done = run_python(tmp_path / "script.py", ROOT, tmp_path, cwd=folder, PYTHONPATH="")
        assert done.returncode == 0, done.stderr
        assert list(folder.iterdir()) == []
        return [line for line in done.stdout.splitlines() if "Error: " in line]

    return run


def test_workflows_and_load_have_the_trained_network_or_refuse(elsewhere, tmp_path):
    shutil.copytree(ROOT / "bundles" / "camel" / "configs", tmp_path / "bundles" / "camel" / "configs")
    shutil.copytree(ROOT / "bundles" / "camel" / "models", tmp_path / "bundles" / "camel" / "models")
    # The same code by another way.
    (tmp_path / "bundles" / "camel" / "shared").symlink_to(ROOT / "shared")
    without, *of_another = elsewhere(TRAINED)
    assert without.startswith(f"ValueError: the weights {ROOT}/bundles/camel/models/model.pt do not exist")
    assert len(of_another) == 2
    for said in of_another:
        assert "models/ebhi_seg/model.pt does not contain the weights of the DeepLabV2" in said
        assert "head.weight: expected none, found 2 x 1280 x 1 x 1" in said or "more)" in said


@pytest.mark.parametrize("kind", ["unrelated", "checkout", "older"])
def test_another_module_of_that_name_is_refused(elsewhere, tmp_path, kind):
    if kind == "unrelated":
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared" / "__init__.py").write_text("")
    else:
        shutil.copytree(ROOT / "shared", tmp_path / "shared", ignore=shutil.ignore_patterns("__pycache__"))
    if kind == "older":
        init = tmp_path / "shared" / "__init__.py"
        version = json.loads((ROOT / "bundles/camel/configs/metadata.json").read_text())["shared_version"]
        init.write_text(init.read_text().replace(f'"{version}"', '"0.0.1"'))
    (said,) = elsewhere(FOREIGN)
    wanted = {"unrelated": "another package of that name", "checkout": "that of another checkout", "older": "but 0.0.1 is loaded"}
    assert said.startswith("RuntimeError: ")
    assert wanted[kind] in said
    assert str(tmp_path / "shared") in said
