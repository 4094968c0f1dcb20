"""A bundle that was made for another version of `shared` is refused as such, before its keys are looked at."""

import json
import shutil
from pathlib import Path

import pytest

from shared import __version__
from shared.front_door import Given, check_given
from shared.inference.bundle_mapper import load_slide_mapper

ROOT = Path(__file__).parents[2]


@pytest.fixture
def older(tmp_path):
    """CAMEL as packed with an older `shared`, its keys and arguments called as they were then."""
    bundle = tmp_path / "camel"
    shutil.copytree(ROOT / "bundles" / "camel" / "configs", bundle / "configs")
    (bundle / "shared").symlink_to(ROOT / "shared")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata | {"shared_version": "0.2.0+abcdef012345"}))
    for name in ("train", "evaluate", "inference"):
        path = bundle / "configs" / f"{name}.json"
        config = json.loads(path.read_text())
        config.pop("checks", None)
        config["slide_mapper"] = {"_target_": "shared.inference.SlideMapper", "overlap": "crop"}
        path.write_text(json.dumps(config))
    return bundle


@pytest.mark.parametrize("config", ["train", "evaluate", "inference"])
def test_both_versions_are_named(older, config):
    with pytest.raises(RuntimeError, match=rf"needs shared 0\.2\.0\+abcdef012345, but {__version__} is loaded"):
        check_given(Given((older / "configs" / f"{config}.json",)))


def test_a_mapper_names_them_too(older):
    with pytest.raises(RuntimeError, match=r"needs shared 0\.2\.0"):
        load_slide_mapper(older)


@pytest.mark.parametrize("config", ["train", "inference"])
def test_a_run_ends_with_one_line(older, run_python, config):
    file = older / "configs" / f"{config}.json"
    done = run_python("-m", "monai.bundle", "run", "--config_file", file, "--bundle_root", older)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: this bundle needs shared 0.2.0")
    assert "Traceback" not in done.stderr
