"""The slide mapper that a bundle's inference.json describes, without the rest of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from .. import require_version
from ..front_door.check import check_given
from ..front_door.given import Given
from ..front_door.names import nearest
from ..front_door.surroundings import device_problems
from .slide_embedder import SlideEmbedder
from .slide_mapper import SlideMapper

CHECKPOINT_NAME = "model.pt"


def load_slide_mapper(
    bundle: str | Path, overlays: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> SlideMapper:
    """Resolve the ``checks`` of a bundle's ``inference.json`` and build its mapper.

    Args:
        bundle: its folder.
        overlays: configurations after its ``inference.json``: names in its ``configs`` (``unet``), or paths.
        overrides: keys and values, as ``python -m monai.bundle run`` takes them. ``checkpoint`` and ``checkpoints`` stand for
            each other: some bundles take one, some several.

    Raises:
        ValueError: for a bundle, an overlay or a key that is not there, a bundle that declares no checks, and for what the
            bundle's checks refuse.
        RuntimeError: for a bundle that was made for another version of `shared`.
    """
    bundle = Path(bundle)
    files = _config_files(bundle, overlays)
    parser = ConfigParser()
    parser.read_config([str(path) for path in files])
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    if "shared_version" in parser.get("_meta_"):
        require_version(str(parser.get("_meta_::shared_version")))
    if "checks" not in parser:
        raise ValueError(
            f"{files[0]} has no key 'checks': expected a list of the checks to run before the network is loaded, such as "
            '["@check_version", "@check_training"]'
        )
    overrides = _named_as_in(parser.get(), dict(overrides or {}))
    for key in overrides:
        if key.split("::")[0] not in parser:
            known = [name for name in parser.get() if not name.startswith("_")]
            raise ValueError(
                f"{files[0]} has no key {key.split('::')[0]!r}; it has: {', '.join(known)}. {nearest(key.split('::')[0], known)}"
            )
    overrides = {"bundle_root": str(bundle)} | overrides
    parser.update(overrides)
    check_given(Given(tuple(files), overrides), parser)
    try:
        problems = device_problems(parser.get_parsed_content("device"))
        if problems:
            raise ValueError(problems[0])
        parser.get_parsed_content("checks")
        mapper = parser.get_parsed_content("slide_mapper")
    except RuntimeError as error:
        cause = first_cause(error)
        if isinstance(cause, ValueError):
            # Not the chain of causes alone, which is lost where the error goes from a process to another.
            raise ValueError(str(cause)) from error
        raise
    if not isinstance(mapper, SlideMapper):
        raise ValueError(f"{bundle}: 'slide_mapper' is a {type(mapper).__name__}, not a SlideMapper")
    return mapper


def load_slide_embedder(
    bundle: str | Path, overlays: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> SlideEmbedder:
    """`SlideMapper.embedder` of the mapper that `load_slide_mapper` builds of the same arguments."""
    return load_slide_mapper(bundle, overlays, overrides).embedder()


def first_cause(error: BaseException) -> BaseException:
    """The error that a configuration's item raised, which MONAI wraps once per level."""
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error


def _config_files(bundle: Path, overlays: Sequence[str]) -> list[Path]:
    configs = bundle / "configs"
    if not (configs / "inference.json").is_file():
        raise ValueError(f"{bundle} is not a bundle: {configs / 'inference.json'} does not exist")
    paths = [configs / "inference.json"]
    for overlay in overlays:
        named = configs / f"{overlay}.json"
        path = named if named.is_file() else Path(overlay)
        if not path.is_file():
            raise ValueError(f"the overlay {overlay} is neither a file nor the name of one in {configs}: there is no {named}")
        paths.append(path)
    return paths


def _named_as_in(config: Mapping[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`overrides` with the checkpoints under the name that the configuration has for them."""
    if "checkpoint" in overrides and "checkpoint" not in config and "checkpoints" in config:
        overrides["checkpoints"] = [overrides.pop("checkpoint")]
    if len(overrides.get("checkpoints", ())) == 1 and "checkpoints" not in config and "checkpoint" in config:
        overrides["checkpoint"] = overrides.pop("checkpoints")[0]
    return overrides
