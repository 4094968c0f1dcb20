"""What a report was made by: the command, and the state of the code."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import shared

_ADDRESS = re.compile(r"^(--\w+=)?(\w[\w+.-]*://)([^/@]*@)")


def command_text(arguments: Sequence[str]) -> str:
    """The command line, to be copied; without the password of an address.

    >>> command_text(["--methods", "a b", "--tracking_uri", "http://me:secret@host/"])
    "python scripts/compare.py --methods 'a b' --tracking_uri http://host/"
    """
    shown = [_ADDRESS.sub(r"\1\2", argument) for argument in arguments]
    return shlex.join(["python", "scripts/compare.py", *shown])


def code_text(folder: Path) -> str:
    """Version of the code, and its commit where the folder is a checkout."""
    version = f"version {shared.__version__}"
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return version
    changed = " with changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else ""
    return f"{version}, commit {commit}{changed}"


def is_shared(uri: str) -> bool:
    """Whether an address of MLflow is a server that others reach too.

    >>> [is_shared(uri) for uri in ("https://mlflow.example.org", "http://127.0.0.1:5000", "sqlite:///out/mlruns.db")]
    [True, False, False]
    """
    address = urlsplit(uri)
    return address.scheme in ("http", "https") and address.hostname not in ("localhost", "127.0.0.1", "::1", "0.0.0.0")


def shown_uri(uri: str) -> str:
    """An address that can be shown to others: without a user's name and password.

    >>> shown_uri("postgresql://me:secret@host:5432/mlflow"), shown_uri("sqlite:///out/mlruns.db")
    ('postgresql://host:5432/mlflow', 'sqlite:///out/mlruns.db')
    """
    scheme, separator, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def _git(folder: Path, *arguments: str) -> str:
    try:
        found = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if not found.returncode else ""
