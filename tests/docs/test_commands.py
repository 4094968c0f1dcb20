"""Every command in every README works: it is read from the file and run, in order, in a copy of the checkout.

How a command is run, by what it is:

- ``python -m monai.bundle run``, ``python scripts/...py`` and ``torchrun``: for real, to its end, with the options and the file
  names that stand in the README; small because of the settings, the data and the few replaced words in `small_form` and
  `checkout`. The interpreter that starts it has imported the libraries already; processes that it starts by itself are as always.
- A command in `small_form.NOT_RUN`, with its reason (a network, a cluster, many trainings), is not run. Of a Python script its
  options are parsed, of a shell script its syntax is checked.
- For all of them: every configuration that ``--config_file`` names is there, and every ``--key`` is one of its keys, which MONAI
  itself does not check.

The commands of one README see each other's results, as a reader's do; ``maps`` is empty before each that writes it.
"""

import argparse
import runpy
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import compare
from scripts.comparison.methods import check_given, find_methods

from .checkout import Checkout
from .documented import COMMANDS, READMES, ROOT, Command, unmarked_commands
from .small_form import ADDED, KEYS, NOT_RUN, REPLACED, bundle_of, find, is_run, small_words, starts_with
from .warm_process import WarmPython

RUNNABLE = list(dict.fromkeys(command.readme for command in COMMANDS))
# Their keys are of several bundles.
COMPARISONS = [command for command in COMMANDS if "scripts/compare.py" in command.words]
SWEEPS = [command for command in COMMANDS if {"--vary", "--set"} & set(command.words) and command not in COMPARISONS]
BUNDLE_RUNS = [command for command in COMMANDS if command.is_bundle_run]


def python_words(words: list[str]) -> list[str]:
    """What the interpreter gets of a command."""
    if words[0] == "torchrun":
        return ["-m", "torch.distributed.run", *words[1:]]
    assert words[0] == "python", f"cannot run {words[0]}: list the command in NOT_RUN, with its reason"
    return words[1:]


@pytest.mark.slow
@pytest.mark.parametrize("readme", RUNNABLE)
def test_every_command_of_a_readme_runs(
    readme: str, checkout: Checkout, python: WarmPython, tracking_uri: str, tmp_path: Path
) -> None:
    checkout.begin()
    for number, command in enumerate(command for command in COMMANDS if command.readme == readme and is_run(command)):
        checkout.provide_for(command)
        words, log, start = small_words(command), tmp_path / f"{number}.txt", time.monotonic()
        code = python.run(python_words(words), checkout.folder / command.folder, log, {"MLFLOW_TRACKING_URI": tracking_uri})
        print(f"{time.monotonic() - start:5.1f} s  {command}  {' '.join(words)}")
        assert code == 0, f"{command}: exit status {code} of {' '.join(words)}\n{log.read_text()[-6000:]}"


@pytest.mark.parametrize("start", [start for starts in NOT_RUN.values() for start in starts])
def test_what_is_not_run_is_there(start: str) -> None:
    assert any(starts_with(command, start) for command in COMMANDS)


def test_most_commands_are_run() -> None:
    assert sum(map(is_run, COMMANDS)) > 2 * len(COMMANDS) / 3


@pytest.mark.parametrize("bundle", sorted({bundle_of(command) for command in COMMANDS} - {None}))
def test_every_bundle_has_small_settings(bundle: str) -> None:
    assert bundle in KEYS, f"say in KEYS what makes a training of {bundle} small"


@pytest.mark.parametrize("before", REPLACED)
def test_what_is_replaced_is_there(before: str) -> None:
    assert any(find(list(command.words), shlex.split(before)) is not None for command in COMMANDS)


@pytest.mark.parametrize("start", ADDED)
def test_what_gets_options_is_there(start: str) -> None:
    assert any(starts_with(command, start) for command in COMMANDS)


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_command_stands_in_a_block_without_a_language(readme: Path) -> None:
    assert not unmarked_commands(readme), "name the language (bash) of the block, or the commands are not tested"


@pytest.mark.parametrize("command", BUNDLE_RUNS, ids=str)
def test_every_key_is_one_of_the_configuration(command: Command) -> None:
    """MONAI takes a mistyped key for a new one and says nothing."""
    missing = [path for path in command.config_paths if not Path(path).is_file()]
    assert command.config_files
    assert not missing
    unknown = [key for key in command.keys if key.split("::")[0] not in command.config]
    assert not unknown
    behind = command.words[command.words.index("monai.bundle") + 1 :]
    assert behind[0] == "run"
    assert behind[1].startswith("--") or behind[1] in command.config


@pytest.mark.parametrize("command", SWEEPS, ids=str)
def test_every_key_of_a_sweep_is_one_of_the_configuration(command: Command) -> None:
    files = command.config_files or [f"bundles/{bundle_of(command)}/configs/train.json"]
    config = Command("", 0, ("--config_file", *files)).config
    keys = [name for option, name in zip(command.words, command.words[1:], strict=False) if option in ("--vary", "--set")]
    assert keys
    assert not [key for key in keys if key.split("::")[0] not in config]


@pytest.mark.parametrize("command", COMPARISONS, ids=str)
def test_every_key_of_a_comparison_is_one_of_its_methods(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", list(command.words[1:]))
    arguments = compare.parsed()
    given: dict[str, dict[str, str]] = {}
    for method, key, value in arguments.set:
        given.setdefault(method, {})[key] = value
    check_given(find_methods(ROOT / "bundles", arguments.methods), given)


@pytest.mark.parametrize("command", [command for command in COMMANDS if not is_run(command)], ids=str)
def test_what_is_not_run_can_be_parsed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = command.words
    scripts = [argument for argument in arguments if argument.startswith("scripts/")]
    for script in scripts:
        assert (ROOT / script).is_file()
    if program == "bash":
        subprocess.run(["bash", "-n", str(ROOT / scripts[0])], check=True)
    elif scripts:
        parse_only(arguments, monkeypatch)


def parse_only(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script as far as its own argument parser, which raises for what it does not know."""

    class ParsedError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(parser, args=None, namespace=None):
        _, rest = parse(parser, args, namespace)
        raise ParsedError(rest)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", list(arguments))
    monkeypatch.chdir(ROOT)
    with pytest.raises(ParsedError) as parsed:
        runpy.run_path(arguments[0], run_name="__main__")
    assert parsed.value.args[0] == []
