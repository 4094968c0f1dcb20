"""The requirement files, the constraints and the bundles' metadata name versions of the same packages: they must agree."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(path.parents[1].name for path in ROOT.glob("bundles/*/configs/metadata.json"))


def requirements(name: str) -> list[Requirement]:
    """The lines of a requirements file, without comments and without what it includes."""
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def constrained() -> dict[str, str]:
    """Package -> the one version that constraints.txt allows."""
    versions = {}
    for line in requirements("constraints.txt"):
        (specifier,) = line.specifier
        assert specifier.operator == "=="
        versions[canonicalize_name(line.name)] = specifier.version
    return versions


RANGES = ("core", "encoders", "ray", "dev")


@pytest.mark.parametrize("name", ["requirements.txt", *(f"requirements-{part}.txt" for part in RANGES)])
def test_constraints_lie_in_the_ranges(name):
    versions = constrained()
    outside = [
        str(line) for line in requirements(name) if (v := versions.get(canonicalize_name(line.name))) and v not in line.specifier
    ]
    assert not outside


def test_all_that_numbers_depend_on_is_constrained():
    names = {
        canonicalize_name(line.name) for name in ("requirements-core.txt", "requirements.txt") for line in requirements(name)
    }
    assert names <= constrained().keys()


def test_cuda_12_differs_in_the_wheels_alone():
    cuda_12 = [str(line).replace("-cu12", "-cu13") for line in requirements("requirements-cuda12.txt")]
    assert cuda_12 == [str(line) for line in requirements("requirements.txt")]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_names_the_versions_of_the_constraints(bundle):
    metadata = json.loads((ROOT / "bundles" / bundle / "configs" / "metadata.json").read_text())
    named = {"torch": metadata["pytorch_version"], "monai": metadata["monai_version"], "numpy": metadata["numpy_version"]}
    named |= {canonicalize_name(name): version for name, version in metadata["required_packages_version"].items()}
    assert named == {name: constrained()[name] for name in named}


def test_importing_the_codecs_prints_nothing():
    """MONAI imports them whenever it is imported itself."""
    if importlib.util.find_spec("nvidia") is None:
        pytest.skip("nvImageCodec is for Linux")
    run = subprocess.run([sys.executable, "-c", "import nvidia.nvimgcodec"], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
