"""The list that MONAI's downloader reads, and the files that no repository holds."""

import json
import subprocess

import pytest
import yaml
from monai.bundle.scripts import _get_all_bundles_info

from scripts.packing.model_info import check_unchanged, read_model_info, record, release_address, write_large_files


def test_entries_are_added_sorted_and_kept(tmp_path):
    path = tmp_path / "models" / "model_info.json"
    record(path, "wildcat_v0.1.0", "bb", "https://there/wildcat_v0.1.0.zip")
    record(path, "camel_v0.1.0", "aa", "https://there/camel_v0.1.0.zip")
    record(path, "camel_v0.1.0", "aa", "https://elsewhere/camel_v0.1.0.zip")
    assert list(json.loads(path.read_text()).items()) == [
        ("camel_v0.1.0", {"checksum": "aa", "source": "https://elsewhere/camel_v0.1.0.zip"}),
        ("wildcat_v0.1.0", {"checksum": "bb", "source": "https://there/wildcat_v0.1.0.zip"}),
    ]


def test_a_version_keeps_its_checksum(tmp_path):
    path = tmp_path / "model_info.json"
    record(path, "camel_v0.1.0", "aa", "https://there")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"camel_v0\.1\.0 is already in .*model_info\.json with another checksum \(aa; now bb\)"):
        record(path, "camel_v0.1.0", "bb", "https://there")
    assert path.read_bytes() == before
    check_unchanged(path, "camel_v0.1.1", "bb")


def test_an_unreadable_list_is_named(tmp_path):
    path = tmp_path / "model_info.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"model_info\.json is not a JSON file"):
        read_model_info(path)
    assert read_model_info(tmp_path / "none.json") == {}


def test_monai_reads_names_and_versions(tmp_path, monkeypatch):
    """MONAI's own reader; only its way to the file is shortened."""
    path = tmp_path / "model_info.json"
    record(path, "alpha_beta_mil_v0.1.0", "aa", "https://there/alpha_beta_mil_v0.1.0.zip")

    class Response:
        text = path.read_text()

        def raise_for_status(self):
            pass

    monkeypatch.setattr("monai.bundle.scripts.requests.get", lambda url: Response())
    entry = {"name": "alpha_beta_mil_v0.1.0", "browser_download_url": "https://there/alpha_beta_mil_v0.1.0.zip"}
    assert _get_all_bundles_info("someone/bundles", "first") == {"alpha_beta_mil": {"0.1.0": entry}}


def test_large_files_are_listed_with_their_hash(tmp_path):
    asset = tmp_path / "abc"
    asset.write_bytes(b"abc")
    write_large_files(tmp_path, {"models/model.pt": (asset, "https://there/abc")})
    (listed,) = yaml.safe_load((tmp_path / "large_files.yml").read_text())["large_files"]
    # The published SHA-256 of "abc".
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert listed == {"path": "models/model.pt", "url": "https://there/abc", "hash_val": digest, "hash_type": "sha256"}
    write_large_files(tmp_path, {})
    assert not (tmp_path / "large_files.yml").exists()


@pytest.mark.parametrize("origin", ["git@github.com:someone/bundles.git", "https://github.com/someone/bundles"])
def test_the_address_comes_from_the_origin(tmp_path, origin):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert release_address(None, tmp_path, tmp_path) == tmp_path.resolve().as_uri()
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", origin], check=True)
    wanted = "https://github.com/someone/bundles/releases/download/hosting_storage_v1"
    assert release_address(None, tmp_path, tmp_path) == wanted


@pytest.mark.parametrize("release", ["someone/bundles", "someone/bundles/", "a/b/c/d"])
def test_refuses_other_forms_of_a_release(tmp_path, release):
    with pytest.raises(ValueError, match=f"owner/repository/tag.*got {release}"):
        release_address(release, tmp_path, tmp_path)
