"""Fixtures of the networks' tests."""

from urllib.error import URLError

import pytest
import torch


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder where a download would have been put; whatever tries to download fails."""

    def no_network(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder
