"""Values that MONAI's command line turns into something else, or that cannot be what was meant."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from .given import Given, is_formula, is_note, normalised

logger = logging.getLogger(__name__)

# The last name of a key says what its value is.
PATH_NAME = re.compile(r"(\w+_)?(dir|file|folder|root|path)|manifest|source|checkpoint|initial(_weights)?")
PATHS_NAME = re.compile(r"(\w+_)?(paths|checkpoints)")
TEXT_NAME = re.compile(r"run_name|tracking_uri|split")
EPOCHS_NAME = re.compile(r"(\w+_)?epochs|num_trees|passes")
_CLASSES_NAME = re.compile(r"(\w+_)?classes")
# Of those that may be null or computed.
_NUMBER_NAME = re.compile(r"(\w+_)?(mpp|px|threshold|share|lr|seed)")
_NUMBER_OR_FILE = ("temperature",)
_NULL_WORDS = ("none", "null")
_TRUTH_WORDS = ("true", "false")
_HOME = re.compile(r"~[\w.-]*(/|$)")
# In formulas, where a # between names is as good as ::.
_REFERENCE = re.compile(r"@\w+(?:(?:::|#)\w+)*|^%.*", re.DOTALL)
_TEXTS = (PATH_NAME, PATHS_NAME, TEXT_NAME, _CLASSES_NAME)
MISSING = object()


def null_words(given: Given) -> list[str]:
    """A None that MONAI's command line ignores, and words that it does not read as null."""
    problems = []
    for key in given.dropped:
        default = item_at(given.merged, key)
        if default is not None and default is not MISSING:
            problems.append(f"--{key} None: MONAI ignores it, and {key} would stay {default!r}. Use --{key} '$None'")
    for key, value in given.values.items():
        default = item_at(given.merged, key)
        # An argument that the base leaves to its function may have such a word, as `mapper::tiles::tta` has.
        is_left_out = default is MISSING and "::" in normalised(key)
        if isinstance(value, str) and value.lower() in _NULL_WORDS and default != value and not is_left_out:
            problems.append(f"--{key} {value}: expected a value, found the word {value!r}. For no value use --{key} '$None'")
    return problems


def wrong_paths(given: Given, config: Mapping[str, Any]) -> list[str]:
    """Numbers, lists and the like where a path is meant."""
    problems = []
    for key, value in _named_items(given, config, PATH_NAME):
        if not isinstance(value, str | Path | dict | None):
            problems.append(_no_path(given, key, value))
    for key, value in _named_items(given, config, PATHS_NAME):
        if isinstance(value, str | Path) and not is_formula(value):
            problems.append(
                f"{given.source_of(key)}: expected a list of paths, found {str(value)!r}. Use --{key} \"['{value}']\""
            )
        elif isinstance(value, list | tuple):
            problems += [_no_path(given, key, item) for item in value if not isinstance(item, str | Path)]
        elif not isinstance(value, str | Path | dict | None):
            problems.append(_no_path(given, key, value))
    return problems


def wrong_kinds(given: Given) -> list[str]:
    """Words where the base has True or False (``false`` would count as true), single values for a list, numbers for a text, and
    for a number words or what Python makes of a decimal comma."""
    problems = []
    for where, key, value in given.entries():
        default = item_at(given.merged, key) if where.startswith("--") else _base_item(given, key)
        if is_formula(value) or value is None:
            continue
        if key in _NUMBER_OR_FILE and (isinstance(value, list | tuple) or _with_a_point(value)):
            problems.append(f"{where}: expected a number or a file, found {value!r}{_with_a_point(value)}")
        if isinstance(default, bool) and not (isinstance(value, bool) or value in (0, 1)):
            problems.append(f"{where}: expected True or False, found {value!r}")
        *parents, last = normalised(key).split("::")
        if _is_number(default, last, bool(parents)) and isinstance(value, str | list | tuple):
            hint = _with_a_point(value) if not isinstance(default, int) and not last.endswith(("px", "seed")) else ""
            problems.append(f"{where}: expected a number, found {value!r}{hint}")
        if parents and not TEXT_NAME.fullmatch(last):
            # Arguments of a component may have several kinds, such as MONAI's ``keys``: a name or a list of them.
            continue
        is_text = TEXT_NAME.fullmatch(last) or (isinstance(default, str) and not is_formula(default))
        if is_text and isinstance(value, int | float | list | tuple) and not PATH_NAME.fullmatch(last):
            problems.append(f"{where}: expected a text, found {value!r}. Use --{key} \"'{value}'\"")
        if isinstance(default, list) and isinstance(value, str | int | float) and not PATHS_NAME.fullmatch(last):
            problems.append(f'{where}: expected a list such as {default!r}, found {value!r}. Use --{key} "[{value!r}]"')
    return problems


def truth_words(given: Given) -> list[str]:
    """The words true and false where the base has no text: both would count as true.

    Where it has True or False, `wrong_kinds` says so; here are keys that are null, computed or left to their function.
    """
    problems = []
    for where, key, value in given.entries():
        for name, word in _words(normalised(key), value):
            last = name.split("::")[-1]
            default = item_at(given.merged, name) if where.startswith("--") else _base_item(given, name)
            is_text = isinstance(default, str) and not is_formula(default)
            if is_text or isinstance(default, bool) or any(kind.fullmatch(last) for kind in _TEXTS):
                continue
            problems.append(f"{where}: expected a value, found the word {word!r}. For a truth value use {word.capitalize()}")
    return problems


