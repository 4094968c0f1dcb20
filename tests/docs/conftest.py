"""A checkout to run commands in, and the process that runs them."""

import shutil
from pathlib import Path

import pytest

from .checkout import Checkout
from .warm_process import WarmPython


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def python() -> WarmPython:
    return WarmPython()


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> str:
    """Of a database of MLflow that is there already."""
    path = tmp_path_factory.mktemp("tracking") / "mlruns.db"
    shutil.copy(migrated_database, path)
    return f"sqlite:///{path}"
