"""Fixtures of the whole suite."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def wsi_test_data() -> Path:
    """Folder with real slides and tiles, named by the environment variable WSI_TEST_DATA."""
    folder = os.environ.get("WSI_TEST_DATA")
    if not folder:
        pytest.skip("needs real slides: set WSI_TEST_DATA to their folder")
    return Path(folder)
