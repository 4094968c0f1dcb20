"""The wheel, without the checkout, with a bundle as it is downloaded."""

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from shared import __version__

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
import numpy as np
import weakhisto
from pathlib import Path

bundle = Path(sys.argv[1])
assert "site" in weakhisto.__file__ and "shared" not in sys.modules
network = weakhisto.load_network(bundle, bundle / "models" / "ebhi_seg", device="cpu")
import shared
assert Path(shared.__file__).parent == bundle / "shared"
image = np.full((300, 200, 3), 245, np.uint8)
image[50:200, 40:160] = (170, 90, 150)
print(network.predict(image, mpp=0.5).shape)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, in which nothing but its sources lies."""
    pytest.importorskip("setuptools", minversion="77", reason="needs setuptools 77 or later to build a wheel")
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "shared", folder / "source" / "shared", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "LICENSE", "requirements-core.txt", "requirements-spatial.txt"):
        shutil.copy(ROOT / file, folder / "source")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(folder / "source")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_a_wheel_needs_a_bundle_and_no_checkout(wheel, tmp_path, run_python):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        names = archive.namelist()
    assert "weakhisto/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"weakhisto", f"weakhisto-{__version__}.dist-info"}
    # Packing follows the link to the code as well.
    shutil.copytree(ROOT / "bundles" / "camel", tmp_path / "camel", ignore=shutil.ignore_patterns("__pycache__", "output"))
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "elsewhere").mkdir()
    done = run_python(tmp_path / "script.py", tmp_path / "camel", cwd=tmp_path / "elsewhere", PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(300, 200)"


@pytest.mark.slow
def test_a_wheel_asks_for_what_the_bundles_run_on(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (found,) = importlib.metadata.distributions(path=[str(tmp_path)])
    assert found.version == __version__
    wanted = {line for line in (ROOT / "requirements-core.txt").read_text().splitlines() if line and not line.startswith("#")}
    assert len([line for line in found.requires if "extra ==" not in line]) == len(wanted)
    assert {line.split(";")[1].strip() for line in found.requires if ";" in line} == {'extra == "spatial"'}
