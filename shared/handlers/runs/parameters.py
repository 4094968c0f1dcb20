"""Which values of a configuration are logged to MLflow: those with which a training runs, after everything is merged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from monai.bundle.reference_resolver import ReferenceResolver

_NO_PARAMETERS = {"imports", "initialize", "run", "finalize"}
_FORMULAS = ("$", "@", "%")
_MISSING = object()


def effective_parameters(
    config: Mapping[str, Any],
    value_of: Callable[[str], Any],
    given: Iterable[tuple[str, Any]] = (),
) -> dict[str, str]:
    """Numbers, words, lists and nulls of a configuration, also those that follow from others.

    Names of nested items are joined by dots: ``cmil.lr``. Arguments of components are left out, unless they were given by an
    overlay or on the command line. A formula is computed where all that it refers to are values, or settings that hold values;
    one that needs another component, such as a network, is left out.

    Args:
        config: everything merged.
        value_of: computes the item of a name, with ``::`` between the names of nested items.
        given: key and value of what overlays the base configuration.
    """
    found = {name: value for name, value in _leaves(config, into_components=False) if name.split("::")[0] not in _NO_PARAMETERS}
    for key, value in given:
        name = key.removeprefix("+").replace("#", "::")
        if name.split("::")[0] not in _NO_PARAMETERS:
            found |= dict(_leaves(value, True, name)) if isinstance(value, Mapping) else {name: value}
    shown = {name: _effective(name, config, value_of, value) for name, value in found.items()}
    return {name.replace("::", "."): str(value) for name, value in shown.items() if value is not _MISSING}


def _leaves(items: Mapping[str, Any], into_components: bool, group: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in items.items():
        path = f"{group}::{name}" if group else name
        if name.startswith("_") and not (into_components and name == "_target_"):
            continue
        if not isinstance(value, Mapping):
            yield path, value
        elif into_components or "_target_" not in value:
            yield from _leaves(value, into_components, path)


def _effective(name: str, config: Mapping[str, Any], value_of: Callable[[str], Any], given: Any) -> Any:
    """The value of an item; what is no parameter is missing."""
    value = _item(config, name, given)
    if not _is_formula(value):
        return value if _is_plain(value) else _MISSING
    if not _is_of_values(value, config, frozenset()):
        return _MISSING
    try:
        value = value_of(name)
    except Exception:
        # Whoever needs the item will say what is wrong with it.
        return _MISSING
    if isinstance(value, torch.device | Path):
        return str(value)
    return value if _is_plain(value) else _MISSING


def _is_of_values(value: Any, config: Mapping[str, Any], seen: frozenset[str]) -> bool:
    """Whether a formula refers to nothing but values, formulas of such, and settings, so that computing it makes nothing."""
    if isinstance(value, Mapping):
        return _is_of_settings(value) and all(_is_of_values(part, config, seen) for part in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(_is_of_values(part, config, seen) for part in value)
    if not _is_formula(value):
        return _is_plain(value)
    if value.startswith("%"):
        return False
    references = set(ReferenceResolver.match_refs_pattern(value)) - seen
    return all(_is_of_values(_item(config, name, _MISSING), config, seen | {name}) for name in references)


def _is_of_settings(component: Mapping[str, Any]) -> bool:
    """Whether a component is a frozen dataclass, such as `shared.engines.WarmStart`: it holds its arguments, and does nothing."""
    kind = locate(str(component.get("_target_")))
    return isinstance(kind, type) and is_dataclass(kind) and bool(kind.__dataclass_params__.frozen)  # type: ignore[attr-defined]


def _item(config: Any, name: str, otherwise: Any) -> Any:
    for part in name.split("::"):
        if not isinstance(config, Mapping) or part not in config:
            return otherwise
        config = config[part]
    return config


def _is_formula(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(_FORMULAS)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(_is_plain(part) and not _is_formula(part) for part in value)
    return value is None or isinstance(value, (int, float, str))
