"""Which code a training runs with, for MLflow's tags."""

from __future__ import annotations

import getpass
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ... import __version__

_FOLDER = Path(__file__).parent


def code_tags() -> dict[str, str]:
    """MLflow's own tags of who runs what, with the commit where this code lies in a git repository; and the version of `shared`.

    ``git.dirty`` is ``true`` where files of the repository differ from the commit.
    """
    tags = {"shared_version": __version__, "mlflow.source.name": " ".join(sys.argv[:1]), "mlflow.source.type": "LOCAL"}
    # In a container the user may have no name.
    with suppress(OSError, KeyError):
        tags["mlflow.user"] = getpass.getuser()
    # A packed bundle in somebody else's repository is not of its commit.
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return tags
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    if commit:
        tags |= {"mlflow.source.git.commit": commit, "git.dirty": str(bool(changes)).lower()}
    return tags


def _git(*arguments: str) -> str | None:
    """The output of git; None where there is no git, no repository or no answer."""
    try:
        process = subprocess.run(
            ["git", "-C", str(_FOLDER), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() if process.returncode == 0 else None
