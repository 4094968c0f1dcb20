"""Messages about an unreachable MLflow server or database, and how long to wait for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

# MLflow itself would ask a server that is gone for minutes, at every call. What it misses is sent later.
_IMPATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
# Asked again, a server would refuse these again.
REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "BAD_REQUEST"})


def is_outage(error: BaseException) -> bool:
    """Whether a server or database is not there, or not now: neither a wrong address nor a refusal."""
    if isinstance(error, MlflowException):
        return error.error_code not in {*REFUSALS, "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED", "UNAUTHENTICATED"}
    return isinstance(error, OSError)


@contextmanager
def impatient() -> Iterator[None]:
    """Without MLflow's own patience, unless the user has asked for some."""
    added = {name: value for name, value in _IMPATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def one_line(error: BaseException) -> str:
    """An error for a log line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
