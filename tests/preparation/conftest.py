"""`scripts/prepare.py` in the tests' own process."""

import functools
from collections.abc import Callable

import pytest

from ..scripts.conftest import SCRIPTS, run_script

__all__ = ["run_script"]
PREPARE = SCRIPTS / "prepare.py"
Prepare = Callable[..., tuple[str, str]]


@pytest.fixture
def prepare(run_script: Prepare) -> Prepare:
    """Prepare the data set of this name with these arguments: its error, or nothing, and what it printed."""
    return functools.partial(run_script, PREPARE.name)
