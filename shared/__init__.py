"""Every line of Python that the bundles run. Folders are the pipeline: shared/README.md shows them."""

import getpass
import os
import sys
import tempfile
from pathlib import Path

# In packed bundles alone: a digest of the code that was packed, so that no other passes for it.
BUILD_FILE = "build.txt"


def _version(release: str, folder: Path) -> str:
    """The release, and in a packed bundle the digest of the code behind it.

    >>> _version("1.2.0", Path("nowhere"))
    '1.2.0'
    """
    build = folder / BUILD_FILE
    return f"{release}+{build.read_text(encoding='utf-8').strip()}" if build.is_file() else release


__version__ = _version("0.11.0", Path(__file__).parent)


def _ensure_user() -> None:
    """Give a user whom the system does not know a name and a home folder, as in a container that runs under a bare number.

    MONAI asks for the name when it is imported, MLflow for both, and they fail without. Nothing helps where MONAI came first and
    found no home folder: `shared.front_door` says so.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        # Read before the system's own list, also by child processes.
        os.environ["LOGNAME"] = f"user{os.getuid()}"
    try:
        Path.home()
    except RuntimeError:
        if "monai" not in sys.modules:
            os.environ["HOME"] = tempfile.gettempdir()


_ensure_user()


def require_version(version: str) -> None:
    """Check that this is the `shared` that a bundle was made for; every configuration runs it first, and every network needs it.

    Two downloaded bundles in one process share whichever `shared` was imported first.

    Args:
        version: wanted, as in the bundle's ``metadata.json``: of a packed bundle with the digest of its code.

    Raises:
        RuntimeError: if another version is loaded.
        ValueError: in an export for which a package is missing.
    """
    if version != __version__:
        raise RuntimeError(
            f"this bundle needs shared {version}, but {__version__} is loaded from {__path__[0]}: run bundles of different "
            "versions in separate processes"
        )
    if sys.argv[1:2] in (["onnx_export"], ["trt_export"]):
        # The only code of a bundle that MONAI's exports run.
        from .front_door.exports import check_export

        check_export()
