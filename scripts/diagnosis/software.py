"""Python, packages and libraries."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from .finding import Finding, Level

ROOT = Path(__file__).resolve().parents[2]
OLDEST, LATEST = (3, 10), (3, 14)
# File of optional requirements -> what it is for.
OPTIONAL = {
    "requirements-encoders.txt": "timm's encoders",
    "requirements-ray.txt": "several machines",
    "requirements-monailabel.txt": "server for viewers",
    "requirements-viewer.txt": "page of maps",
    "requirements-spatial.txt": "OME-Zarr, GeoParquet",
    "requirements-docs.txt": "the pages as a site",
}
SHOWN = 8
_NAME = re.compile(r"[\w.-]+")


def python() -> Iterator[Finding]:
    found = f"{sys.version.split()[0]}, {sys.executable}"
    if OLDEST <= sys.version_info[:2] <= LATEST:
        yield Finding("Python", Level.OK, found)
    else:
        span = " to ".join(".".join(map(str, version)) for version in (OLDEST, LATEST))
        yield Finding("Python", Level.PROBLEM, found, f"use Python {span}")


def requirements_of(file: Path, with_included: bool = True) -> dict[str, str]:
    """Name of each required package -> its line, where it applies to this system.

    Args:
        file: in pip's format.
        with_included: what the files ask for that it includes, too.
    """
    found: dict[str, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r ") and with_included:
            found |= requirements_of(file.parent / line[3:].strip())
        named = _NAME.match(line)
        if named is not None and not line.startswith("-") and _applies(line):
            found[named.group()] = line.partition(";")[0].strip()
    return found


def _applies(requirement: str) -> bool:
    try:
        from packaging.requirements import Requirement
    except ImportError:  # it comes with several of the required packages
        return "Linux" not in requirement or sys.platform == "linux"
    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate()


def unfit(requirements: dict[str, str]) -> str:
    """Which packages are missing or have a version that was not tried, in words; empty where all fit."""
    missing, others = [], []
    for name, requirement in requirements.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if not _fits(version, requirement):
            others.append(f"{name} is {version}, expected {requirement.removeprefix(name)}")
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    return "; ".join([f"missing {', '.join(missing[:SHOWN])}{more}", *others] if missing else others)


def _fits(version: str, requirement: str) -> bool:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return True
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def required_packages() -> Iterator[Finding]:
    base = os.environ.get("BASE_REQUIREMENTS", "requirements.txt")
    requirements = requirements_of(ROOT / base)
    if problem := unfit(requirements):
        yield Finding("packages", Level.PROBLEM, problem, f"pip install -r {base} -c constraints.txt")
    else:
        yield Finding("packages", Level.OK, f"{len(requirements)} of {base}, in tested versions")


def optional_packages() -> Iterator[Finding]:
    for file, purpose in OPTIONAL.items():
        if problem := unfit(requirements_of(ROOT / file, with_included=False)):
            yield Finding(purpose, Level.NOTE, f"optional, {problem}", f"pip install -r {file} -c constraints.txt")
        else:
            yield Finding(purpose, Level.OK, f"optional, all of {file}")


def slide_readers() -> Iterator[Finding]:
    sys.path.insert(0, str(ROOT))
    import warnings

    import openslide

    from shared.wsi.readers.cucim_support import usable_cucim_problem

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem = usable_cucim_problem()
    if problem:
        yield Finding("cuCIM", Level.NOTE, f"not used: {problem}", "OpenSlide reads every slide instead, which is slower")
    else:
        yield Finding("cuCIM", Level.OK, metadata.version(_installed_of("cucim-cu13", "cucim-cu12")))
    yield Finding("OpenSlide", Level.OK, openslide.__library_version__)


def _installed_of(*names: str) -> str:
    installed = {distribution.metadata["Name"] for distribution in metadata.distributions()}
    return next((name for name in names if name in installed), names[0])


def compiler() -> Iterator[Finding]:
    found = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if found and " " not in str(ROOT):
        yield Finding("compiler", Level.OK, f"{found}: `compile True` maps slides faster")
    elif found:
        problem = f"{found}, but torch.compile does not work in a path with a space"
        yield Finding("compiler", Level.NOTE, problem, "move this project to a path without a space to compile networks")
    else:
        yield Finding("compiler", Level.NOTE, "no C++ compiler, so networks cannot be compiled", "apt-get install g++")
