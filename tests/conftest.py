"""Fixtures of the whole suite."""

import logging
import os
import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shared.wsi.readers.cucim_support import usable_cucim_problem

ROOT = Path(__file__).resolve().parents[1]

# What trains, serves, or starts a browser or a Python process, for the tests that ask for it.
SLOW_FIXTURES = {"browser", "cluster", "monai_label", "pack_into", "run_python", "trained"}


# Of the root logger, which the scripts and MONAI set for the whole process.
LOG_LEVEL = logging.getLogger().level


@pytest.fixture(autouse=True)
def log_level():
    """The level of logging as in a process of its own: what another test has left would fill `caplog.messages`."""
    logging.getLogger().setLevel(LOG_LEVEL)


@pytest.hookimpl(tryfirst=True)  # Before pytest looks at the marks.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that ask for one of `SLOW_FIXTURES` are `slow`; what needs a GPU or cuCIM is run where it is.

    A test needs cuCIM that is marked `cucim` or has a parameter "cucim".
    """
    for item in items:
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if _needs_cucim(item) and (problem := _cucim_problem()):
            item.add_marker(pytest.mark.skip(reason=f"needs cuCIM: {problem}"))


@pytest.hookimpl(tryfirst=True)  # Before fixtures draw.
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test without a seed of its own draws the same numbers whatever ran before it in its process."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what libraries draw from
    torch.manual_seed(0)


def _needs_cucim(item: pytest.Item) -> bool:
    values = item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    return "cucim" in item.keywords or any(isinstance(value, str) and value == "cucim" for value in values)


def _cucim_problem() -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return usable_cucim_problem()


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python <arguments>`` to its end, on the CPU; `variables` go to its environment."""

    def run(*arguments: object, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **variables}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=1800)

    return run


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small networks run several times as fast on one thread, above all where other processes share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Every device that a computation has to be right on; CUDA where there is one."""
    return str(request.param)


@pytest.fixture(scope="session")
def wsi_test_data() -> Path:
    """Folder with real slides and tiles, named by the environment variable WSI_TEST_DATA."""
    folder = os.environ.get("WSI_TEST_DATA")
    if not folder:
        pytest.skip("needs real slides: set WSI_TEST_DATA to their folder")
    return Path(folder)


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory) -> Path:
    """An empty MLflow database. Making one takes MLflow seconds, copying it nothing."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlruns.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracked_folder(tmp_path, migrated_database, monkeypatch) -> Path:
    """An output folder whose MLflow database is there already."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "output"
    folder.mkdir()
    shutil.copy(migrated_database, folder / "mlruns.db")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for pages as their readers open them."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    path = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs chromium, which is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()
