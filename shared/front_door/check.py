"""The check of everything that the user of a run gave, before anything is computed or written."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from monai.bundle import ConfigParser

from .. import require_version
from .explained import explain_errors, is_command_line
from .given import Given, executing_parser, given_now
from .loaded_weights import check_loaded_weights, weights_to_load
from .names import misplaced_overlays, unknown_arguments, unknown_keys, without_effect, wrong_switches
from .surroundings import unknown_home, unwritable_folders, wrong_device, wrong_processes
from .values import expand_home, null_words, number_signs, truth_words, wrong_epochs, wrong_kinds, wrong_paths

logger = logging.getLogger(__name__)


def check_configuration(writes: Sequence[str] = ("output_dir",)) -> None:
    """Check the configuration that is being executed; every configuration of a bundle does it first.

    From here on MONAI's command line reports errors that its user can fix in one line, see `explain_errors`.
    `monai.bundle.load` runs and writes nothing, and copies whatever weights fit: there an error says which do not.

    Args:
        writes: keys of the folders that the run writes to.

    Raises:
        ValueError: a line for each problem, with its place, what was expected, what was found and the remedy.
    """
    if is_command_line():
        explain_errors()
    parser = executing_parser()
    loaded = weights_to_load()
    check_given(given_now(parser), parser, writes if loaded is None else ())
    if loaded is not None:
        check_loaded_weights(loaded, parser)


def check_given(given: Given, parser: ConfigParser | None = None, writes: Sequence[str] = ()) -> None:
    """Check what was given; a ``~`` is expanded in the parser. Of keys without effect a warning says so.

    Args:
        given: files and values.
        parser: of the configuration that they are merged in; None to merge them here.
        writes: keys of the folders that will be written to. Without any, device and processes are not looked at either.

    Raises:
        ValueError: a line for each problem.
        RuntimeError: for a bundle that was made for another version of `shared`.
    """
    _require_version(given, parser)
    # In this order: what was mistyped may be the reason for the rest. Arguments are looked up in modules that import MLflow.
    _refuse([*misplaced_overlays(given), *(unknown_home() if writes else [])])
    if parser is None:
        parser = _merged(given)
    _refuse(_problems_of_entries(given, parser))
    for line in without_effect(given, parser.get()):
        logger.warning(line)
    if writes:
        _refuse(_problems_of_surroundings(given, parser, writes))


def _require_version(given: Given, parser: ConfigParser | None) -> None:
    """Check the version first, because keys and arguments of another version are not mistakes of the user."""
    metadata = parser.get("_meta_") if parser is not None else given.metadata
    if metadata and "shared_version" in metadata:
        require_version(str(metadata["shared_version"]))


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))


def _problems_of_entries(given: Given, parser: ConfigParser) -> list[str]:
    config: Mapping[str, Any] = parser.get()
    problems = [
        *expand_home(parser),
        *unknown_keys(given, config),
        *null_words(given),
        *number_signs(given),
        *wrong_paths(given, config),
        *wrong_kinds(given),
        *truth_words(given),
    ]
    problems = problems or [*unknown_arguments(given, config), *wrong_switches(given, config)]
    return problems or wrong_epochs(given, config, parser.get_parsed_content)


def _problems_of_surroundings(given: Given, parser: ConfigParser, writes: Sequence[str]) -> list[str]:
    problems = wrong_processes(parser.get())
    problems = problems or wrong_device(given, parser.get(), parser.get_parsed_content)
    return problems or unwritable_folders(given, writes, parser.get_parsed_content)


def _merged(given: Given) -> ConfigParser:
    parser = ConfigParser(copy.deepcopy(given.merged))
    try:
        parser.update(dict(given.values))
    except KeyError as error:
        raise ValueError(f"{given.base} has no item for one of {', '.join(given.values)} ({error})") from error
    return parser
