"""Keys that the server sets in every training of a bundle that has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from monai.bundle import ConfigParser

from shared.front_door.given import is_note, top_level
from shared.front_door.names import nearest

from .served_model import BundleSource, config_files


def keys_of_training(source: BundleSource, values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `values` whose top-level key is in the bundle's ``train.json`` or its overlays.

    Bundles differ in their keys, such as those for epochs, and a training rejects a key that nothing reads.
    """
    known = _top_level_keys(source)
    return {key: value for key, value in values.items() if top_level(key) in known}


def check_training_keys(sources: Mapping[str, BundleSource], values: Mapping[str, Any]) -> None:
    """Check that every key is read by some training.

    Args:
        sources: bundle name -> bundle, for the bundles that can be trained.
        values: key -> value, with ``::`` between the names of nested keys.

    Raises:
        ValueError: for a key that is in no ``train.json`` of the bundles, suggesting the most similar names.
    """
    known = {key for source in sources.values() for key in _top_level_keys(source)}
    unknown = [key for key in values if top_level(key) not in known]
    if unknown and not sources:
        raise ValueError(f"--train_set {unknown[0]}: none of the served bundles can be trained, so nothing would read it")
    if unknown:
        raise ValueError(
            f"--train_set {unknown[0]}: expected a key of the train.json of {_listed(sources)}; none of them has "
            f"{top_level(unknown[0])!r}, so nothing would read it. {nearest(top_level(unknown[0]), known)}"
        )


def _top_level_keys(source: BundleSource) -> set[str]:
    files = config_files(source, "train")
    return {top_level(key) for file in files for key in ConfigParser.load_config_file(file) if not is_note(key)}


def _listed(names: Iterable[str]) -> str:
    *first, last = sorted(names)
    return f"{', '.join(first)} or {last}" if first else last
