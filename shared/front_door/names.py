"""Keys that nothing reads: MONAI silently accepts a mistyped key as a new one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from pydoc import ErrorDuringImport, locate
from typing import Any

from monai.bundle.config_item import ConfigComponent

from .given import Given, is_formula, is_note, normalised, top_level
from .values import item_at

# Read by MONAI itself.
RESERVED = {"imports", "initialize", "run", "finalize"}
# The entry of a stage, for `run` or for the command line.
STAGE_PREFIX = "run_"


# What an overlay says of its place: after which other one it is given, and with which it is not.
AFTER, WITHOUT = "_after_", "_without_"


def misplaced_overlays(given: Given) -> list[str]:
    """Overlays given before their base, without another one that they need, or next to one that they replace."""
    problems = []
    for index, file in enumerate(given.files):
        base = next((place for place in given.bases if place > index), None)
        if base is not None and index not in given.bases:
            problems.append(f"{file} is given before {given.files[base]}, which overwrites it: give the overlay after its base")
        content, earlier = given.contents[index], [other.stem for other in given.files[:index]]
        needed, replaced = content.get(AFTER), content.get(WITHOUT)
        if needed is not None and needed not in earlier:
            problems.append(f"{file} changes what {needed}.json sets: give {needed}.json before it")
        if replaced is not None and replaced in [other.stem for other in given.files]:
            problems.append(f"{file} replaces {replaced}.json: leave that file out")
    return problems


def unknown_keys(given: Given, config: Mapping[str, Any]) -> list[str]:
    """Keys of the command line and of overlays that the base does not have and that nothing refers to.

    Args:
        given: what the user gave.
        config: the merged configuration.
    """
    contents = [*given.contents, dict(given.values)]
    referred = set(_references([config, *contents]))
    base_keys = {top_level(key) for index in given.bases for key in given.contents[index]}
    overlaid = {top_level(key) for content in given.contents for key in content}
    problems = []
    for where, key, _ in given.entries():
        is_command_line = where.startswith("--")
        # A training's overlay may be given after an evaluation: there some of its keys have no use.
        known = base_keys | RESERVED | (overlaid if is_command_line else set(given.siblings))
        # Only in files does a plus merge.
        name = key if is_command_line and key.startswith("+") else top_level(key)
        if name in known or name in referred or (name.startswith(STAGE_PREFIX) and not is_command_line):
            problems += _unknown_entry(where, key, given.merged, referred)
            continue
        elsewhere = f" (it is a key of {given.siblings[name]})" if name in given.siblings else ""
        problems.append(
            f"{where}: {given.base} has no key {name!r}{elsewhere}, so it would have no effect. {nearest(name, known)}"
        )
    return problems


def without_effect(given: Given, config: Mapping[str, Any]) -> list[str]:
    """What is said of keys of the command line to which nothing that runs refers, such as those of a network in whose place an
    overlay has put another.

    Args:
        given: what the user gave.
        config: the merged configuration.
    """
    waiting = [name for name in config if name in RESERVED or name.startswith(STAGE_PREFIX)]
    reached = set(waiting)
    while waiting:
        found = set(_references(item_at(config, waiting.pop()), groups=False)) - reached
        reached |= found
        waiting += found
    overlays = [file.name for index, file in enumerate(given.files) if index not in given.bases]
    among = f" with {', '.join(overlays)}" if overlays else ""
    return [
        f"{where} has no effect{among}: nothing that runs refers to it"
        for where, key, _ in given.entries()
        if where.startswith("--") and top_level(key) in config and not any(map(partial(_is_within, normalised(key)), reached))
    ]


def _is_within(key: str, other: str) -> bool:
    """Whether one of two nested keys holds the other."""
    return f"{key}::".startswith(f"{other}::") or f"{other}::".startswith(f"{key}::")


def unknown_arguments(given: Given, config: Mapping[str, Any]) -> list[str]:
    """Arguments that the function or class of a component does not take."""
    problems = []
    for path, component, taken in _signatures(config):
        if any(item.kind is item.VAR_KEYWORD for item in taken.values()):
            continue
        for name in _arguments(component):
            if name not in taken:
                key = "::".join((*path, name))
                problems.append(
                    f"{_source(given, key)}: {component['_target_']} of {'::'.join(path)!r} has no argument {name!r}. "
                    f"{nearest(name, [*component, *taken])}"
                )
    return problems


def wrong_switches(given: Given, config: Mapping[str, Any]) -> list[str]:
    """Words for arguments of components that are True or False: ``false`` would count as true."""
    problems = []
    for path, component, taken in _signatures(config):
        for name in _arguments(component):
            value = component[name]
            if name in taken and _is_switch(taken[name]) and isinstance(value, str) and not is_formula(value):
                key = "::".join((*path, name))
                problems.append(f"{_source(given, key)}: {key} expected True or False, found {value!r}")
    return problems


def nearest(name: str, known: Collection[str]) -> str:
    """Which known names may have been meant, as a sentence.

    >>> nearest("treshold", ["threshold", "temperature"])
    'Was threshold meant?'
    """
    found = get_close_matches(name, sorted({item for item in known if not is_note(item)} - {name}), n=3)
    return f"Was {' or '.join(found)} meant?" if found else "Correct its name, or leave it out."


def _unknown_entry(where: str, key: str, merged: Mapping[str, Any], referred: Collection[str]) -> list[str]:
    """A nested key whose last name is new in a group of items; `unknown_arguments` handles components."""
    *parents, leaf = normalised(key).split("::")
    item = item_at(merged, "::".join(parents))
    is_group = isinstance(item, Mapping) and "_target_" not in item
    if not is_group or leaf in item or is_note(leaf) or normalised(key) in referred:
        return []
    return [f"{where}: {'::'.join(parents)!r} has no item {leaf!r}, so it would have no effect. {nearest(leaf, list(item))}"]


def _references(value: Any, groups: bool = True) -> Iterator[str]:
    """Every id that a configuration refers to, and with `groups` the first name of each."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not is_note(str(name)) or name in ("_target_", "_requires_", "_disabled_", "_mode_"):
                yield from _references(item, groups)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item, groups)
    elif isinstance(value, str) and value.startswith(("$", "@", "%")):
        for found in re.findall(r"[@%](\w+(?:(?:::|#)\w+)*)", value):
            yield normalised(found)
            if groups:
                yield top_level(found)