def wrong_epochs(given: Given, config: Mapping[str, Any], resolve: Callable[[str], Any]) -> list[str]:
    """Numbers of epochs, or of boosting rounds, that are not integers of at least 1.

    Args:
        given: what the user gave.
        config: the merged configuration.
        resolve: the value of a key, formulas computed.
    """
    problems, formulas = [], []
    for key, value in _named_items(given, config, EPOCHS_NAME):
        if is_formula(value):
            formulas.append(key)
        elif not is_count(value):
            problems.append(_no_count(given, key, value))
    # A formula of what is wrong itself says nothing new.
    for key in formulas if not problems else ():
        with suppress(RuntimeError):  # such as one of a null, which is reported itself
            value = resolve(key)
            if not is_count(value):
                problems.append(_no_count(given, key, value))
    return problems


def number_signs(given: Given) -> list[str]:
    """Values with a ``#``, of which MONAI makes ``::``."""
    problems = []
    for index, content in enumerate([*given.contents, given.values]):
        for key, value in content.items():
            for text in _texts(value) if not is_note(key) else ():
                if "#" in (_REFERENCE.sub("", text) if is_formula(text) else text):
                    where = f"{given.files[index]}, key {key!r}" if index < len(given.files) else f"--{key}"
                    problems.append(
                        f"{where}: MONAI reads {text!r} as {text.replace('#', '::')!r}. "
                        "Rename the file or folder, or give a link (ln -s) without '#'"
                    )
    return problems


def expand_home(parser: ConfigParser) -> list[str]:
    """Put the home folder in place of a ``~`` at the beginning of values, also where the parser has read them already.

    Returns:
        a problem for each that has no home folder.
    """
    problems = []
    for container, place, key in _places(parser.get()):
        text = container[place]
        if not _HOME.match(text):
            continue
        try:
            expanded = str(Path(text).expanduser())
        except RuntimeError:
            problems.append(f"{key}: {text!r} names a home folder that does not exist on this system. Give the full path")
            continue
        container[place] = expanded
        item = parser.ref_resolver.items.get(key)
        if item is not None:
            item.update_config(expanded)
        logger.info(f"{key}: {text} is {expanded}")
    return problems


def _is_number(default: Any, name: str, is_nested: bool) -> bool:
    """Whether a key is a number, by the base's value or, at the top level, where that is null or computed, by its name. Epochs
    have a check of their own."""
    if isinstance(default, bool | list) or default is MISSING or EPOCHS_NAME.fullmatch(name) or name in _NUMBER_OR_FILE:
        return False
    if is_nested:
        return isinstance(default, int | float)
    return isinstance(default, int | float) or (
        bool(_NUMBER_NAME.fullmatch(name)) and (not isinstance(default, str) or is_formula(default))
    )


def _with_a_point(value: Any) -> str:
    """How a number with a decimal comma is written, of which Python has made a list, or a text where it could not.

    >>> _with_a_point((0, 25)), _with_a_point("0,003"), _with_a_point((1, 2, 3)), _with_a_point("fine")
    (': write 0.25', ': write 0.003', '', '')
    """
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f": write {text.replace(',', '.')}" if re.fullmatch(r"-?\d+,\d+", text) else ""


def is_count(value: Any) -> bool:
    """Whether it is a whole number from 1."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _no_count(given: Given, key: str, value: Any) -> str:
    return f"{given.source_of(key)}: {key} must be an integer of at least 1, found {value!r}"


def _no_path(given: Given, key: str, value: Any) -> str:
    is_list = isinstance(value, list | tuple)
    text = ",".join(map(str, value)) if is_list else str(value)
    found = f"the {'list' if is_list else type(value).__name__} {value!r}"
    return (
        f"{given.source_of(key)}: expected a path, found {found}, which is how Python reads {text!r}. "
        f"Use --{key} ./{text}, or the full path"
    )


def _named_items(given: Given, config: Mapping[str, Any], name: re.Pattern[str]) -> Iterator[tuple[str, Any]]:
    """(key, value) of the top-level entries of these names, and of nested ones that were given."""
    yield from ((key, value) for key, value in config.items() if name.fullmatch(key) and not is_note(key))
    nested = {normalised(key): value for _, key, value in given.entries() if "::" in normalised(key)}
    yield from ((key, value) for key, value in nested.items() if name.fullmatch(key.split("::")[-1]))


def item_at(config: Any, key: str) -> Any:
    """The item of a nested key; `MISSING` where there is none."""
    for name in normalised(key).split("::"):
        if not isinstance(config, Mapping) or name not in config:
            return MISSING
        config = config[name]
    return config


def _base_item(given: Given, key: str) -> Any:
    found = (item_at(given.contents[index], key) for index in reversed(given.bases))
    return next((item for item in found if item is not MISSING), MISSING)


def _words(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """(key, word) of every true and false in a value and the mappings in it; what MONAI reads itself is left out."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _words(f"{key}::{name}", item)
    elif isinstance(value, str) and value.lower() in _TRUTH_WORDS and not is_note(key.split("::")[-1]):
        yield key, value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item) if not str(name).startswith("_desc_") else ()
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _places(config: Any, key: str = "") -> Iterator[tuple[Any, Any, str]]:
    """(container, index or name, id) of every text of a configuration, notes aside."""
    items = list(config.items()) if isinstance(config, dict) else list(enumerate(config)) if isinstance(config, list) else []
    for name, item in items:
        if isinstance(name, str) and is_note(name):
            continue
        id_ = f"{key}::{name}" if key else str(name)
        if isinstance(item, str):
            yield config, name, id_
        else:
            yield from _places(item, id_)
