"""What the public model zoo asks of a bundle, asked of every packed zip."""

import json
from pathlib import Path

import pytest

from scripts.packing.archive import unpack
from scripts.packing.packer import bundle_names
from scripts.packing.refusals import reasons
from scripts.packing.verification import CHECKS, tasks_of
from scripts.packing.zoo_process import Result, run_tasks

BUNDLES = Path(__file__).parents[2] / "bundles"
NAMES = bundle_names(BUNDLES)


@pytest.fixture(scope="module")
def unpacked(pack_into, training_of, names, tmp_path_factory) -> dict[str, Path]:
    """The folders of all bundles that can be packed, each unpacked on its own."""
    parent = tmp_path_factory.mktemp("zoo")
    good = [name for name in names if not reasons(BUNDLES / name, training_of(name))]
    return {name: unpack(packed.archive, parent / name) for name, packed in pack_into(good, parent / "dist").items()}


@pytest.fixture(scope="module")
def results(unpacked) -> dict[tuple[str, str], Result]:
    tasks = [task for name, folder in unpacked.items() for task in tasks_of(name, folder)]
    return {(result.name, result.check): result for result in run_tasks(tasks)}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_speaks_against_packing(name, training_of):
    assert reasons(BUNDLES / name, training_of(name)) == []


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_packed_bundle_passes(name, check, results):
    assert not results[name, check].error, results[name, check].error


@pytest.mark.parametrize("name", NAMES)
def test_what_a_packed_bundle_trains_can_be_packed(name, results, unpacked):
    assert not results[name, "train"].error
    assert reasons(BUNDLES / name, unpacked[name] / "trial") == []


@pytest.mark.parametrize("name", NAMES)
def test_a_network_needs_the_code_that_it_was_packed_with(name):
    """So that `monai.bundle.load`, which runs nothing, checks it too."""
    for config in ("train", "inference", "evaluate"):
        network = json.loads((BUNDLES / name / "configs" / f"{config}.json").read_text())["network_def"]
        assert "@check_version" in network.get("_requires_", ()), f"{name}/configs/{config}.json"