def _components(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """(path, item) of everything with a ``_target_``."""
    if ConfigComponent.is_instantiable(config):
        yield path, config
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(config, Mapping):
        items = ((name, item) for name, item in config.items() if name != "_meta_")
    elif isinstance(config, list):
        items = enumerate(config)
    for name, item in items:
        yield from _components(item, (*path, str(name)))


def _signatures(
    config: Mapping[str, Any],
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any], Mapping[str, inspect.Parameter]]]:
    """(path, item, parameters of its function or class) of every component of which these are known."""
    for path, component in _components(config):
        target = component["_target_"]
        for _ in range(len(config)):
            if not isinstance(target, str) or not target.startswith("@"):
                break
            item: Any = config
            for name in normalised(target[1:]).split("::"):
                item = item.get(name) if isinstance(item, Mapping) else None
            target = item.get("_target_") if isinstance(item, Mapping) else None
        if not isinstance(target, str) or target.startswith("$"):
            continue
        try:
            found = locate(target)
            signature = inspect.signature(found) if callable(found) else None
        except (ErrorDuringImport, TypeError, ValueError):
            continue
        if signature is not None:
            yield path, component, signature.parameters


def _arguments(component: Mapping[str, Any]) -> list[str]:
    return [name for name in component if name not in ConfigComponent.non_arg_keys and not is_note(name)]


def _is_switch(parameter: inspect.Parameter) -> bool:
    """Whether an argument is True or False, by its annotation, or else by its default."""
    if parameter.annotation is inspect.Parameter.empty:
        return isinstance(parameter.default, bool)
    kinds = set(re.findall(r"\w+", inspect.formatannotation(parameter.annotation)))
    return "bool" in kinds and not kinds & {"str", "Any", "object"}


def _source(given: Given, key: str) -> str:
    """The given key that a nested one belongs to, or else the key itself."""
    for where, name, _ in reversed(list(given.entries())):
        if key == normalised(name) or key.startswith(f"{normalised(name)}::"):
            return where
    return f"key {key!r}"
