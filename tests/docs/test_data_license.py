"""Licences: of the data that overlays name, in each bundle's data_license.txt, and of the code, one text in every bundle."""

from pathlib import Path

import pytest
import yaml
from monai.bundle import ConfigParser

from shared import __version__

ROOT = Path(__file__).resolve().parents[2]
GENERATED = "data/demo"
OVERLAYS = sorted(path for path in ROOT.glob("bundles/*/configs/*.json") if path.stem != "metadata")


def data_of(path: Path) -> str:
    """The folder of data that a configuration names, if any."""
    return str(ConfigParser.load_config_file(str(path)).get("dataset_dir", GENERATED))


FOREIGN = [path for path in OVERLAYS if not data_of(path).startswith(GENERATED)]


@pytest.mark.parametrize("overlay", FOREIGN, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_an_overlay_with_data_of_others_says_under_which_terms(overlay: Path) -> None:
    terms = (overlay.parents[1] / "docs/data_license.txt").read_text(encoding="utf-8")
    assert overlay.name in terms


@pytest.mark.parametrize("configs", sorted(ROOT.glob("bundles/*/configs")), ids=lambda path: path.parent.name)
def test_metadata_says_what_the_shipped_weights_are(configs: Path) -> None:
    metadata = ConfigParser.load_config_file(str(configs / "metadata.json"))
    assert "generated" in metadata["description"]
    assert "neither is a clinical model" in metadata["description"]
    assert "generated" in metadata["intended_use"]
    assert metadata["version"] in metadata["changelog"]


@pytest.mark.parametrize("bundle", sorted(ROOT.glob("bundles/*/configs")), ids=lambda path: path.parent.name)
def test_every_bundle_carries_the_licence_of_the_collection(bundle: Path) -> None:
    assert (bundle.with_name("LICENSE")).read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_citation_names_the_version_of_the_code() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == __version__
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
